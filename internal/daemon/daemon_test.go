package daemon_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tunneld/tunneld/internal/await"
	"github.com/tunneld/tunneld/internal/daemon"
	"github.com/tunneld/tunneld/internal/kube"
	"github.com/tunneld/tunneld/internal/localapi"
	"github.com/tunneld/tunneld/internal/statedir"
	"github.com/tunneld/tunneld/internal/status"
)

// lookup asks the daemon's DNS server for a name's address.
func (h *harness) lookup(t *testing.T, name string) (rcode int, addrs []string) {
	t.Helper()
	q := new(dns.Msg)
	q.SetQuestion(dns.Fqdn(name), dns.TypeA)
	answer, _, err := new(dns.Client).Exchange(q, h.status(t).DNS.Listen)
	if err != nil {
		t.Fatal(err)
	}
	for _, rr := range answer.Answer {
		if a, ok := rr.(*dns.A); ok {
			addrs = append(addrs, a.A.String())
		}
	}
	return answer.Rcode, addrs
}

// add asks for a forward to a Service of the sample application.
func (h *harness) add(t *testing.T, target string) status.Forward {
	t.Helper()
	answer, err := h.Add(t.Context(), localapi.AddRequest{Target: target, Kubeconfig: h.kubeconfig})
	if err != nil {
		t.Fatal(err)
	}
	f, err := h.Wait(t.Context(), answer.Forward.Name, 30*time.Second)
	if err != nil || f.State != status.Ready {
		t.Fatalf("%s is %s: %s, %v", target, f.State, f.Cause, err)
	}
	return f
}

// The main job: from "add" to the browser, and out again.
func TestAddUseRemove(t *testing.T) {
	t.Parallel()
	h := newHarness(t, patient)
	f := h.add(t, "task-api")
	if n := h.Dials("task-api", "", 8000); n != 0 {
		t.Errorf("the app was dialled %d times before anybody used it", n)
	}
	wantHosts := []string{"task-api.local", "task-api.localhost", "task-api.task-api.svc.cluster.local"}
	if diff := cmp.Diff(wantHosts, f.Hostnames); diff != "" {
		t.Errorf("hostnames (-want +got):\n%s", diff)
	}
	for _, name := range append(wantHosts, "x.task-api.local") {
		if rcode, addrs := h.lookup(t, name); rcode != dns.RcodeSuccess || !slices.Equal(addrs, []string{f.Address}) {
			t.Errorf("%s resolves to %v (%s); want %s", name, addrs, dns.RcodeToString[rcode], f.Address)
		}
	}
	c := h.client(t, f)
	for _, url := range []string{f.URL, f.URLs[1], "http://" + f.Ports[0].Listen} {
		if code, body, err := get(c, url+"/health"); err != nil || code != 200 || body != `{"status": "healthy"}` {
			t.Errorf("%s: %d %s, %v", url, code, body, err)
		}
	}
	// The shared listeners pick the forward by its name.
	local := f
	local.Address = "127.0.0.1"
	alias := f.URLs[slices.IndexFunc(f.URLs, func(u string) bool { return strings.Contains(u, "https://task-api.localhost") })]
	if code, body, err := get(h.client(t, local), alias+"/health"); err != nil || code != 200 {
		t.Errorf("%s: %d %s, %v", alias, code, body, err)
	}

	other := h.add(t, "task-db")
	conn, err := net.Dial("tcp", other.Ports[0].Listen)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "a")
	io.ReadFull(conn, make([]byte, 1))

	if err := h.Client.Remove(t.Context(), "task-api"); err != nil {
		t.Fatal(err)
	}
	if rcode, _ := h.lookup(t, "task-api.local"); rcode != dns.RcodeRefused {
		t.Errorf("a removed name: %s; want REFUSED", dns.RcodeToString[rcode])
	}
	for _, p := range f.Ports {
		if c, err := net.Dial("tcp", p.Listen); err == nil {
			c.Close()
			t.Errorf("%s still listens", p.Listen)
		}
	}
	io.WriteString(conn, "b")
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		t.Errorf("the connection of another forward: %v", err)
	}
}

