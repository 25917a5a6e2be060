//go:build unix

package rootapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tunneld/tunneld/internal/await"
	"github.com/tunneld/tunneld/internal/osdns"
)

// A fakeLadder does what a test says.
type fakeLadder struct {
	claim   func(context.Context, osdns.Claim, []string) (osdns.Outcome, error)
	release func(context.Context, string) error
}

func (f fakeLadder) Claim(ctx context.Context, c osdns.Claim, skip []string) (osdns.Outcome, error) {
	return f.claim(ctx, c, skip)
}

func (f fakeLadder) Release(ctx context.Context, owner string) error { return f.release(ctx, owner) }

// untouched is for tests in which nothing must be changed.
func untouched(t testing.TB) Ladder {
	return fakeLadder{
		claim: func(_ context.Context, c osdns.Claim, _ []string) (osdns.Outcome, error) {
			t.Errorf("claimed: %v", c)
			return osdns.Outcome{}, nil
		},
		release: func(context.Context, string) error {
			t.Error("released")
			return nil
		},
	}
}

// dir is one whose path is short enough for sockets.
func dir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "helper")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func listener(t testing.TB) *net.UnixListener {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir(t), "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// serve runs a server whose user is the one who runs the test. It ends with the
// test, and must have no error then.
func serve(t testing.TB, s *Server) (socket string) {
	t.Helper()
	if s.Policy == nil {
		s.Policy = policy(t)
		s.Policy.UID = uint32(os.Geteuid())
	}
	if s.LockDir == "" {
		s.LockDir = dir(t)
	}
	l := listener(t)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return l.Addr().String()
}

var here = netip.MustParseAddrPort("127.0.0.1:15353")

func TestClaimAndRelease(t *testing.T) {
	var mu sync.Mutex // guards the following
	var claims []osdns.Claim
	var released []string
	outcome := osdns.Outcome{Rung: "hosts", Why: "a test", Passed: []osdns.Passed{{Rung: "resolved", Why: "is not there"}}}
	var failure error
	c := &Client{Socket: serve(t, &Server{Ladder: fakeLadder{
		claim: func(_ context.Context, c osdns.Claim, skip []string) (osdns.Outcome, error) {
			if diff := cmp.Diff([]string{"dnsmasq"}, skip); diff != "" {
				t.Error(diff)
			}
			mu.Lock()
			defer mu.Unlock()
			claims = append(claims, c)
			return outcome, failure
		},
		release: func(_ context.Context, owner string) error {
			mu.Lock()
			defer mu.Unlock()
			released = append(released, owner)
			return failure
		},
	}})}
	want := []osdns.Name{
		{Name: "task-api.local", Addrs: addrs("127.77.0.1", "::1"), Wildcard: true},
		{Name: "task-api.task-api.svc.cluster.local", Addrs: addrs("127.77.0.1")},
	}
	same := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
	got, err := c.Claim(t.Context(), here, want, []string{"dnsmasq"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(outcome, got); diff != "" {
		t.Error(diff)
	}
	me := strconv.Itoa(os.Geteuid())
	mu.Lock()
	if claims[0].Owner != me || claims[0].Server != here || cmp.Diff(want, claims[0].Names, same) != "" {
		t.Errorf("claimed: %v", claims[0])
	}
	mu.Unlock()
	err = c.Release(t.Context())
	mu.Lock()
	if err != nil || released[0] != me {
		t.Errorf("released %v: %v", released, err)
	}

	// What fails says so, with the system's error and what was passed.
	failure = &os.PathError{Op: "rename", Path: "/etc/hosts", Err: syscall.EROFS}
	outcome.Rung = ""
	mu.Unlock()
	got, err = c.Claim(t.Context(), here, want, []string{"dnsmasq"})
	if !errors.Is(err, syscall.EROFS) || errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "/etc/hosts") {
		t.Errorf("claim: %v", err)
	}
	if diff := cmp.Diff(outcome, got); diff != "" {
		t.Error(diff)
	}
	if err := c.Release(t.Context()); !errors.Is(err, syscall.EROFS) {
		t.Errorf("release: %v", err)
	}
}

func TestRefused(t *testing.T) {
	var log bytes.Buffer
	c := &Client{Socket: serve(t, &Server{Ladder: untouched(t), Log: slog.New(slog.NewTextHandler(&log, nil))})}
	list := names(3)
	list[1].Name, list[2].Name = "example.com", "evil\n127.0.0.1 example.org"
	_, err := c.Claim(t.Context(), here, list, nil)
	refusal, ok := errors.AsType[*Refusal](err)
	if !ok || !errors.Is(err, ErrRefused) {
		t.Fatalf("%v; want a Refusal", err)
	}
	if diff := cmp.Diff([]string{list[1].Name, list[2].Name}, refusal.Names); diff != "" {
		t.Error(diff)
	}
	if want := `refused by tunneld-helper: the name "example.com" is below none of the domains local, localhost, svc.cluster.local`; err.Error() != want {
		t.Errorf("%v; want %s", err, want)
	}
	if l, err := c.Listen(t.Context(), netip.MustParseAddrPort("127.0.0.1:22")); !errors.Is(err, ErrRefused) {
		t.Errorf("%v, %v", l, err)
	}
	if err := c.AddAddress(t.Context(), netip.MustParseAddr("10.0.0.1")); !errors.Is(err, ErrRefused) {
		t.Error(err)
	}
}

// A policy that cannot be read lets nobody do anything, and everybody know.
func TestUnusable(t *testing.T) {
	c := &Client{Socket: serve(t, &Server{Ladder: untouched(t), Unusable: errors.New("the policy is broken")})}
	if err := c.Release(t.Context()); err == nil || errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "the policy is broken") {
		t.Error(err)
	}
}

func TestNotInstalled(t *testing.T) {
	c := &Client{Socket: filepath.Join(dir(t), "none")}
	if err := c.Release(t.Context()); !errors.Is(err, ErrNotInstalled) {
		t.Errorf("no socket: %v", err)
	}
	l := listener(t)
	l.SetUnlinkOnClose(false)
	l.Close()
	c.Socket = l.Addr().String()
	if _, err := c.Claim(t.Context(), here, names(1), nil); !errors.Is(err, ErrNotInstalled) {
		t.Errorf("a socket on which nobody listens: %v", err)
	}
}

// A helper that does not answer holds nobody longer than they want, and one that
// ends is an error.
func TestSilentHelper(t *testing.T) {
	l := listener(t)
	defer l.Close()
	c := &Client{Socket: l.Addr().String()}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Release(ctx) }()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(conn); err != nil { // its request has ended
		t.Fatal(err)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("%v; want Canceled", err)
	}
	conn.Close()

	go func() { ended <- c.Release(t.Context()) }()
	if conn, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	io.WriteString(conn, `{"err`)
	conn.Close()
	if err := <-ended; err == nil || errors.Is(err, ErrNotInstalled) {
		t.Errorf("half an answer: %v", err)
	}
}

