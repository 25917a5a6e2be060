package kube_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/tunneld/tunneld/internal/await"
	"github.com/tunneld/tunneld/internal/demo"
	"github.com/tunneld/tunneld/internal/forward"
	"github.com/tunneld/tunneld/internal/kube"
	"github.com/tunneld/tunneld/internal/status"
)

// soon fails the test if f does not return.
func soon(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatalf("%s does not end", what)
	}
}

// serve listens for a target, as the daemon does.
func (h *harness) serve(t *testing.T, target forward.Target) (s *forward.Set, addr string) {
	t.Helper()
	s = &forward.Set{Backends: h.Clusters, Meters: new(forward.Meters)}
	t.Cleanup(func() { s.Close() })
	s.Apply([]forward.Spec{{Name: "f", Listen: netip.MustParseAddrPort("127.0.0.1:0"), Hold: 30 * time.Second, Target: target}})
	return s, s.Bindings()[0].Addr.String()
}

// odd runs an app with a handler of the test's own on port 7000.
func (h *harness) odd(t *testing.T, handler func(net.Conn)) forward.Target {
	t.Helper()
	err := h.Run(demo.App{
		Namespace: "task-api", Name: "odd", Replicas: 1, Ports: []demo.AppPort{{Name: "x", Port: 7000}},
		Handlers: map[uint16]func(net.Conn){7000: handler},
	})
	if err != nil {
		t.Fatal(err)
	}
	target := h.use("odd", 7000)
	h.await(t, target.Workload, status.Idle)
	return target
}

// A namespace goes out of use while things happen in it.
func TestNamespacesComeAndGo(t *testing.T) {
	t.Parallel()
	h := newHarness(t, demo.Options{})
	service := func(namespace string, i int) *corev1.Service {
		return &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "busy", Annotations: map[string]string{"n": fmt.Sprint(i)}},
			Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}},
		}
	}
	stop := make(chan struct{})
	var busy sync.WaitGroup
	busy.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				h.Apply(service("task-api", i), service("shop", i))
			}
		}
	})
	a, b := h.workload(forward.Service, "task-tcp"), h.workload(forward.Service, "busy")
	b.Namespace = "shop"
	soon(t, "the change of namespaces", func() {
		for i := range 50 {
			w := []forward.Workload{a, b}[i%2]
			h.Use([]forward.Workload{w})
			await.Until(t, "the namespace to be read", func() bool { return h.Report(w).State != status.Connecting })
		}
	})
	close(stop)
	busy.Wait()
}

