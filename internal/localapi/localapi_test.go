package localapi_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/tunneld/tunneld/internal/localapi"
	"github.com/tunneld/tunneld/internal/status"
)

func TestMain(m *testing.M) {
	if path := os.Getenv("LOCALAPI_TEST_SOCKET"); path != "" {
		// A child of TestOtherUser, as that user.
		_, err := (&localapi.Client{Socket: path}).Version(context.Background())
		fmt.Print(err)
		return
	}
	goleak.VerifyTestMain(m)
}

// dir is short, unlike t.TempDir's: a socket's address has little room.
func dir(t *testing.T) string {
	t.Helper()
	d, err := os.MkdirTemp("", "api")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(d) })
	return d
}

// serve runs a server whose functions are those given, and returns its socket.
func serve(t *testing.T, s *localapi.Server) string {
	t.Helper()
	path := filepath.Join(dir(t), "sock")
	l, err := localapi.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return path
}

func TestRoundTrips(t *testing.T) {
	report := status.Status{Version: "1", Forwards: []status.Forward{{Name: "a"}}}
	var asked []string
	c := &localapi.Client{Socket: serve(t, &localapi.Server{
		Version: status.Version{Version: "v1"},
		Status:  func() status.Status { return report },
		Add: func(_ context.Context, r localapi.AddRequest) (localapi.AddResponse, error) {
			asked = append(asked, fmt.Sprintf("add %s %s %v", r.Target, r.Kubeconfig, r.Ports))
			return localapi.AddResponse{Added: true, Forward: report.Forwards[0], Note: "n"}, nil
		},
		Remove: func(_ context.Context, name string) error {
			asked = append(asked, "remove "+name)
			return nil
		},
		Wait: func(ctx context.Context, name string) (status.Forward, error) {
			left, bounded := ctx.Deadline()
			asked = append(asked, fmt.Sprintf("wait %s %v", name, bounded && time.Until(left) <= time.Minute))
			return report.Forwards[0], nil
		},
		Reload: func(context.Context) error { asked = append(asked, "reload"); return nil },
		SetEnvironment: func(_ context.Context, r localapi.EnvironmentRequest) (localapi.EnvironmentResponse, error) {
			asked = append(asked, "environment "+r.Variables["LANG"])
			return localapi.EnvironmentResponse{Set: []string{"LANG"}, LeftOut: []localapi.LeftOut{{Name: "X", Reason: "r"}}}, nil
		},
		Configured: func() ([]byte, error) { return []byte("forwards: []\n"), nil },
		RootPEM:    func() ([]byte, error) { return []byte("PEM"), nil },
		RenewCA:    func(context.Context) error { asked = append(asked, "renew"); return nil },
		CheckLeaf: func(_ context.Context, key localapi.Key) ([]byte, error) {
			asked = append(asked, "certify "+key.PublicKey)
			return []byte("LEAF"), nil
		},
		Logs: func(_ context.Context, forward string, n int, follow bool) iter.Seq[status.LogRecord] {
			return func(yield func(status.LogRecord) bool) {
				yield(status.LogRecord{Msg: fmt.Sprintf("logs %s %d %v", forward, n, follow)})
			}
		},
	})}
	ctx := t.Context()
	if got, err := c.Status(ctx); err != nil || len(got.Forwards) != 1 {
		t.Errorf("status: %+v, %v", got, err)
	}
	if got, err := c.Version(ctx); err != nil || got.Version != "v1" {
		t.Errorf("version: %+v, %v", got, err)
	}
	if got, err := c.Add(ctx, localapi.AddRequest{Target: "x", Kubeconfig: "/k", Ports: []string{"http"}}); err != nil || !got.Added || got.Note != "n" {
		t.Errorf("add: %+v, %v", got, err)
	}
	if err := c.Remove(ctx, "a b"); err != nil {
		t.Error(err)
	}
	if _, err := c.Wait(ctx, "a", time.Minute); err != nil {
		t.Error(err)
	}
	if err := c.Reload(ctx); err != nil {
		t.Error(err)
	}
	if got, err := c.SetEnvironment(ctx, localapi.EnvironmentRequest{Variables: map[string]string{"LANG": "C"}}); err != nil || len(got.Set) != 1 || got.LeftOut[0].Reason != "r" {
		t.Errorf("environment: %+v, %v", got, err)
	}
	if got, err := c.Configured(ctx); err != nil || string(got) != "forwards: []\n" {
		t.Errorf("configured: %q, %v", got, err)
	}
	if got, err := c.RootPEM(ctx); err != nil || string(got) != "PEM" {
		t.Errorf("root: %q, %v", got, err)
	}
	if err := c.RenewCA(ctx); err != nil {
		t.Error(err)
	}
	if got, err := c.CheckLeaf(ctx, localapi.Key{PublicKey: "KEY"}); err != nil || string(got) != "LEAF" {
		t.Errorf("certified: %q, %v", got, err)
	}
	for rec, err := range c.Logs(ctx, "a", 7, true) {
		asked = append(asked, rec.Msg)
		if err != nil {
			t.Error(err)
		}
	}
	want := []string{"add x /k [http]", "remove a b", "wait a true", "reload", "environment C", "renew", "certify KEY", "logs a 7 true"}
	if diff := cmp.Diff(want, asked); diff != "" {
		t.Errorf("what the server was asked (-want +got):\n%s", diff)
	}
}