func TestAddWritesTheFile(t *testing.T) {
	t.Parallel()
	h := newHarness(t, patient)
	req := localapi.AddRequest{Target: "svc/task-tcp", Kubeconfig: h.kubeconfig, Name: "echo", Ports: []string{"tcp-echo", "9002"}, HTTP: "none"}
	answer, err := h.Add(t.Context(), req)
	if err != nil || !answer.Added {
		t.Fatalf("%+v, %v", answer, err)
	}
	text, err := os.ReadFile(h.path("config.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	want := "- name: echo\n  target: service/task-tcp\n  namespace: task-api\n  context: demo\n  kubeconfig: " + h.kubeconfig +
		"\n  ports: [tcp-echo, 9002]\n  http: none\n"
	if !strings.HasSuffix(string(text), want) {
		t.Errorf("the file:\n%s\nwant at its end:\n%s", text, want)
	}
	configured, err := h.Configured(t.Context())
	if err != nil || string(configured) != "forwards:\n"+want {
		t.Errorf("configured:\n%s%v", configured, err)
	}
	again, err := h.Add(t.Context(), req)
	if err != nil || again.Added {
		t.Errorf("adding it again: %+v, %v; want success, and nothing added", again.Added, err)
	}
	if now, _ := os.ReadFile(h.path("config.yaml")); string(now) != string(text) {
		t.Error("adding it again changed the file")
	}
}

func TestAddErrors(t *testing.T) {
	t.Parallel()
	h := newHarness(t, patient, "name: taken, target: task-db", "name: api, target: task-api", "name: task-tcp, target: task-tcp, ports: [9000]")
	if err := h.Apply(&corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "task-api"},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}},
	}); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name    string
		req     localapi.AddRequest
		message string
		hint    string
	}{
		{"no such Service", localapi.AddRequest{Target: "task-apu"}, "there is no service/task-apu", "did you mean task-api"},
		{"no such context", localapi.AddRequest{Target: "task-api", Context: "dem"}, `there is no context "dem"`, "did you mean demo?"},
		{"a port in the target", localapi.AddRequest{Target: "svc/task-api:8000"}, `"svc/task-api:8000" has a port in it, which is a flag of its own`, "tunnelctl add svc/task-api --port 8000"},
		{"no such kind", localapi.AddRequest{Target: "daemonset/x"}, "is not a kind that can be forwarded to", ""},
		{"a port that it has not", localapi.AddRequest{Target: "task-api", Ports: []string{"1"}}, "service/task-api has no TCP port 1", "it has 8000 (http)"},
		{"an HTTP port that it has not", localapi.AddRequest{Target: "task-api", HTTP: "web"}, "service/task-api has no TCP port web", "it has 8000 (http)"},
		{"the name is taken", localapi.AddRequest{Target: "task-api", Name: "taken"}, "the name taken is taken by service/task-db in namespace task-api", "--name taken-task-api"},
		{"the name is taken by its like elsewhere", localapi.AddRequest{Target: "task-api", Name: "api", Namespace: "shop"},
			"the name api is taken by service/task-api in namespace task-api", "tunnelctl rm api first, or give the new one another name: --name api-shop"},
		{"other settings", localapi.AddRequest{Target: "task-tcp"}, "there is a forward task-tcp to the same target, with other ports", "tunnelctl rm task-tcp first"},
		{"a name that is none", localapi.AddRequest{Target: "task-api", Name: "Task_API"}, "Task_API", ""},
		{"no kubeconfig", localapi.AddRequest{Target: "task-api", Kubeconfig: "/nonexistent/kubeconfig"}, "there is no kubeconfig at /nonexistent/kubeconfig", "KUBECONFIG"},
	}
	before, _ := os.ReadFile(h.path("config.yaml"))
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.req.Kubeconfig == "" {
				tt.req.Kubeconfig = h.kubeconfig
			}
			_, err := h.Add(t.Context(), tt.req)
			e, ok := errors.AsType[*localapi.Error](err)
			if !ok || !strings.Contains(e.Message, tt.message) || !strings.Contains(e.Hint, tt.hint) {
				t.Errorf("error %+v; want %q with hint %q", err, tt.message, tt.hint)
				if ok {
					t.Logf("hint %q", e.Hint)
				}
			}
			if ok && e.Code >= 500 {
				t.Errorf("status %d for a user's mistake", e.Code)
			}
		})
	}
	if after, _ := os.ReadFile(h.path("config.yaml")); string(after) != string(before) {
		t.Errorf("an error changed the file:\n%s", after)
	}
}