// raw sends what it is given, and returns the answer.
func raw(t *testing.T, socket string, data []byte) response {
	t.Helper()
	c := dialRaw(t, socket)
	defer c.Close()
	c.Write(data)
	c.CloseWrite()
	return answerOf(t, c)
}

func dialRaw(t *testing.T, socket string) *net.UnixConn {
	t.Helper()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func answerOf(t *testing.T, c *net.UnixConn) response {
	t.Helper()
	resp, passed, err := receive(c)
	if err != nil {
		t.Fatal(err)
	}
	if passed != nil {
		passed.Close()
		t.Error("a descriptor came along")
	}
	return resp
}

// Whatever a client does, it gets nothing done, and the next one is served.
func TestBadClients(t *testing.T) {
	var released atomic.Int32
	ladder := untouched(t).(fakeLadder)
	ladder.release = func(context.Context, string) error { released.Add(1); return nil }
	socket := serve(t, &Server{Ladder: ladder})
	refused := func(data, says string) func(*testing.T) {
		return func(t *testing.T) {
			if got := raw(t, socket, []byte(data)); !got.Refused || !strings.Contains(got.Error, says) {
				t.Errorf("%+v; want a refusal with %q", got, says)
			}
		}
	}
	tests := []struct {
		name string
		do   func(t *testing.T)
	}{
		{"says nothing", refused("", "it is empty")},
		{"speaks something else", refused("GET / HTTP/1.1\r\n\r\n", "cannot be read")},
		{"ends in the middle", refused(`{"verb":"rel`, "unexpected EOF")},
		{"says more", refused(`{"verb":"release"}{"verb":"release"}`, "something behind")},
		{"says more that is no JSON", refused(`{"verb":"release"} ;`, "something behind")},
		{"has a field of its own", refused(`{"verb":"release","owner":"0"}`, "unknown field")},
		{"has another type", refused(`{"verb":["release"]}`, "cannot be read")},
		{"has nothing", refused(`null`, "there is no verb")},
		{"has an address that is none", refused(`{"verb":"address","address":"localhost"}`, "cannot be read")},
		{"nests", refused(strings.Repeat("[", 1<<20), "cannot be read")},
		{"sends too much", refused(`{"verb":"release"}`+strings.Repeat(" ", maxRequest), "longer than")},
		{"never ends", func(t *testing.T) {
			c := dialRaw(t, socket)
			defer c.Close()
			for spaces := bytes.Repeat([]byte(" "), 1<<16); ; {
				if _, err := c.Write(spaces); err != nil {
					break // the server has had enough
				}
			}
			if got := answerOf(t, c); !got.Refused {
				t.Errorf("%+v; want a refusal", got)
			}
		}},
		{"does not end", func(t *testing.T) {
			c := dialRaw(t, serve(t, &Server{Ladder: untouched(t), read: 50 * time.Millisecond}))
			defer c.Close()
			io.WriteString(c, `{"verb":"release"}`)
			if rest, _ := io.ReadAll(c); len(rest) > 0 {
				t.Errorf("%q; want an end without an answer", rest)
			}
		}},
		{"goes at once", func(t *testing.T) { dialRaw(t, socket).Close() }},
		{"goes without its answer", func(t *testing.T) {
			c := dialRaw(t, socket)
			io.WriteString(c, `{"verb":"claim"}`)
			c.Close()
		}},
		{"sends a descriptor", func(t *testing.T) {
			c := dialRaw(t, socket)
			defer c.Close()
			c.WriteMsgUnix([]byte(`{"verb":"relea`), syscall.UnixRights(0), nil)
			c.CloseWrite()
			if got := answerOf(t, c); !got.Refused {
				t.Errorf("%+v; want a refusal", got)
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.do(t)
			before := released.Load()
			if err := (&Client{Socket: socket}).Release(t.Context()); err != nil {
				t.Errorf("the next client: %v", err)
			}
			if got := released.Load() - before; got != 1 {
				t.Errorf("%d releases; want the next client's", got)
			}
		})
	}
}

// More slow clients than are served at a time hold up nobody for longer than
// their time is.
func TestManySlowClients(t *testing.T) {
	ladder := untouched(t).(fakeLadder)
	ladder.release = func(context.Context, string) error { return nil }
	socket := serve(t, &Server{Ladder: ladder, read: 100 * time.Millisecond})
	for range 2 * maxConns {
		c := dialRaw(t, socket)
		defer c.Close()
		io.WriteString(c, "{")
	}
	// On a busy machine a good one may be too slow for such a short time, too.
	await.Until(t, "a good client to be served", func() bool {
		return (&Client{Socket: socket}).Release(t.Context()) == nil
	})
}

// The system is changed by one at a time: of one server, and of two.
func TestOneAtATime(t *testing.T) {
	locks := dir(t)
	var active, total atomic.Int32
	enter := func() {
		if active.Add(1) != 1 {
			t.Error("two at a time")
		}
		for range 100 {
			syscall.Getpid() // long enough to meet somebody
		}
		total.Add(1)
		active.Add(-1)
	}
	ladder := fakeLadder{
		claim: func(context.Context, osdns.Claim, []string) (osdns.Outcome, error) {
			enter()
			return osdns.Outcome{}, nil
		},
		release: func(context.Context, string) error { enter(); return nil },
	}
	one := &Client{Socket: serve(t, &Server{Ladder: ladder, LockDir: locks})}
	other := &Server{Ladder: ladder, LockDir: locks, Policy: policy(t)}
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			if _, err := one.Claim(t.Context(), here, names(1), nil); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			if err := one.Release(t.Context()); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			if err := other.Release(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if total.Load() != 15 {
		t.Errorf("%d changes; want 15", total.Load())
	}
}

// What another user has is refused as what the rules do not allow.
func TestTakenNames(t *testing.T) {
	c := &Client{Socket: serve(t, &Server{Ladder: fakeLadder{
		claim: func(context.Context, osdns.Claim, []string) (osdns.Outcome, error) {
			return osdns.Outcome{}, &osdns.TakenError{Names: []string{"n1.local", "n2.local"}}
		},
	}})}
	_, err := c.Claim(t.Context(), here, names(3), nil)
	refusal, ok := errors.AsType[*Refusal](err)
	if !ok {
		t.Fatalf("%v; want a refusal", err)
	}
	if diff := cmp.Diff([]string{"n1.local", "n2.local"}, refusal.Names); diff != "" {
		t.Errorf("refused (-want +got):\n%s", diff)
	}
	if want := "2 of the names are another user's, such as n1.local"; refusal.Reason != want {
		t.Errorf("because %q; want %q", refusal.Reason, want)
	}
}

func TestLockHonoursItsContext(t *testing.T) {
	locks := filepath.Join(dir(t), "made")
	unlock, err := lock(t.Context(), locks)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := lock(ctx, locks); !errors.Is(err, context.Canceled) {
		t.Errorf("%v; want Canceled", err)
	}
	unlock()
	unlock, err = lock(t.Context(), locks)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
	if left, err := os.ReadDir(locks); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v; want the lock's file", left, err)
	}
}

// Serve returns when nobody asks, and not while somebody is served.
func TestIdle(t *testing.T) {
	s := &Server{Policy: policy(t), LockDir: dir(t), Idle: 10 * time.Millisecond}
	s.Policy.UID = uint32(os.Geteuid())
	l := listener(t)
	socket := l.Addr().String()
	s.Ladder = fakeLadder{release: func(context.Context, string) error {
		select {
		case <-time.After(20 * s.Idle): // slow
		case <-t.Context().Done():
		}
		c, err := net.Dial("unix", socket)
		if err != nil {
			t.Errorf("it listens no more while a client is served: %v", err)
			return nil
		}
		return c.Close()
	}}
	c := dialRaw(t, socket) // before it may have waited in vain
	defer c.Close()
	io.WriteString(c, `{"verb":"release"}`)
	c.CloseWrite()
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(t.Context(), l) }()
	if got := answerOf(t, c); got.Error != "" {
		t.Error(got.Error)
	}
	if err := <-ended; err != nil {
		t.Errorf("idle: %v", err)
	}
}

// The end comes at once for whoever has not asked yet, and not before an answer
// that is owed.
func TestStop(t *testing.T) {
	s := &Server{Policy: policy(t), LockDir: dir(t), read: time.Hour}
	s.Policy.UID = uint32(os.Geteuid())
	working, stopped := make(chan struct{}), make(chan struct{})
	s.Ladder = fakeLadder{release: func(ctx context.Context, _ string) error {
		close(working)
		<-stopped
		return ctx.Err()
	}}
	l := listener(t)
	slow := dialRaw(t, l.Addr().String())
	defer slow.Close()
	io.WriteString(slow, `{"verb"`)
	ctx, cancel := context.WithCancel(t.Context())
	ended, answered := make(chan error, 1), make(chan error, 1)
	go func() { ended <- s.Serve(ctx, l) }()
	go func() { answered <- (&Client{Socket: l.Addr().String()}).Release(t.Context()) }()
	<-working
	cancel()
	if rest, _ := io.ReadAll(slow); len(rest) > 0 {
		t.Errorf("the slow one: %q", rest)
	}
	await.Until(t, "the end of listening", func() bool {
		c, err := net.Dial("unix", l.Addr().String())
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	select {
	case err := <-ended:
		t.Fatalf("Serve ended with an answer owed: %v", err)
	case <-time.After(10 * time.Millisecond): // what does not wait has ended by then
	}
	close(stopped)
	if err := <-answered; err != nil {
		t.Errorf("what had begun: %v", err)
	}
	if err := <-ended; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

// FuzzRequest: nothing panics, and nothing is done that the policy does not allow.
func FuzzRequest(f *testing.F) {
	seed := func(r *request) {
		data, err := json.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	list := names(3)
	list[1].Wildcard, list[2].Name = true, "task-api.task-api.svc.cluster.local"
	seed(&request{Verb: verbClaim, Server: here, Names: list, Skip: []string{"hosts"}})
	seed(&request{Verb: verbRelease})
	seed(&request{Verb: verbListen, Listen: netip.MustParseAddrPort("127.77.0.1:80")})
	seed(&request{Verb: verbListen, Listen: netip.MustParseAddrPort("[::1]:443")})
	seed(&request{Verb: verbAddress, Address: netip.MustParseAddr("127.77.0.1")})
	f.Add([]byte(`{"verb":"claim","server":"127.0.0.1:53","names":[{"name":"a\nb.local","addrs":["127.0.0.1"]}]}`))
	f.Add([]byte(`{"verb":"claim","server":"[::ffff:127.0.0.1]:53","names":[{"name":"cluster.local","addrs":["::1%lo"]}]}`))
	f.Add([]byte(`{"verb":"listen","listen":"0.0.0.0:80"}`))

	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		s := &Server{Policy: policy(t), LockDir: dir, Ladder: fakeLadder{
			claim: func(_ context.Context, c osdns.Claim, skip []string) (osdns.Outcome, error) {
				mustBeAllowed(t, c, skip)
				return osdns.Outcome{}, nil
			},
			release: func(_ context.Context, owner string) error {
				if owner != "1000" {
					t.Errorf("released for %q", owner)
				}
				return nil
			},
		}}
		s.listen = func(_ context.Context, at netip.AddrPort) (net.Listener, error) {
			addr, port := at.Addr().String(), at.Port()
			shared := (addr == "127.0.0.1" || addr == "::1") && (port == 80 || port == 443)
			if !shared && !strings.HasPrefix(addr, "127.77.") || port < 1 || port > 1023 {
				t.Errorf("listens on %v", at)
			}
			return nil, errors.New("not really")
		}
		for _, uid := range []uint32{1000, 0} {
			resp, l := s.answer(t.Context(), uid, data)
			if l != nil || resp.Refused && resp.Error == "" {
				t.Errorf("%+v, %v", resp, l)
			}
		}
		if resp, l := s.answer(t.Context(), 1001, data); !resp.Refused || l != nil {
			t.Errorf("for somebody else: %+v, %v", resp, l)
		}
	})
}

// mustBeAllowed is what the policy says, in other words than the policy's.
func mustBeAllowed(t *testing.T, c osdns.Claim, skip []string) {
	t.Helper()
	clean := func(s string) bool {
		return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-.") == ""
	}
	if c.Owner != "1000" || !c.Server.Addr().Unmap().IsLoopback() || strings.ContainsAny(c.Server.String(), "%f") || len(c.Names) > 4096 {
		t.Errorf("claimed: %v", c)
	}
	for _, rung := range skip {
		if !clean(rung) {
			t.Errorf("skips %q", rung)
		}
	}
	for _, n := range c.Names {
		labels := strings.Split(n.Name, ".")
		count, last := len(labels), labels[len(labels)-1]
		ok := clean(n.Name) && len(n.Name) <= 253 && count >= 2 && (last == "local" || last == "localhost")
		if last == "local" && labels[max(0, count-2)] == "cluster" {
			ok = ok && count >= 5 && labels[count-3] == "svc"
		}
		for _, l := range labels {
			ok = ok && l != "" && len(l) < 64
		}
		for _, a := range n.Addrs {
			ok = ok && (a.String() == "127.0.0.1" || a.String() == "::1" || strings.HasPrefix(a.String(), "127.77."))
		}
		if !ok || len(n.Addrs) == 0 {
			t.Errorf("claimed %q for %v", n.Name, n.Addrs)
		}
	}
}
