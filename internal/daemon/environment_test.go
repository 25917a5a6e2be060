package daemon_test

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/tunneld/tunneld/internal/demo"
	"github.com/tunneld/tunneld/internal/environ"
	"github.com/tunneld/tunneld/internal/kube"
	"github.com/tunneld/tunneld/internal/localapi"
	"github.com/tunneld/tunneld/internal/proxytest"
	"github.com/tunneld/tunneld/internal/status"
)

// bare has nothing in the environment of this process that a daemon may be given, but
// for PATH, until the test ends.
func bare(t *testing.T) {
	proxytest.None(t)
	for _, name := range []string{
		"AWS_PROFILE", "SSH_AUTH_SOCK", "DBUS_SESSION_BUS_ADDRESS", "LANG", "XDG_CONFIG_HOME",
	} {
		t.Setenv(name, "") // which has it restored
		os.Unsetenv(name)
	}
}

// newService is a daemon that runs as the service, with nothing captured, for a
// cluster that is found by a proxy only, and only with a plugin's help, which is in the
// directory bin and needs AWS_PROFILE.
func newService(t *testing.T) (h *harness, bin string) {
	t.Helper()
	bare(t)
	h = newHarness(t, kube.Timing{}, "name: tcp, target: service/task-tcp, http: none")
	h.stop()
	bin = h.path("bin")
	script := fmt.Sprintf(`#!/bin/sh
[ "$AWS_PROFILE" = dev ] || exit 1
printf '{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "%s"}}'
`, h.Token())
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bin, "get-the-token"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	err := h.WriteKubeconfig(h.kubeconfig, demo.Kubeconfig{
		Context: "demo", Server: "https://kubernetes.default.svc:6443",
		Exec: &clientcmdapi.ExecConfig{Command: "get-the-token", APIVersion: "client.authentication.k8s.io/v1", InteractiveMode: clientcmdapi.NeverExecInteractiveMode},
	})
	if err != nil {
		t.Fatal(err)
	}
	h.service = true
	h.start(t)
	return h, bin
}