func TestErrorsCrossTheSocket(t *testing.T) {
	var fault error
	c := &localapi.Client{Socket: serve(t, &localapi.Server{
		Remove: func(context.Context, string) error { return fault },
	})}
	tests := []struct {
		name  string
		fault error
		want  localapi.Error
	}{
		{"with a hint", &localapi.Error{Code: 404, Message: "no such forward", Hint: "tunnelctl ls"}, localapi.Error{Code: 404, Message: "no such forward", Hint: "tunnelctl ls"}},
		{"a user's mistake", &localapi.Error{Message: "bad"}, localapi.Error{Code: 400, Message: "bad"}},
		{"wrapped", fmt.Errorf("while removing: %w", &localapi.Error{Code: 409, Message: "busy"}), localapi.Error{Code: 409, Message: "busy"}},
		{"anything else", errors.New("disk full"), localapi.Error{Code: 500, Message: "disk full"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			fault = tt.fault
			err := c.Remove(t.Context(), "a")
			got, ok := errors.AsType[*localapi.Error](err)
			if !ok {
				t.Fatalf("error %v", err)
			}
			if diff := cmp.Diff(tt.want, *got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// What a web page could have caused is refused before it is looked at.
func TestWebPagesAreRefused(t *testing.T) {
	path := serve(t, &localapi.Server{Status: func() status.Status { return status.Status{} }})
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", path) },
	}}
	tests := []struct {
		name string
		set  func(*http.Request)
		want int
	}{
		{"our own client", func(*http.Request) {}, 200},
		{"a foreign Host", func(r *http.Request) { r.Host = "localhost" }, 403},
		{"a rebound name", func(r *http.Request) { r.Host = "evil.example:80" }, 403},
		{"an Origin", func(r *http.Request) { r.Header.Set("Origin", "http://tunneld") }, 403},
		{"a Referer", func(r *http.Request) { r.Header.Set("Referer", "http://tunneld/") }, 403},
		{"an environment that is none", func(r *http.Request) {
			r.Method, r.URL.Path, r.Body = http.MethodPut, "/v0/environment", io.NopCloser(strings.NewReader(`{"variables": ["LANG"]}`))
		}, 400},
		{"GET where POST is due", func(r *http.Request) { r.URL.Path = "/v0/reload" }, 405},
		{"a new CA by GET", func(r *http.Request) { r.URL.Path = "/v0/ca/renew" }, 405},
		{"a certificate by GET", func(r *http.Request) { r.URL.Path = "/v0/ca/check-leaf" }, 405},
		{"a new CA for a web page", func(r *http.Request) {
			r.Method, r.URL.Path = "POST", "/v0/ca/renew"
			r.Header.Set("Origin", "http://tunneld")
		}, 403},
		{"a certificate for nothing", func(r *http.Request) { r.Method, r.URL.Path = "POST", "/v0/ca/check-leaf" }, 400},
		{"no such path", func(r *http.Request) { r.URL.Path = "/v1/status" }, 404},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			req, _ := http.NewRequest("GET", "http://tunneld/v0/status", nil)
			tt.set(req)
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != tt.want {
				t.Errorf("%s; want %d", resp.Status, tt.want)
			}
		})
	}
}

func TestNoHost(t *testing.T) {
	path := serve(t, &localapi.Server{})
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET /v0/status HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var got localapi.Error
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil {
		t.Fatal(err)
	}
	want := localapi.Error{Message: "the request names no host", Hint: "send the header Host: tunneld"}
	if diff := cmp.Diff(want, got); diff != "" || resp.StatusCode != http.StatusForbidden {
		t.Errorf("%s, body (-want +got):\n%s", resp.Status, diff)
	}
}

func TestUnknownFieldsAreRefused(t *testing.T) {
	path := serve(t, &localapi.Server{})
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", path) },
	}}
	resp, err := client.Post("http://tunneld/v0/forwards", "application/json", strings.NewReader(`{"targt": "x"}`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); resp.StatusCode != 400 || !strings.Contains(string(body), "targt") {
		t.Errorf("%s: %s", resp.Status, body)
	}
}