// Who gives up waiting for an answer does not get the forward afterwards.
func TestAddThatIsInterrupted(t *testing.T) {
	t.Parallel()
	h := newHarness(t, patient)
	before, _ := os.ReadFile(h.path("config.yaml"))
	undo := h.DropPackets()
	defer undo()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := h.Add(ctx, localapi.AddRequest{Target: "task-api", Kubeconfig: h.kubeconfig}); err == nil {
		t.Error("a forward was added, though the cluster has not answered")
	}
	// Meanwhile others are not kept waiting.
	if err := h.Reload(t.Context()); err != nil {
		t.Error(err)
	}
	h.stop() // waits for all requests
	if after, _ := os.ReadFile(h.path("config.yaml")); string(after) != string(before) {
		t.Errorf("the file was changed:\n%s", after)
	}
}

func TestDeniedContext(t *testing.T) {
	t.Parallel()
	h := newHarness(t, patient)
	h.configure(t, "contexts: {deny: [demo]}\naddresses: "+nextRange())
	if err := h.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	req := localapi.AddRequest{Target: "task-api", Kubeconfig: h.kubeconfig}
	_, err := h.Add(t.Context(), req)
	if e, ok := errors.AsType[*localapi.Error](err); !ok || e.Code != http.StatusForbidden || !strings.Contains(e.Hint, "--allow-production") {
		t.Errorf("error %+v; want 403 with a way out", err)
	}
	req.AllowProduction = true
	if _, err := h.Add(t.Context(), req); err != nil {
		t.Errorf("with allowProduction: %v", err)
	}
}