func (h *harness) setEnvironment(t *testing.T, variables map[string]string) localapi.EnvironmentResponse {
	t.Helper()
	answer, err := h.SetEnvironment(t.Context(), localapi.EnvironmentRequest{Variables: variables})
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

// The service comes to its credentials, and through the proxy, by what it is given of
// a shell, at once, and after a restart, too.
func TestEnvironmentOfAShell(t *testing.T) {
	if filepath.Separator != '/' {
		t.Skip("the plugin is a shell script")
	}
	h, bin := newService(t)
	proxy := proxytest.New(t, strings.TrimPrefix(h.URL(), "https://"))
	h.awaitState(t, "tcp", status.NeedsLogin)
	if e := h.status(t).Environment; e == nil || !strings.Contains(e.Problem, "none has been captured") || !e.Captured.IsZero() || e.Hint == "" {
		t.Errorf("without one it is %+v", e)
	}
	path := bin + ":" + os.Getenv("PATH")
	answer := h.setEnvironment(t, map[string]string{
		"PATH": path, "AWS_PROFILE": "dev", "HTTPS_PROXY": proxy.URL, "AWS_SESSION_TOKEN": "hidden", "HOME": "/elsewhere", "A=B": "",
	})
	want := localapi.EnvironmentResponse{
		Set: []string{"AWS_PROFILE", "HTTPS_PROXY"}, Changed: []string{"PATH"}, Unset: []string{},
		LeftOut: []localapi.LeftOut{{Name: "AWS_SESSION_TOKEN", Reason: "looks like a secret"}},
	}
	if d := cmp.Diff(want, answer); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	h.carries(t)
	if proxy.Asked.Load() == 0 {
		t.Error("the proxy was not asked")
	}
	if e := h.status(t).Environment; e == nil || e.Problem != "" || e.Captured.IsZero() {
		t.Errorf("afterwards it is %+v", e)
	}

	h.hurry()
	h.stop()
	if got := os.Getenv("AWS_PROFILE") + os.Getenv("HTTPS_PROXY"); got != "" || os.Getenv("PATH") == path {
		t.Errorf("what was given outlives the daemon: %q, and PATH is %q", got, os.Getenv("PATH"))
	}
	h.start(t)
	h.carries(t)

	// Without the profile, credentials that it had got by it are not used any more.
	answer = h.setEnvironment(t, map[string]string{"PATH": path, "HTTPS_PROXY": proxy.URL})
	if d := cmp.Diff([]string{"AWS_PROFILE"}, answer.Unset); d != "" {
		t.Errorf("unset (-want +got):\n%s", d)
	}
	h.awaitState(t, "tcp", status.NeedsLogin)
}

// carries wants the forward to carry bytes.
func (h *harness) carries(t *testing.T) {
	t.Helper()
	f := h.awaitState(t, "tcp", status.Idle)
	if err := echo(f.Ports[0].Listen); err != nil {
		t.Fatal(err)
	}
}

// What cannot be written down is not brought into force: it would be gone after the
// next start.
func TestEnvironmentThatCannotBeKept(t *testing.T) {
	bare(t)
	h := newHarness(t, kube.Timing{})
	h.stop()
	h.service = true
	h.start(t)
	if err := os.MkdirAll(filepath.Join(environ.Path(h.path("state")), "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := h.SetEnvironment(t.Context(), localapi.EnvironmentRequest{Variables: map[string]string{"LANG": "C"}})
	if e, ok := errors.AsType[*localapi.Error](err); !ok || e.Code != http.StatusConflict || !strings.Contains(e.Message, "write down the environment") {
		t.Errorf("%v", err)
	}
	if _, there := os.LookupEnv("LANG"); there {
		t.Error("it is in force")
	}
	_, err = h.SetEnvironment(t.Context(), localapi.EnvironmentRequest{Variables: map[string]string{"HOME": "/"}})
	if e, ok := errors.AsType[*localapi.Error](err); !ok || e.Code != http.StatusBadRequest {
		t.Errorf("of nothing: %v", err)
	}
}

// A file that is of no use keeps nobody from starting, and says so until there is one.
func TestEnvironmentThatCannotBeRead(t *testing.T) {
	bare(t)
	h := newHarness(t, kube.Timing{})
	h.stop()
	h.service = true
	for _, tt := range []struct{ name, text, want string }{
		{"broken", "{", "cannot be read"},
		{"of tomorrow", `{"version": 9}`, "was written by a newer tunneld: it has version 9"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := os.WriteFile(environ.Path(h.path("state")), []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			h.start(t)
			if e := h.status(t).Environment; e == nil || !strings.Contains(e.Problem, tt.want) {
				t.Errorf("status: %+v", e)
			}
			if c := h.check(t, "environment"); c.Result != status.Warn || !strings.Contains(c.Evidence, tt.want) {
				t.Errorf("doctor: %+v", c)
			}
			h.setEnvironment(t, map[string]string{"LANG": "C"})
			if e := h.status(t).Environment; e == nil || e.Problem != "" {
				t.Errorf("after the next: %+v", e)
			}
			h.stop()
		})
	}
}

func (h *harness) check(t *testing.T, name string) status.Check {
	t.Helper()
	checks, err := h.Doctor(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(checks, func(c status.Check) bool { return c.Name == name })
	if i < 0 {
		return status.Check{}
	}
	return checks[i]
}

// The sockets of a session go with it, or are left behind by who has died.
func TestSocketsOfASession(t *testing.T) {
	if filepath.Separator != '/' {
		t.Skip("agents have pipes there")
	}
	bare(t)
	h := newHarness(t, kube.Timing{})
	h.stop()
	h.service = true
	h.start(t)
	agent := h.path("agent")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: agent, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	defer l.Close()
	h.setEnvironment(t, map[string]string{"SSH_AUTH_SOCK": agent, "DBUS_SESSION_BUS_ADDRESS": "unix:path=" + agent})
	told := func(what, problem string, c status.Check, want int) {
		t.Helper()
		if n := strings.Count(problem, agent); n != want {
			t.Errorf("%s: status says %q", what, problem)
		}
		if n := strings.Count(c.Evidence, agent); want > 0 && (n != want || c.Result != status.Warn || !strings.HasSuffix(c.Fix, "tunnelctl reload --env")) {
			t.Errorf("%s: doctor says %+v", what, c)
		}
	}
	told("alive", h.status(t).Environment.Problem, h.check(t, "environment"), 0)
	if c := h.check(t, "environment"); c.Result != status.OK || !strings.HasPrefix(c.Evidence, "2 variables of your shell, captured 20") {
		t.Errorf("alive: doctor says %+v", c)
	}
	l.Close()
	if c := h.check(t, "environment"); c.Result != status.Warn || strings.Count(c.Evidence, agent) != 2 {
		t.Errorf("dead: doctor says %+v", c)
	}
	if err := os.Remove(agent); err != nil {
		t.Fatal(err)
	}
	told("gone", h.status(t).Environment.Problem, h.check(t, "environment"), 2)
}

// Who is no service keeps what it was started with.
func TestNoServiceTakesNoEnvironment(t *testing.T) {
	h := newHarness(t, kube.Timing{})
	_, err := h.SetEnvironment(t.Context(), localapi.EnvironmentRequest{Variables: map[string]string{"LANG": "C"}})
	if e, ok := errors.AsType[*localapi.Error](err); !ok || e.Code != http.StatusConflict || !strings.Contains(e.Message, "not the installed service") {
		t.Errorf("%v", err)
	}
	if e := h.status(t).Environment; e != nil {
		t.Errorf("status: %+v", e)
	}
	if c := h.check(t, "environment"); c.Name != "" {
		t.Errorf("doctor: %+v", c)
	}
	if _, err := os.Stat(environ.Path(h.path("state"))); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it has written something: %v", err)
	}
}