func TestLargeRequestsAreRefused(t *testing.T) {
	c := &localapi.Client{Socket: serve(t, &localapi.Server{
		Add: func(context.Context, localapi.AddRequest) (localapi.AddResponse, error) {
			return localapi.AddResponse{}, nil
		},
	})}
	_, err := c.Add(t.Context(), localapi.AddRequest{Target: strings.Repeat("x", 2<<20)})
	if e, ok := errors.AsType[*localapi.Error](err); !ok || e.Code != 400 || !strings.Contains(e.Message, "too large") {
		t.Errorf("2 MiB: %v; want it refused", err)
	}
}

// What cannot be a forward's name is not taken for a path.
func TestNamesThatAreNone(t *testing.T) {
	c := &localapi.Client{Socket: serve(t, &localapi.Server{})}
	for _, name := range []string{"", ".", "..", "a/b", "../forwards"} {
		if e, ok := errors.AsType[*localapi.Error](c.Remove(t.Context(), name)); !ok || e.Code != 404 || e.Hint == "" {
			t.Errorf("remove %q: %v; want 404", name, e)
		}
	}
}

// A daemon that ends while it is asked is not running, whatever the transport
// says; one that is being stopped says so.
func TestDaemonThatEnds(t *testing.T) {
	t.Run("without an answer", func(t *testing.T) {
		path := filepath.Join(dir(t), "sock")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			if c, err := l.Accept(); err == nil {
				c.Read(make([]byte, 1))
				c.Close()
			}
		}()
		if _, err := (&localapi.Client{Socket: path}).Status(t.Context()); !errors.Is(err, localapi.ErrNotRunning) {
			t.Errorf("status: %v; want ErrNotRunning", err)
		}
	})
	t.Run("during a wait", func(t *testing.T) {
		path := filepath.Join(dir(t), "sock")
		l, err := localapi.Listen(path)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		s := &localapi.Server{Wait: func(ctx context.Context, _ string) (status.Forward, error) {
			cancel()
			<-ctx.Done()
			return status.Forward{Name: "a"}, nil
		}}
		ended := make(chan error, 1)
		go func() { ended <- s.Serve(ctx, l) }()
		_, err = (&localapi.Client{Socket: path}).Wait(t.Context(), "a", time.Minute)
		if e, ok := errors.AsType[*localapi.Error](err); !ok || e.Code != 503 {
			t.Errorf("wait: %v; want to be told that it stops", err)
		}
		if err := <-ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
}

func TestFollowingEndsWithTheServer(t *testing.T) {
	path := filepath.Join(dir(t), "sock")
	l, err := localapi.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	s := &localapi.Server{Logs: func(ctx context.Context, _ string, _ int, _ bool) iter.Seq[status.LogRecord] {
		return func(yield func(status.LogRecord) bool) {
			yield(status.LogRecord{Msg: "first"})
			<-ctx.Done()
		}
	}}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, l) }()
	var got []string
	for rec := range (&localapi.Client{Socket: path}).Logs(t.Context(), "", 0, true) {
		got = append(got, rec.Msg)
		cancel()
	}
	if err := <-ended; err != nil || !cmp.Equal(got, []string{"first"}) {
		t.Errorf("records %q, Serve %v", got, err)
	}
}