func TestFileThatCannotBeEdited(t *testing.T) {
	t.Parallel()
	h := newHarness(t, patient)
	req := localapi.AddRequest{Target: "task-api", Kubeconfig: h.kubeconfig}
	t.Run("read-only", func(t *testing.T) {
		if err := os.Chmod(h.path("config.yaml"), 0o400); err != nil {
			t.Fatal(err)
		}
		defer os.Chmod(h.path("config.yaml"), 0o600)
		_, err := h.Add(t.Context(), req)
		if e, ok := errors.AsType[*localapi.Error](err); !ok || !strings.Contains(e.Message, "read-only") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("with an error in it", func(t *testing.T) {
		good, _ := os.ReadFile(h.path("config.yaml"))
		h.writeConfig(t, string(good)+"  oops: 1\n")
		_, err := h.Add(t.Context(), req)
		if e, ok := errors.AsType[*localapi.Error](err); !ok || !strings.Contains(e.Message, "nothing was changed") || !strings.Contains(e.Message, "config.yaml:") {
			t.Errorf("error %v", err)
		}
		if now, _ := os.ReadFile(h.path("config.yaml")); string(now) != string(good)+"  oops: 1\n" {
			t.Error("the file was changed")
		}
	})
}

func TestRemoveErrors(t *testing.T) {
	t.Parallel()
	h := newHarness(t, patient, "name: billing, target: task-api")
	err := h.Client.Remove(t.Context(), "biling")
	e, ok := errors.AsType[*localapi.Error](err)
	if !ok || e.Code != http.StatusNotFound || e.Hint != "did you mean billing?" {
		t.Errorf("error %+v; want 404 with the nearest name", err)
	}
}

func TestConfigurationIsFollowed(t *testing.T) {
	t.Parallel()
	h := newHarness(t, patient, "name: stays, target: task-tcp")
	f := h.awaitState(t, "stays", status.Idle)
	conn, err := net.Dial("tcp", f.Ports[0].Listen)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	alive := func() {
		t.Helper()
		io.WriteString(conn, "x")
		if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
			t.Fatalf("the connection of an unchanged forward: %v", err)
		}
	}
	alive()
	good, _ := os.ReadFile(h.path("config.yaml"))
	more := string(good) + "- {context: demo, kubeconfig: " + h.kubeconfig + ", namespace: task-api, name: comes, target: task-db}\n"

	// An editor that writes beside and renames.
	if err := os.WriteFile(h.path("config.yaml~"), []byte(more), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(h.path("config.yaml~"), h.path("config.yaml")); err != nil {
		t.Fatal(err)
	}
	h.awaitState(t, "comes", status.Idle)
	alive()

	h.writeConfig(t, strings.Replace(more, "target: task-db", "tarket: task-db", 1))
	await.Until(t, "the error to show", func() bool { return h.status(t).Config.Error != "" })
	if text := h.status(t).Config.Error; !strings.Contains(text, "config.yaml:") || !strings.Contains(text, "tarket") {
		t.Errorf("the error is %q; want file, line and key", text)
	}
	if h.forward(t, "comes").Name == "" {
		t.Error("a bad save took a forward away")
	}
	if err := h.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "tarket") {
		t.Errorf("reload returns %v; want the file's error", err)
	}
	alive()

	h.writeConfig(t, string(good))
	await.Until(t, "the forward to go", func() bool {
		s := h.status(t)
		return s.Config.Error == "" && len(s.Forwards) == 1
	})
	alive()

	h.writeConfig(t, strings.Replace(string(good), "version: 1", "version: 1\ndomain: test", 1))
	await.Until(t, "the note to show", func() bool { return strings.Contains(h.status(t).Config.Restart, "domain (local is in force)") })
}

// Another start: the same addresses, the same CA, and the listeners are back
// although the cluster cannot be reached.
func TestStartsWhereItWas(t *testing.T) {
	t.Parallel()
	h := newHarness(t, patient)
	f, tcp := h.add(t, "task-api"), h.add(t, "task-tcp")
	before := h.status(t)
	h.stop()
	h.StopAPI()
	h.start(t)

	after := h.status(t)
	if after.TLS.Fingerprint != before.TLS.Fingerprint {
		t.Error("another CA")
	}
	for _, was := range []status.Forward{f, tcp} {
		is := h.forward(t, was.Name)
		if is.Address != was.Address {
			t.Errorf("%s moved from %s to %s", was.Name, was.Address, is.Address)
		}
		var listened, listens []string
		for _, p := range was.Ports {
			listened = append(listened, p.Listen)
		}
		for _, p := range is.Ports {
			listens = append(listens, p.Listen)
		}
		if diff := cmp.Diff(listened, listens); diff != "" {
			t.Errorf("%s listens elsewhere (-before +after):\n%s", was.Name, diff)
		}
	}
	h.awaitState(t, "task-tcp", status.Offline)
	waiting := make(chan error, 1)
	go func() { waiting <- echo(tcp.Ports[0].Listen) }()
	if err := h.StartAPI(); err != nil {
		t.Fatal(err)
	}
	if err := <-waiting; err != nil {
		t.Errorf("a connection that came while the cluster was away: %v", err)
	}
}

// A configuration with an error at the start costs no forward its address.
func TestStartsWithABadFile(t *testing.T) {
	t.Parallel()
	h := newHarness(t, patient, "name: one, target: task-tcp", "name: two, target: task-db")
	h.awaitState(t, "two", status.Idle)
	before := map[string]string{"one": h.forward(t, "one").Address, "two": h.forward(t, "two").Address}
	good, _ := os.ReadFile(h.path("config.yaml"))
	h.stop()
	remembered, _ := os.ReadFile(h.path("state/forwards.json"))

	h.writeConfig(t, "forwards: [\n")
	h.start(t)
	if s := h.status(t); s.Config.Error == "" || len(s.Forwards) != 0 {
		t.Errorf("status %+v; want the file's error, and no forwards", s)
	}
	if now, _ := os.ReadFile(h.path("state/forwards.json")); string(now) != string(remembered) {
		t.Errorf("what was remembered became\n%s", now)
	}
	h.writeConfig(t, string(good))
	for name, want := range before {
		f := h.awaitState(t, name, status.Idle)
		if f.Address != want {
			t.Errorf("%s moved from %s to %s", name, want, f.Address)
		}
	}
}

// What is not there, or is empty, says nothing about the forwards either.
func TestStartsWithoutTheFile(t *testing.T) {
	t.Parallel()
	h := newHarness(t, patient, "name: one, target: task-tcp")
	h.awaitState(t, "one", status.Idle)
	h.stop()
	remembered, _ := os.ReadFile(h.path("state/forwards.json"))
	if err := os.Truncate(h.path("config.yaml"), 0); err != nil {
		t.Fatal(err)
	}
	h.start(t)
	h.status(t)
	if now, _ := os.ReadFile(h.path("state/forwards.json")); string(now) != string(remembered) || len(now) == 0 {
		t.Errorf("what was remembered became\n%s", now)
	}
}

// A port goes from the forward's own listener to the gateway and back at once.
func TestPortMovesToTheGateway(t *testing.T) {
	t.Parallel()
	h := newHarness(t, patient)
	settings := "addresses: " + nextRange()
	set := func(http string) status.Port {
		t.Helper()
		text := fmt.Sprintf("version: 1\ndns: {listen: \"127.0.0.1:0\"}\ngateway: {http: 8000, https: 0}\n%s\nforwards:\n- {context: demo, kubeconfig: %s, namespace: task-api, name: web, target: task-api, http: %s}\n", settings, h.kubeconfig, http)
		h.writeConfig(t, text)
		if err := h.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		await.Until(t, "the port to be known", func() bool { return len(h.forward(t, "web").Ports) == 1 })
		return h.forward(t, "web").Ports[0]
	}
	first := set("none")
	for _, want := range []status.Port{
		{Name: "http", Port: 8000, ServedBy: "gateway", Listen: first.Listen},
		{Name: "http", Port: 8000, ServedBy: "forward", Listen: first.Listen},
	} {
		http := "8000"
		if want.ServedBy == "forward" {
			http = "none"
		}
		if diff := cmp.Diff(want, set(http)); diff != "" {
			t.Errorf("http: %s (-want +got):\n%s", http, diff)
		}
	}
}

// A configuration that cannot be watched is read every now and then, and that
// is said.
func TestUnwatchableConfiguration(t *testing.T) {
	t.Parallel()
	h := newHarness(t, patient)
	h.stop()
	if err := os.WriteFile(h.path("file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	h.config = h.path("file/config.yaml") // its directory cannot be made
	h.start(t)
	await.Until(t, "it to be said", func() bool { return strings.Contains(h.status(t).Config.Unwatched, "not at once") })
}

func TestSecondDaemon(t *testing.T) {
	t.Parallel()
	h := newHarness(t, patient)
	t.Run("on the same socket", func(t *testing.T) {
		d := &daemon.Daemon{ConfigPath: h.path("config.yaml"), StateDir: h.path("other"), Socket: h.Socket}
		if err := d.Run(t.Context()); !errors.Is(err, localapi.ErrRunning) {
			t.Errorf("%v; want ErrRunning", err)
		}
	})
	t.Run("on the same state", func(t *testing.T) {
		d := &daemon.Daemon{ConfigPath: h.path("config.yaml"), StateDir: h.path("state"), Socket: h.path("other.sock")}
		if err := d.Run(t.Context()); !errors.Is(err, statedir.ErrInUse) {
			t.Errorf("%v; want ErrInUse", err)
		}
	})
	if _, err := h.Status(t.Context()); err != nil {
		t.Errorf("the first one: %v", err)
	}
}

func TestWaitTellsTheStateAtItsEnd(t *testing.T) {
	t.Parallel()
	h := newHarness(t, patient, "name: empty, target: task-empty", "name: missing, target: missing")
	for name, want := range map[string]status.State{"empty": status.NoEndpoints, "missing": status.NotFound} {
		h.awaitState(t, name, want)
		f, err := h.Wait(t.Context(), name, time.Millisecond)
		if err != nil || f.State != want {
			t.Errorf("%s: %s, %v; want %s", name, f.State, err, want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.Client.Wait(ctx, "empty", time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("a wait that nobody wants any more: %v", err)
	}
}

func TestPageForAServiceWithoutPods(t *testing.T) {
	t.Parallel()
	h := newHarness(t, patient)
	h.configure(t, "hold: 10ms\naddresses: "+nextRange(), "name: empty, target: task-empty")
	h.Reload(t.Context())
	f := h.awaitState(t, "empty", status.NoEndpoints)
	code, body, err := get(h.client(t, f), f.URL)
	if err != nil || code != http.StatusServiceUnavailable || !strings.Contains(body, "no-endpoints") || !strings.Contains(body, "no pod is selected by service/task-empty") {
		t.Errorf("%d %v: %s", code, err, body)
	}
	if f := h.forward(t, "empty"); f.Connections.Failed != 1 || !strings.Contains(f.LastError, "no pod is selected") {
		t.Errorf("counts %+v, last error %q", f.Connections, f.LastError)
	}
}

// What declares no port has to be told which one is meant.
func TestPodWithoutDeclaredPorts(t *testing.T) {
	t.Parallel()
	h := newHarness(t, patient)
	bare := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "task-api", Name: "bare"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app"}}},
	}
	if err := h.Apply(bare); err != nil {
		t.Fatal(err)
	}
	h.configure(t, "addresses: "+nextRange(), "name: bare, target: pod/bare")
	h.Reload(t.Context())
	f := h.awaitState(t, "bare", status.NotFound)
	if f.Cause != "pod/bare declares no TCP port" || !strings.Contains(f.Hint, "ports: [NUMBER]") || len(f.Ports) != 0 {
		t.Errorf("cause %q, hint %q, ports %+v", f.Cause, f.Hint, f.Ports)
	}
	code, body, err := get(h.client(t, f), f.URL)
	if err != nil || code != http.StatusServiceUnavailable || !strings.Contains(body, "declares no TCP port") {
		t.Errorf("%d %v: %s", code, err, body)
	}
}

func TestLogsTellWhatHappened(t *testing.T) {
	t.Parallel()
	h := newHarness(t, patient)
	f := h.add(t, "task-api")
	if _, _, err := get(h.client(t, f), f.URL+"/health?token=secret"); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for rec, err := range h.Logs(t.Context(), "task-api", 0, false) {
		if err != nil {
			t.Fatal(err)
		}
		if rec.Forward != "task-api" {
			t.Errorf("a record of %q", rec.Forward)
		}
		line := rec.Msg
		for _, a := range rec.Attrs {
			line += " " + a[0] + "=" + a[1]
		}
		lines = append(lines, line)
	}
	all := strings.Join(lines, "\n")
	for _, want := range []string{"state state=ready", "request method=GET", "path=/health", "status=200", "pod=task-api-"} {
		if !strings.Contains(all, want) {
			t.Errorf("no %q in:\n%s", want, all)
		}
	}
	if strings.Contains(all, "secret") {
		t.Error("the query is logged")
	}
}

// A port with tls: true is served with a certificate for the forward's names.
func TestTLSOnARawPort(t *testing.T) {
	t.Parallel()
	h := newHarness(t, patient, "name: web, target: task-api, ports: [{port: 8000, tls: true}]")
	f := h.awaitState(t, "web", status.Idle)
	port := netip.MustParseAddrPort(f.Ports[0].Listen).Port()
	code, body, err := get(h.client(t, f), "https://"+net.JoinHostPort("web.local", "8000")+"/health")
	if err != nil || code != 200 || port != 8000 {
		t.Errorf("%d %s, %v on port %d", code, body, err, port)
	}
	if f.URL != "" {
		t.Errorf("the gateway leads to a port that speaks TLS: %s", f.URL)
	}
}

// What is not used is not read: nothing is asked of a cluster without forwards.
func TestNothingConfigured(t *testing.T) {
	t.Parallel()
	h := newHarness(t, kube.Timing{})
	if s := h.status(t); len(s.Forwards) != 0 || len(s.Clusters) != 0 || s.DNS.Listen == "" || s.TLS.Fingerprint == "" {
		t.Errorf("status %+v", s)
	}
	if n := len(h.Requests()); n != 0 {
		t.Errorf("%d requests to a cluster that nobody named", n)
	}
	if _, err := os.Stat(filepath.Join(h.path("state"), "forwards.json")); err == nil {
		t.Error("something is remembered, of nothing")
	}
}
