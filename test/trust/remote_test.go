//go:build trust

package trust

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// A visit is what became of opening a page in a browser.
type visit struct {
	// refused is why the browser did not open it; empty if it did.
	refused  string
	status   int
	protocol string // as ALPN names it
	// secure says that the browser sees nothing to warn of.
	secure bool
}

// A browser is one that runs, headless and as a user.
type browser interface {
	// open opens a page in a new tab.
	open(url string) visit
	// close ends the browser, and waits for its end.
	close()
}

// A remote is the connection to a browser through which it is driven. Chromium's
// DevTools protocol and Firefox's WebDriver BiDi differ in what they say, but both say
// it in messages of JSON: commands with a number, replies with the same, and events.
type remote struct {
	t       *testing.T
	cmd     *exec.Cmd
	ended   chan struct{}
	conn    *websocket.Conn
	number  int
	session string    // of Chromium: the tab that commands are for
	events  []message // those that came since the last forget
}

// A message is what a browser says.
type message struct {
	ID     int             `json:"id"`
	Method string          `json:"method"` // of an event
	Params json.RawMessage `json:"params"`
	Result json.RawMessage `json:"result"`
	// Error is a string in BiDi, with a message beside it, and has one in it in DevTools.
	Error   json.RawMessage `json:"error"`
	Message string          `json:"message"`
}

// patience is how long a browser may take for anything.
const patience = time.Minute