func TestListen(t *testing.T) {
	t.Run("private", func(t *testing.T) {
		path := filepath.Join(dir(t), "new", "sock")
		l, err := localapi.Listen(path)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		for p, want := range map[string]fs.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
			if info, err := os.Stat(p); err != nil || info.Mode().Perm() != want {
				t.Errorf("%s has mode %v, %v; want %v", p, info.Mode().Perm(), err, want)
			}
		}
	})
	t.Run("one at a time", func(t *testing.T) {
		path := filepath.Join(dir(t), "sock")
		l, err := localapi.Listen(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := localapi.Listen(path); !errors.Is(err, localapi.ErrRunning) {
			t.Errorf("a second one: %v; want ErrRunning", err)
		}
		l.Close()
		again, err := localapi.Listen(path)
		if err != nil {
			t.Fatalf("after the first has gone: %v", err)
		}
		again.Close()
		if _, err := os.Stat(path); err == nil {
			t.Error("the socket is left behind")
		}
	})
	t.Run("a socket that a dead daemon left", func(t *testing.T) {
		path := filepath.Join(dir(t), "sock")
		dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
		if err != nil {
			t.Fatal(err)
		}
		dead.SetUnlinkOnClose(false)
		dead.Close()
		l, err := localapi.Listen(path)
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
	})
	t.Run("a file that is no socket", func(t *testing.T) {
		path := filepath.Join(dir(t), "sock")
		os.WriteFile(path, []byte("precious"), 0o600)
		if l, err := localapi.Listen(path); err == nil {
			l.Close()
			t.Error("it was replaced")
		}
		if text, _ := os.ReadFile(path); string(text) != "precious" {
			t.Errorf("it holds %q", text)
		}
	})
	t.Run("a directory that others may write", func(t *testing.T) {
		if runtime.GOOS == "windows" {
			t.Skip("modes mean nothing there")
		}
		d := dir(t)
		os.Chmod(d, 0o777)
		if l, err := localapi.Listen(filepath.Join(d, "sock")); err == nil {
			l.Close()
			t.Error("it was accepted")
		}
		os.Chmod(d, 0o777|fs.ModeSticky) // as /tmp is
		l, err := localapi.Listen(filepath.Join(d, "sock"))
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
	})
}

func TestCandidates(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", "/xdg")
	t.Setenv("TUNNELD_SOCKET", "")
	if runtime.GOOS == "linux" {
		want := []string{"/xdg/tunneld/tunneld.sock", fmt.Sprintf("/run/tunneld/%d/tunneld.sock", os.Geteuid())}
		if diff := cmp.Diff(want, localapi.Candidates("")); diff != "" {
			t.Errorf("the usual places (-want +got):\n%s", diff)
		}
	}
	t.Setenv("TUNNELD_SOCKET", "/env")
	if diff := cmp.Diff([]string{"/env"}, localapi.Candidates("")); diff != "" {
		t.Errorf("from the environment (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"/flag"}, localapi.Candidates("/flag")); diff != "" {
		t.Errorf("from a flag (-want +got):\n%s", diff)
	}
}

func TestNotRunning(t *testing.T) {
	_, err := (&localapi.Client{Socket: filepath.Join(dir(t), "sock")}).Status(t.Context())
	if !errors.Is(err, localapi.ErrNotRunning) {
		t.Errorf("%v; want ErrNotRunning", err)
	}
}