// Nobody waits for a client that does not read.
func TestUseDoesNotWaitForAClient(t *testing.T) {
	t.Parallel()
	h := newHarness(t, demo.Options{})
	target := h.use("task-tcp", 9001)
	_, c := h.open(t, target)
	fmt.Fprintln(c, 100<<20)
	blocked, writing := make(chan struct{}), make(chan struct{})
	var copying sync.WaitGroup
	copying.Go(func() {
		io.Copy(writerFunc(func([]byte) (int, error) {
			close(writing)
			<-blocked
			return 0, io.ErrClosedPipe
		}), c)
	})
	<-writing
	soon(t, "Use", func() { h.Use(nil) })
	close(blocked)
	copying.Wait()
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// The app ends its side while the client still sends, as web servers do that
// refuse an upload.
func TestEarlyEndDuringUpload(t *testing.T) {
	t.Parallel()
	h := newHarness(t, demo.Options{Linger: 10 * time.Millisecond})
	over := make(chan struct{})
	target := h.odd(t, func(c net.Conn) {
		io.ReadFull(c, make([]byte, 10))
		io.WriteString(c, "413 too large\n")
		c.(interface{ CloseWrite() error }).CloseWrite()
		<-over // without reading what comes
	})
	defer close(over)
	s, addr := h.serve(t, target)
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var sending sync.WaitGroup
	sending.Go(func() {
		for block, err := make([]byte, 1<<20), error(nil); err == nil; {
			_, err = c.Write(block)
		}
	})
	if answer, _ := io.ReadAll(c); string(answer) != "413 too large\n" {
		t.Errorf("the client read %q", answer)
	}
	soon(t, "the client's sending", sending.Wait)
	await.Until(t, "the connection to end", func() bool { return s.Meters.Of("f").Counts().Active == 0 })
	soon(t, "Close", func() { s.Close() })
}

// The context is gone for a moment, while the API server is away, as when a
// local cluster is made anew.
func TestContextThatComesBack(t *testing.T) {
	t.Parallel()
	h := newHarness(t, demo.Options{})
	target := h.use("task-tcp", 9000)
	_, c := h.open(t, target)
	echo(t, c)
	h.StopAPI()
	h.await(t, target.Workload, status.Offline)
	if err := h.WriteKubeconfig(h.kubeconfig, demo.Kubeconfig{Context: "other"}); err != nil {
		t.Fatal(err)
	}
	h.await(t, target.Workload, status.NotFound)
	h.writeKubeconfig(t)
	if err := h.StartAPI(); err != nil {
		t.Fatal(err)
	}
	h.await(t, target.Workload, status.Ready) // it was in use, and that is not forgotten
	_, c = h.open(t, target)
	echo(t, c)
}

// A Pick that waits moves to the cluster that takes the place of its own.
func TestPickMovesToTheNewCluster(t *testing.T) {
	t.Parallel()
	h, anew := newHarness(t, demo.Options{}), newHarness(t, demo.Options{})
	target := h.use("task-tcp", 9000)
	h.await(t, target.Workload, status.Idle)
	h.StopAPI()
	h.await(t, target.Workload, status.Offline)
	picked := make(chan error, 1)
	go func() {
		_, err := h.Pick(t.Context(), target)
		picked <- err
	}()
	if err := anew.WriteKubeconfig(h.kubeconfig, demo.Kubeconfig{Context: "demo", Namespace: "task-api"}); err != nil {
		t.Fatal(err)
	}
	soon(t, "the Pick", func() {
		if err := <-picked; err != nil {
			t.Errorf("pick: %v", err)
		}
	})
}

// A noticing context tells when somebody waits for its end.
type noticing struct {
	context.Context
	noticed func()
}

func (c noticing) Done() <-chan struct{} {
	c.noticed()
	return c.Context.Done()
}

// A Pick for what is not forwarded any more ends.
func TestPickEndsWithTheForward(t *testing.T) {
	t.Parallel()
	h := newHarness(t, demo.Options{})
	target := h.use("task-empty", 80)
	h.await(t, target.Workload, status.NoEndpoints)
	picked, waiting := make(chan error, 1), make(chan struct{})
	ctx := noticing{t.Context(), sync.OnceFunc(func() { close(waiting) })}
	go func() {
		_, err := h.Pick(ctx, target)
		picked <- err
	}()
	<-waiting
	h.use("task-tcp", 9000) // in the same cluster
	soon(t, "the Pick", func() {
		if err := <-picked; !errors.Is(err, forward.ErrUnavailable) {
			t.Errorf("pick: %v; want ErrUnavailable", err)
		}
	})
}

// What has nothing to do with the connection cuts no connection.
func TestReloadKeepsConnections(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		change func(h *harness) error
	}{
		{"nothing new", func(*harness) error { return nil }},
		{"another namespace for the context", func(h *harness) error {
			return h.WriteKubeconfig(h.kubeconfig, demo.Kubeconfig{Context: "demo", Namespace: "elsewhere"})
		}},
		{"a note of another program", func(h *harness) error {
			text, err := os.ReadFile(h.kubeconfig)
			if err != nil {
				return err
			}
			noted := strings.Replace(string(text), "- cluster:\n", "- cluster:\n    extensions: [{name: note, extension: {at: now}}]\n", 1)
			return os.WriteFile(h.kubeconfig, []byte(noted), 0o600)
		}},
		{"half of the file", func(h *harness) error {
			text, err := os.ReadFile(h.kubeconfig)
			if err != nil {
				return err
			}
			return os.WriteFile(h.kubeconfig, text[:len(text)/3], 0o600)
		}},
		{"no text", func(h *harness) error { return os.Truncate(h.kubeconfig, 0) }},
		{"no file", func(h *harness) error { return os.Remove(h.kubeconfig) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, demo.Options{})
			target := h.use("task-tcp", 9000)
			_, c := h.open(t, target)
			echo(t, c)
			if err := tt.change(h); err != nil {
				t.Fatal(err)
			}
			h.Reload()
			echo(t, c)
			h.await(t, target.Workload, status.Ready)
		})
	}
}

