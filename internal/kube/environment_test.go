package kube_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/tunneld/tunneld/internal/await"
	"github.com/tunneld/tunneld/internal/demo"
	"github.com/tunneld/tunneld/internal/proxytest"
	"github.com/tunneld/tunneld/internal/status"
)

// unresolvable is a name that the API server's certificate has, and that leads
// nowhere but by a proxy.
const unresolvable = "https://kubernetes.default.svc:6443"

// Whatever speaks to the API server follows the proxy of the environment, also when
// that becomes another one; what is open by the former one stays.
func TestProxyOfTheEnvironment(t *testing.T) {
	proxytest.None(t)
	h := newHarness(t, demo.Options{})
	api := strings.TrimPrefix(h.URL(), "https://")
	if err := h.WriteKubeconfig(h.kubeconfig, demo.Kubeconfig{Context: "demo", Namespace: "task-api", Server: unresolvable}); err != nil {
		t.Fatal(err)
	}
	target := h.use("task-tcp", 9000)
	h.await(t, target.Workload, status.Offline)

	first, second := proxytest.New(t, api), proxytest.New(t, api)
	t.Setenv("HTTPS_PROXY", first.URL)
	h.Reload()
	h.await(t, target.Workload, status.Idle)
	before := first.Asked.Load()
	_, c := h.open(t, target)
	echo(t, c)
	if n := first.Asked.Load(); n <= before {
		t.Errorf("upgrades did not go by the proxy: %d connections before, %d after", before, n)
	}

	t.Setenv("HTTPS_PROXY", second.URL)
	h.Reload()
	await.Until(t, "watches to go by the second proxy", func() bool { return second.Asked.Load() > 0 && h.Report(target.Workload).Whole })
	used := first.Asked.Load()
	_, late := h.open(t, target)
	echo(t, late)
	echo(t, c)
	if n := first.Asked.Load(); n != used {
		t.Errorf("the first proxy was asked %d times more", n-used)
	}
}

// The kubeconfig's own proxy counts more than the environment's.
func TestProxyOfTheKubeconfig(t *testing.T) {
	proxytest.None(t)
	h := newHarness(t, demo.Options{})
	mine, other := proxytest.New(t, strings.TrimPrefix(h.URL(), "https://")), proxytest.New(t, "127.0.0.1:1")
	t.Setenv("HTTPS_PROXY", other.URL)
	if err := h.WriteKubeconfig(h.kubeconfig, demo.Kubeconfig{Context: "demo", Namespace: "task-api", Server: unresolvable}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(h.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	with := strings.Replace(string(text), "server: "+unresolvable, "server: "+unresolvable+"\n    proxy-url: "+mine.URL, 1)
	if err := os.WriteFile(h.kubeconfig, []byte(with), 0o600); err != nil {
		t.Fatal(err)
	}
	h.await(t, h.use("task-tcp", 9000).Workload, status.Idle)
	if n := other.Asked.Load(); n != 0 {
		t.Errorf("the environment's proxy was asked %d times", n)
	}
}

// A plugin is found by the PATH of now and sees the environment of now, also where
// client-go still has credentials that it had got in the former one; and nobody else
// notices.
func TestPluginSeesTheEnvironment(t *testing.T) {
	h := newHarness(t, demo.Options{})
	bin := filepath.Join(t.TempDir(), "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(bin, "log")
	script := `#!/bin/sh
echo "$PROFILE" >>` + log + `
[ -n "$PROFILE" ] || exit 1
printf '{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "` + h.Token() + `"}}'
`
	if err := os.WriteFile(filepath.Join(bin, "get-the-token"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	err := h.WriteKubeconfig(h.kubeconfig, demo.Kubeconfig{Context: "demo", Exec: &clientcmdapi.ExecConfig{
		Command: "get-the-token", APIVersion: "client.authentication.k8s.io/v1", InteractiveMode: clientcmdapi.NeverExecInteractiveMode,
		Env: []clientcmdapi.ExecEnvVar{{Name: "OF_THE_KUBECONFIG", Value: "1"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	target := h.use("task-tcp", 9000)
	r := h.await(t, target.Workload, status.NeedsLogin)
	if !strings.Contains(r.Hint, "tunnelctl reload --env") {
		t.Errorf("hint %q", r.Hint)
	}
	t.Setenv("PATH", bin+string(filepath.ListSeparator)+os.Getenv("PATH"))
	h.Reload()
	await.Until(t, "it to be run", func() bool { _, err := os.Stat(log); return err == nil })
	if r := h.await(t, target.Workload, status.NeedsLogin); !strings.Contains(r.Hint, "with --env") {
		t.Errorf("hint %q", r.Hint)
	}
	t.Setenv("PROFILE", "dev")
	h.Reload()
	h.await(t, target.Workload, status.Idle)
	_, c := h.open(t, target)
	echo(t, c)

	t.Setenv("PROFILE", "other")
	h.Reload()
	await.Until(t, "it to be asked anew", func() bool {
		text, err := os.ReadFile(log)
		return err == nil && strings.HasSuffix(string(text), "other\n")
	})
	echo(t, c)
	runs, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	h.await(t, target.Workload, status.Ready) // it has a connection
	h.Reload()                                // nothing has changed
	h.open(t, target)
	if again, err := os.ReadFile(log); err != nil || string(again) != string(runs) {
		t.Errorf("the plugin was run again without a reason: %q, %v", again, err)
	}
}