// launch starts a browser, which prints where it can be driven from in a line that
// matches, and connects to suffix there.
func (m *machine) launch(u user, listening *regexp.Regexp, suffix, program string, args ...string) *remote {
	m.t.Helper()
	cmd := m.command(context.Background(), u, program, args...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	r := &remote{t: m.t, cmd: cmd, ended: make(chan struct{})}
	address := make(chan string, 1)
	go func() {
		defer close(r.ended)
		defer close(address)
		lines := bufio.NewScanner(stderr)
		var said strings.Builder
		found := false
		for lines.Scan() {
			if match := listening.FindStringSubmatch(lines.Text()); match != nil && !found {
				found = true
				address <- match[1]
			}
			fmt.Fprintln(&said, lines.Text())
		}
		io.Copy(io.Discard, stderr)
		cmd.Wait()
		if !found {
			m.t.Logf("%s said:\n%s", program, said.String())
		}
	}()
	m.t.Cleanup(r.kill)
	select {
	case at, ok := <-address:
		if !ok {
			m.t.Fatalf("%s has ended", program)
		}
		if r.conn, _, err = websocket.DefaultDialer.Dial(at+suffix, nil); err != nil {
			m.t.Fatalf("connect to %s: %v", program, err)
		}
	case <-time.After(patience):
		m.t.Fatalf("%s does not say where it listens", program)
	}
	return r
}

// kill ends the browser at once, if it has not ended.
func (r *remote) kill() {
	if r.conn != nil {
		r.conn.Close()
	}
	r.cmd.Process.Kill()
	<-r.ended
}

// do sends a command and waits for its reply, whose result is put into result, which
// may be nil. The error is what the browser said.
func (r *remote) do(method string, params, result any) error {
	r.t.Helper()
	r.number++
	command := map[string]any{"id": r.number, "method": method, "params": params}
	if r.session != "" {
		command["sessionId"] = r.session
	}
	if err := r.conn.WriteJSON(command); err != nil {
		r.t.Fatalf("%s: %v", method, err)
	}
	for {
		reply := r.read(method)
		switch {
		case reply.ID != r.number:
			r.events = append(r.events, reply)
		case reply.Error != nil:
			return fmt.Errorf("%s: %s %s", method, reply.Error, reply.Message)
		case result == nil:
			return nil
		default:
			return json.Unmarshal(reply.Result, result)
		}
	}
}

// must is do, for what must succeed.
func (r *remote) must(method string, params, result any) {
	r.t.Helper()
	if err := r.do(method, params, result); err != nil {
		r.t.Fatal(err)
	}
}

// read waits for the next message.
func (r *remote) read(what string) message {
	r.t.Helper()
	r.conn.SetReadDeadline(time.Now().Add(patience))
	var m message
	if err := r.conn.ReadJSON(&m); err != nil {
		r.t.Fatalf("wait for %s: %v", what, err)
	}
	return m
}

// event waits for an event that fits, which may have come before.
func (r *remote) event(method string, into any, fits func() bool) {
	r.t.Helper()
	for {
		for len(r.events) > 0 {
			e := r.events[0]
			r.events = r.events[1:]
			if e.Method != method {
				continue
			}
			if err := json.Unmarshal(e.Params, into); err != nil {
				r.t.Fatalf("%s: %v", method, err)
			}
			if fits() {
				return
			}
		}
		r.events = append(r.events, r.read(method))
	}
}

// A chromium is Chromium, driven by the DevTools protocol.
type chromium struct{ *remote }

var chromiumListens = regexp.MustCompile(`DevTools listening on (ws://\S+)`)

// chromium starts Chromium as a user starts it, but for having no window.
func (m *machine) chromium(u user) browser {
	m.t.Helper()
	return chromium{m.launch(u, chromiumListens, "", "/usr/bin/chromium", "--headless", "--no-sandbox", "--disable-gpu",
		"--disable-quic", "--no-first-run", "--disable-background-networking", "--remote-debugging-port=0")}
}

func (c chromium) open(url string) visit {
	c.t.Helper()
	var target struct{ TargetID string }
	var attached struct{ SessionID string }
	c.must("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	c.must("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &attached)
	c.session = attached.SessionID
	defer func() {
		c.session = ""
		c.must("Target.closeTarget", map[string]any{"targetId": target.TargetID}, nil)
	}()
	tab := remote(*c.remote)
	defer func() { c.remote.number = tab.number }()
	tab.must("Network.enable", struct{}{}, nil)
	var navigated struct{ ErrorText, LoaderID string }
	tab.must("Page.navigate", map[string]any{"url": url}, &navigated)
	if navigated.ErrorText != "" {
		return visit{refused: navigated.ErrorText}
	}
	var got struct {
		LoaderID, Type string
		Response       struct {
			Status                  int
			Protocol, SecurityState string
		}
	}
	tab.event("Network.responseReceived", &got, func() bool { return got.LoaderID == navigated.LoaderID && got.Type == "Document" })
	return visit{status: got.Response.Status, protocol: got.Response.Protocol, secure: got.Response.SecurityState == "secure"}
}

func (c chromium) close() {
	c.t.Helper()
	c.must("Browser.close", struct{}{}, nil)
	<-c.ended
}

// A firefox is Firefox, driven by WebDriver BiDi.
type firefox struct{ *remote }

var firefoxListens = regexp.MustCompile(`WebDriver BiDi listening on (ws://\S+)`)

// firefox starts Firefox as a user starts it, but for having no window, with the
// profile that it makes itself the first time.
func (m *machine) firefox(u user) browser {
	m.t.Helper()
	f := firefox{m.launch(u, firefoxListens, "/session", "/usr/bin/firefox-esr", "--headless", "--remote-debugging-port=0")}
	f.must("session.new", map[string]any{"capabilities": struct{}{}}, nil)
	f.must("session.subscribe", map[string]any{"events": []string{"network.responseCompleted"}}, nil)
	return f
}

func (f firefox) open(url string) visit {
	f.t.Helper()
	var tab struct{ Context string }
	f.must("browsingContext.create", map[string]any{"type": "tab"}, &tab)
	defer func() { f.must("browsingContext.close", map[string]any{"context": tab.Context}, nil) }()
	// An error page is an error; a warning is an error page.
	var navigated struct{ Navigation string }
	err := f.do("browsingContext.navigate", map[string]any{"context": tab.Context, "url": url, "wait": "complete"}, &navigated)
	if err != nil {
		return visit{refused: err.Error()}
	}
	var got struct {
		Navigation string
		Response   struct {
			Status   int
			Protocol string
		}
	}
	f.event("network.responseCompleted", &got, func() bool { return got.Navigation == navigated.Navigation })
	return visit{status: got.Response.Status, protocol: got.Response.Protocol, secure: true}
}

func (f firefox) close() {
	f.t.Helper()
	f.must("browser.close", struct{}{}, nil)
	<-f.ended
}