// The state of a forward that was used lately is known after a reload, too.
func TestReloadRemembersUse(t *testing.T) {
	t.Parallel()
	h := newHarness(t, demo.Options{})
	target := h.use("task-tcp", 9000)
	_, c := h.open(t, target)
	echo(t, c)
	c.Close()
	if err := h.WriteKubeconfig(h.kubeconfig, demo.Kubeconfig{Context: "demo", Token: h.IssueToken(demo.DefaultUser)}); err != nil {
		t.Fatal(err)
	}
	h.Reload()
	h.await(t, target.Workload, status.Ready) // proven, although nobody asks for it
}

// A Service whose target port is a name that no container has.
func TestPortThatLeadsNowhere(t *testing.T) {
	t.Parallel()
	h := newHarness(t, demo.Options{})
	err := h.Apply(&corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "task-api", Name: "typo"},
		Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": "task-api"},
			Ports:    []corev1.ServicePort{{Name: "web", Port: 80, TargetPort: intstr.FromString("htpp")}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	target := h.use("typo", 80)
	const cause = `port 80 (web) of service/typo leads to a port named "htpp", which none of its pods has`
	r := h.await(t, target.Workload, status.NoEndpoints)
	if r.Cause != cause || r.Hint == "" || r.Ready != 0 || r.Nowhere[80].Cause != cause {
		t.Errorf("report %+v; want the port's name", r)
	}
	if err := h.Probe(t.Context(), target.Workload); err == nil {
		t.Error("a probe succeeds, though no connection could get through")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err = h.Pick(ctx, target)
	if e, ok := errors.AsType[*forward.Error](err); !ok || e.Cause != cause || e.State != status.NoEndpoints {
		t.Errorf("pick: %v; want the port's name", err)
	}
}

// An app that answers, and then resets a connection, is no fault.
func TestResetAfterAnAnswerIsNoFault(t *testing.T) {
	t.Parallel()
	h := newHarness(t, demo.Options{})
	target := h.odd(t, func(c net.Conn) {
		io.ReadFull(c, make([]byte, 5))
		io.WriteString(c, "fine!")
		io.ReadFull(c, make([]byte, 1))
		c.Close() // with bytes unread: the kernel sends RST
	})
	_, c := h.open(t, target)
	io.WriteString(c, "hello")
	if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	io.WriteString(c, "xyz")
	if _, err := io.Copy(io.Discard, c); !errors.Is(err, forward.ErrInterrupted) {
		t.Errorf("read: %v; want ErrInterrupted", err)
	}
	c.Close()
	h.await(t, target.Workload, status.Ready)
}

// A 403 for an upgrade is forgotten when upgrades are allowed again, though a
// connection lives that needed none.
func TestForbiddenUpgradeIsTriedAgain(t *testing.T) {
	t.Parallel()
	h := newHarness(t, demo.Options{})
	target := h.use("task-tcp", 9000)
	_, c := h.open(t, target)
	echo(t, c)
	undo := h.Forbid(demo.Rule{Verb: "*", Resource: "pods", Subresource: "portforward"})
	await.Until(t, "a refusal", func() bool {
		e, err := h.Pick(t.Context(), target)
		if err != nil {
			return true
		}
		another, err := h.Dial(t.Context(), e)
		if err == nil {
			t.Cleanup(func() { another.Close() })
		}
		return err != nil
	})
	h.await(t, target.Workload, status.Forbidden)
	undo()
	h.await(t, target.Workload, status.Ready)
}

// A role that may list and not watch: forbidden, and steadily so.
func TestForbiddenToWatch(t *testing.T) {
	t.Parallel()
	for _, old := range []bool{false, true} {
		h := newHarness(t, demo.Options{OldServer: old})
		undo := h.Forbid(demo.Rule{Verb: "watch", Resource: "endpointslices"})
		target := h.use("task-tcp", 9000)
		r := h.await(t, target.Workload, status.Forbidden)
		if !strings.Contains(r.Cause, "cannot watch") {
			t.Errorf("cause %q; want the verb", r.Cause)
		}
		lists := func() (n int) {
			for _, r := range h.Requests() {
				if r.Verb == "list" && r.Resource == "endpointslices" {
					n++
				}
			}
			return n
		}
		before := lists()
		await.Until(t, "it to be tried again", func() bool {
			if got := h.Report(target.Workload).State; got != status.Forbidden {
				t.Fatalf("%s in between; want forbidden", got)
			}
			return lists() >= before+3
		})
		undo()
		h.await(t, target.Workload, status.Idle)
	}
}

// A credential plugin is not run more often because connections are tried.
func TestConnectionsDoNotHurryDeniedCredentials(t *testing.T) {
	t.Parallel()
	h := newHarness(t, demo.Options{})
	h.Timing.RetryDenied = time.Hour
	dir := t.TempDir()
	script, log := filepath.Join(dir, "plugin"), filepath.Join(dir, "log")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho run >>"+log+"\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	h.writePlugin(t, script)
	w := h.workload(forward.Service, "task-tcp")
	h.Use([]forward.Workload{w})
	runs := func() int { text, _ := os.ReadFile(log); return bytes.Count(text, []byte("\n")) }
	if _, err := h.Pick(t.Context(), forward.Target{Workload: w, Port: 9000}); !errors.Is(err, forward.ErrUnavailable) {
		t.Fatalf("pick: %v; want ErrUnavailable", err)
	}
	before := runs()
	var trying sync.WaitGroup
	end := time.Now().Add(10 * h.Timing.RetryInUse)
	for range 8 {
		trying.Go(func() {
			for time.Now().Before(end) {
				h.Pick(t.Context(), forward.Target{Workload: w, Port: 9000})
			}
		})
	}
	trying.Wait()
	// A reflector that was stopped may still have one list each under way.
	if n := runs() - before; n > 2 {
		t.Errorf("the plugin was run %d times more for many connections", n)
	}
}

func (h *harness) writePlugin(t *testing.T, command string) {
	t.Helper()
	err := h.WriteKubeconfig(h.kubeconfig, demo.Kubeconfig{Context: "demo", Exec: &clientcmdapi.ExecConfig{
		Command: command, APIVersion: "client.authentication.k8s.io/v1", InteractiveMode: clientcmdapi.NeverExecInteractiveMode,
	}})
	if err != nil {
		t.Fatal(err)
	}
}

// A plugin that waits for a person keeps nobody else waiting.
func TestPluginThatWaits(t *testing.T) {
	t.Parallel()
	h := newHarness(t, demo.Options{})
	h.Timing.Answer = 1500 * time.Millisecond
	dir := t.TempDir()
	script := filepath.Join(dir, "plugin") // it waits until its directory is gone
	if err := os.WriteFile(script, []byte("#!/bin/sh\nwhile [ -e "+script+" ]; do sleep 0.02; done\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	h.writePlugin(t, script)
	w := h.workload(forward.Service, "task-tcp")
	h.Use([]forward.Workload{w})
	r := h.await(t, w, status.NeedsLogin)
	if !strings.Contains(r.Cause, "its credential plugin has not finished") {
		t.Errorf("cause %q", r.Cause)
	}
	h.writeKubeconfig(t)
	soon(t, "Reload", h.Reload)
	h.await(t, w, status.Idle)
	h.writePlugin(t, script)
	soon(t, "Reload", h.Reload)
	soon(t, "Use", func() { h.Use(nil) })
}

// What client-go cannot make a client of is told, and looked at again only
// every now and then.
func TestContextThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	h := newHarness(t, demo.Options{})
	good, err := os.ReadFile(h.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	bad := strings.Replace(string(good), "certificate-authority-data:", "certificate-authority-data: bm8gY2VydGlmaWNhdGU= #", 1)
	if err := os.WriteFile(h.kubeconfig, []byte(bad), 0o600); err != nil {
		t.Fatal(err)
	}
	var changes atomic.Int32
	h.Clusters.Changed = func() { changes.Add(1) }
	w := h.workload(forward.Service, "task-tcp")
	h.Use([]forward.Workload{w})
	if r := h.await(t, w, status.Failed); !strings.Contains(r.Cause, "context demo cannot be used: ") || r.Hint == "" {
		t.Errorf("cause %q, hint %q", r.Cause, r.Hint)
	}
	began := time.Now()
	await.Until(t, "it to have been looked at again", func() bool { return time.Since(began) > 10*h.Timing.RetryInUse })
	if n := changes.Load(); n > 5 {
		t.Errorf("%d changes of what does not change", n)
	}
	if err := os.WriteFile(h.kubeconfig, good, 0o600); err != nil {
		t.Fatal(err)
	}
	h.await(t, w, status.Idle)
}

// A Pick waits for a context that is gone for a moment, and is told in the end.
func TestPickWaitsForTheContext(t *testing.T) {
	t.Parallel()
	h := newHarness(t, demo.Options{})
	h.Timing.RetryInUse = time.Second // the file may be seen half written
	if err := h.WriteKubeconfig(h.kubeconfig, demo.Kubeconfig{Context: "other"}); err != nil {
		t.Fatal(err)
	}
	target := h.use("task-tcp", 9000)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err := h.Pick(ctx, target)
	if e, ok := errors.AsType[*forward.Error](err); !ok || e.State != status.NotFound || e.Hint == "" {
		t.Errorf("pick: %v; want not-found with a hint", err)
	}
	picked := make(chan error, 1)
	go func() {
		_, err := h.Pick(t.Context(), target)
		picked <- err
	}()
	h.writeKubeconfig(t)
	soon(t, "the Pick", func() {
		if err := <-picked; err != nil {
			t.Errorf("pick: %v", err)
		}
	})
}

// Two contexts of one API server do not share connections.
func TestClientsHaveTheirOwnConnections(t *testing.T) {
	t.Parallel()
	h := newHarness(t, demo.Options{})
	a := h.workload(forward.Service, "task-tcp")
	b := a
	b.Context = "demo2"
	config := h.Kubeconfig(demo.Kubeconfig{Context: "demo", Namespace: "task-api"})
	config.Contexts["demo2"] = config.Contexts["demo"]
	if err := clientcmd.WriteToFile(*config, h.kubeconfig); err != nil {
		t.Fatal(err)
	}
	h.Use([]forward.Workload{a})
	h.await(t, a, status.Idle)
	// Requests that are made at once may dial one each, of which one is kept.
	await.Until(t, "one connection for one cluster", func() bool { return h.Connections() == 1 })
	h.Use([]forward.Workload{a, b})
	h.await(t, b, status.Idle)
	await.Until(t, "two connections for two clusters", func() bool { return h.Connections() == 2 })
}

// A token that a plugin can renew costs no connection, even if it is an
// upgrade that finds out.
func TestPluginRenewsTheToken(t *testing.T) {
	t.Parallel()
	h := newHarness(t, demo.Options{})
	dir := t.TempDir()
	script, token := filepath.Join(dir, "plugin"), filepath.Join(dir, "token")
	write := func(path, text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	write(token, h.Token(), 0o600)
	write(script, `#!/bin/sh
printf '{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "%s"}}' "$(cat `+token+`)"
`, 0o755)
	h.writePlugin(t, script)
	target := h.use("task-tcp", 9000)
	h.await(t, target.Workload, status.Idle)
	h.ExpireTokens()
	write(token, h.IssueToken(demo.DefaultUser), 0o600)
	s, addr := h.serve(t, target)
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	echo(t, c)
	if counts := s.Meters.Of("f").Counts(); counts.Failed != 0 {
		t.Errorf("counts %+v; want no failure", counts)
	}
}

// A pod that leaves the endpoints, and comes back, is as good as before.
func TestPodThatComesBackIsNotRetiring(t *testing.T) {
	t.Parallel()
	h := newHarness(t, demo.Options{})
	name := h.Pods("task-api", "task-api")[0]
	port, portName := int32(9000), ""
	slice := func() *discoveryv1.EndpointSlice {
		pod, err := getPod(h.RESTConfig(), "task-api", name)
		if err != nil {
			t.Fatal(err)
		}
		return &discoveryv1.EndpointSlice{
			ObjectMeta:  metav1.ObjectMeta{Namespace: "task-api", Name: "manual-1", Labels: map[string]string{discoveryv1.LabelServiceName: "manual"}},
			AddressType: discoveryv1.AddressTypeIPv4,
			Ports:       []discoveryv1.EndpointPort{{Name: &portName, Port: &port}},
			Endpoints: []discoveryv1.Endpoint{{
				Addresses: []string{pod.Status.PodIP},
				TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: "task-api", Name: name, UID: pod.UID},
			}},
		}
	}
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "task-api", Name: "manual"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}
	if err := h.Apply(service, slice()); err != nil {
		t.Fatal(err)
	}
	target := h.use("manual", 80)
	_, before := h.open(t, target)
	echo(t, before)
	if err := h.Delete(slice()); err != nil {
		t.Fatal(err)
	}
	<-before.Retiring()
	if err := h.Apply(slice()); err != nil {
		t.Fatal(err)
	}
	await.Until(t, "a connection that is not retiring", func() bool {
		_, c := h.open(t, target)
		defer c.Close()
		echo(t, c)
		select {
		case <-c.Retiring():
			return false
		default:
			return true
		}
	})
	echo(t, before)
}

// A pod that is going away and refuses has not got the connection: another one
// may.
func TestRefusedByAPodThatGoesAway(t *testing.T) {
	t.Parallel()
	h := newHarness(t, demo.Options{})
	target := h.use("task-tcp", 9000)
	e, c := h.open(t, target)
	echo(t, c)
	if err := h.DeletePod("task-api", e.Pod, time.Minute); err != nil {
		t.Fatal(err)
	}
	<-c.Retiring()
	undo, err := h.RefusePort("task-api", e.Pod, 9000)
	if err != nil {
		t.Fatal(err)
	}
	defer undo()
	late, err := h.Dial(t.Context(), e) // as if it had been picked just before
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	if _, err := late.Read(make([]byte, 1)); !errors.Is(err, forward.ErrNotDelivered) {
		t.Errorf("read: %v; want ErrNotDelivered", err)
	}
	if r := h.Report(target.Workload); r.State != status.Ready {
		t.Errorf("%s: %s; want ready", r.State, r.Cause)
	}
}

// The API server knows before the watch tells that a pod is going away.
func TestRefusedBeforeTheWatchTells(t *testing.T) {
	t.Parallel()
	h := newHarness(t, demo.Options{})
	target := h.use("task-tcp", 9000)
	e, c := h.open(t, target)
	echo(t, c)
	for _, verb := range []string{"list", "watch"} {
		defer h.Forbid(demo.Rule{Verb: verb, Resource: "*"})()
	}
	h.CutWatches()
	if err := h.DeletePod("task-api", e.Pod, time.Minute); err != nil {
		t.Fatal(err)
	}
	undo, err := h.RefusePort("task-api", e.Pod, 9000)
	if err != nil {
		t.Fatal(err)
	}
	defer undo()
	late, err := h.Dial(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	if _, err := late.Read(make([]byte, 1)); !errors.Is(err, forward.ErrNotDelivered) {
		t.Errorf("read: %v; want ErrNotDelivered", err)
	}
}

// A stale Backends picks what was picked once, for the first time.
type stale struct {
	*kube.Clusters
	old    forward.Endpoint
	picked atomic.Int32
}

func (s *stale) Pick(ctx context.Context, t forward.Target) (forward.Endpoint, error) {
	if s.picked.Add(1) == 1 {
		return s.old, nil
	}
	return s.Clusters.Pick(ctx, t)
}

// What a pod that is going away did not get is sent to another, and what a pod
// that stays refuses is not.
func TestReplayOnAnotherPod(t *testing.T) {
	t.Parallel()
	for _, going := range []bool{true, false} {
		t.Run(fmt.Sprintf("going away %v", going), func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, demo.Options{})
			target := h.use("task-tcp", 9000)
			e, c := h.open(t, target)
			echo(t, c)
			undo, err := h.RefusePort("task-api", e.Pod, 9000)
			if err != nil {
				t.Fatal(err)
			}
			defer undo()
			if going {
				if err := h.DeletePod("task-api", e.Pod, time.Minute); err != nil {
					t.Fatal(err)
				}
			}
			b := &stale{Clusters: h.Clusters, old: e}
			s := &forward.Set{Backends: b, Meters: new(forward.Meters)}
			t.Cleanup(func() { s.Close() })
			s.Apply([]forward.Spec{{Name: "f", Listen: netip.MustParseAddrPort("127.0.0.1:0"), Hold: 30 * time.Second, Target: target}})
			client, err := net.Dial("tcp", s.Bindings()[0].Addr.String())
			if err == nil {
				defer client.Close()
				io.WriteString(client, "hello")
				_, err = io.ReadFull(client, make([]byte, 5))
			}
			if going && err != nil || !going && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the client sees %v", err)
			}
			if n := b.picked.Load(); going && n < 2 || !going && n != 1 {
				t.Errorf("%d picks", n)
			}
			echo(t, c) // nobody else is hurt
		})
	}
}

// A link that is cut costs a request only if the app may have seen it.
func TestLinkCutUnderAConnection(t *testing.T) {
	t.Parallel()
	h := newHarness(t, demo.Options{})
	seen := make(chan struct{}, 10)
	target := h.odd(t, func(c net.Conn) {
		if _, err := io.ReadFull(c, make([]byte, 5)); err == nil {
			seen <- struct{}{}
			io.Copy(io.Discard, c) // and never answers
		}
	})
	s, addr := h.serve(t, target)
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "hello")
	<-seen
	h.KillUpgrades("", "")
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client sees %v; want a reset", err)
	}
	await.Until(t, "the connection to end", func() bool { return s.Meters.Of("f").Counts().Active == 0 })
	select {
	case <-seen:
		t.Error("the app saw it twice")
	default:
	}
}

// With all pods terminating, those that still serve are used.
func TestTerminatingPodIsBetterThanNone(t *testing.T) {
	t.Parallel()
	h := newHarness(t, demo.Options{})
	name := h.Pods("task-api", "task-api")[0]
	w := h.workload(forward.Pod, name)
	h.Use([]forward.Workload{w})
	h.await(t, w, status.Idle)
	if err := h.DeletePod("task-api", name, time.Minute); err != nil {
		t.Fatal(err)
	}
	await.Until(t, "the pod not to be ready", func() bool { return h.Report(w).Ready == 0 })
	e, c := h.open(t, forward.Target{Workload: w, Port: 9000})
	echo(t, c)
	if e.Pod != name {
		t.Errorf("went to %s", e.Pod)
	}
}

// An API server that is slow is not taken for one that is away.
func TestSlowAPIServer(t *testing.T) {
	t.Parallel()
	h := newHarness(t, demo.Options{})
	h.Timing = kube.Timing{
		Watch: 20 * time.Millisecond, Quiet: 20 * time.Millisecond, Answer: 50 * time.Millisecond,
		Retry: 10 * time.Millisecond, RetryInUse: 20 * time.Millisecond, RetryIdle: 20 * time.Millisecond,
	}
	h.Delay(200 * time.Millisecond)
	target := h.use("task-tcp", 9000)
	_, c := h.open(t, target)
	echo(t, c)
	h.await(t, target.Workload, status.Ready)
}
