package kube_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/tunneld/tunneld/internal/demo"
	"github.com/tunneld/tunneld/internal/forward"
	"github.com/tunneld/tunneld/internal/kube"
)

// failingPlugin is a credential plugin that is not installed.
var failingPlugin = &clientcmdapi.ExecConfig{
	Command: "no-such-plugin", APIVersion: "client.authentication.k8s.io/v1", InteractiveMode: clientcmdapi.NeverExecInteractiveMode,
}

// getPod reads a pod with client-go's own client.
func getPod(config *rest.Config, namespace, name string) (*corev1.Pod, error) {
	config.APIPath, config.GroupVersion = "/api", &corev1.SchemeGroupVersion
	config.NegotiatedSerializer = scheme.Codecs.WithoutConversion()
	c, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, err
	}
	defer c.Client.CloseIdleConnections()
	pod := new(corev1.Pod)
	return pod, c.Get().Namespace(namespace).Resource("pods").Name(name).Do(context.Background()).Into(pod)
}

func TestFind(t *testing.T) {
	t.Parallel()
	h := newHarness(t, demo.Options{})
	service := func(namespace, name string) *corev1.Service {
		return &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
			Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "web", Port: 80}}},
		}
	}
	external := service("task-api", "external")
	external.Spec = corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "example.com"}
	dns, udp := service("task-api", "dns"), service("task-api", "udp")
	dns.Spec.Ports = []corev1.ServicePort{{Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP}, {Name: "dns-tcp", Port: 53}}
	udp.Spec.Ports = []corev1.ServicePort{{Port: 53, Protocol: corev1.ProtocolUDP}}
	ended := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "task-api", Name: "ended"}, Status: corev1.PodStatus{Phase: corev1.PodSucceeded}}
	if err := h.Apply(service("billing", "only-there"), service("billing", "twice"), service("shop", "twice"), external, ended, dns, udp); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name  string
		query kube.Query
		// either
		namespace, note string
		// or
		cause, hint string
	}{
		{name: "in the context's namespace", query: kube.Query{Name: "task-api"}, namespace: "task-api"},
		{name: "the only one elsewhere", query: kube.Query{Name: "only-there"}, namespace: "billing", note: "namespace billing: the only one with such a service"},
		{name: "several elsewhere", query: kube.Query{Name: "twice"},
			cause: "there is a service/twice in 2 namespaces of context demo: billing, shop", hint: "say which: -n billing"},
		{name: "a namespace that is given", query: kube.Query{Name: "twice", Namespace: "shop"}, namespace: "shop"},
		{name: "not in the namespace that is given", query: kube.Query{Name: "task-api", Namespace: "shop"},
			cause: "there is no service/task-api in namespace shop of context demo", hint: "it is in namespace task-api: -n task-api"},
		{name: "nowhere, but something like it", query: kube.Query{Name: "task-apu"},
			cause: "there is no service/task-apu in any namespace of context demo", hint: "did you mean task-api"},
		{name: "nowhere, but something like it in another namespace", query: kube.Query{Name: "only-here"},
			cause: "there is no service/only-here in any namespace of context demo", hint: "did you mean only-there in namespace billing"},
		{name: "no such namespace", query: kube.Query{Name: "task-api", Namespace: "task-apo"},
			cause: "there is no namespace task-apo in context demo", hint: "did you mean task-api?"},
		{name: "no such context", query: kube.Query{Name: "task-api", Context: "dem"}, cause: `there is no context "dem"`, hint: "did you mean demo?"},
		{name: "a deployment", query: kube.Query{Kind: forward.Deployment, Name: "task-api"}, namespace: "task-api"},
		{name: "no such deployment", query: kube.Query{Kind: forward.Deployment, Name: "task-db"}, cause: "there is no deployment/task-db", hint: "task-api"},
		{name: "ports by name and number", query: kube.Query{Name: "task-tcp", Ports: []string{"tcp-echo", "9001"}}, namespace: "task-api"},
		{name: "a port that it has not", query: kube.Query{Name: "task-api", Ports: []string{"9999"}},
			cause: "service/task-api has no TCP port 9999", hint: "it has 8000 (http)"},
		{name: "a port that is UDP", query: kube.Query{Name: "task-tcp", Ports: []string{"9003"}},
			cause: "port 9003 (udp-echo) is UDP; port-forward carries TCP only", hint: "it has 9000 (tcp-echo), 9001 (tcp-source), 9002 (tcp-sink)"},
		{name: "a port that is UDP, by its name", query: kube.Query{Name: "task-tcp", Ports: []string{"udp-echo"}}, cause: "port 9003 (udp-echo) is UDP; port-forward carries TCP only"},
		{name: "a number for both protocols", query: kube.Query{Name: "dns", Ports: []string{"53"}}, namespace: "task-api"},
		{name: "the name of the other one", query: kube.Query{Name: "dns", Ports: []string{"dns"}}, cause: "port 53 (dns) is UDP; port-forward carries TCP only", hint: "it has 53 (dns-tcp)"},
		{name: "a pod's number that is declared as UDP", query: kube.Query{Kind: forward.Deployment, Name: "task-api", Ports: []string{"9003"}}, namespace: "task-api"},
		{name: "UDP only", query: kube.Query{Name: "udp", Ports: []string{"53"}}, cause: "port 53 is UDP; port-forward carries TCP only", hint: "it declares no TCP port"},
		{name: "a pod's port need not be declared", query: kube.Query{Kind: forward.Deployment, Name: "task-api", Ports: []string{"9000"}}, namespace: "task-api"},
		{name: "ExternalName", query: kube.Query{Name: "external"}, cause: "is of type ExternalName (example.com)",
			hint: "forward one that has pods and a TCP port instead: kubectl "},
		{name: "a pod that has ended", query: kube.Query{Kind: forward.Pod, Name: "ended"}, cause: "pod/ended has ended (succeeded)", hint: "describe pod/ended"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			q := tt.query
			q.Kubeconfig = h.kubeconfig
			if q.Kind == "" {
				q.Kind = forward.Service
			}
			found, err := h.Find(t.Context(), q)
			if tt.cause == "" {
				want := kube.Found{Note: tt.note, Workload: forward.Workload{
					Kubeconfig: h.kubeconfig, Context: "demo", Namespace: tt.namespace, Kind: q.Kind, Name: q.Name,
				}}
				found.Ports = nil // not what this is about
				if diff := cmp.Diff(want, found); diff != "" || err != nil {
					t.Errorf("error %v (-want +got):\n%s", err, diff)
				}
				return
			}
			e, ok := errors.AsType[*forward.Error](err)
			if !ok || !strings.Contains(e.Cause, tt.cause) || !strings.Contains(e.Hint, tt.hint) {
				t.Errorf("error %v; want %q with hint %q", err, tt.cause, tt.hint)
				if ok {
					t.Logf("hint %q", e.Hint)
				}
			}
		})
	}
}

func TestFindWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	h := newHarness(t, demo.Options{})
	query := kube.Query{Kubeconfig: h.kubeconfig, Kind: forward.Service, Name: "task-api"}

	t.Run("other namespaces may not be searched", func(t *testing.T) {
		defer h.Forbid(demo.Rule{Verb: "list", Resource: "services", Namespace: ""})()
		q := query
		q.Name = "elsewhere"
		_, err := h.Find(t.Context(), q)
		e, ok := errors.AsType[*forward.Error](err)
		if !ok || !strings.Contains(e.Cause, "other namespaces may not be searched") || !strings.Contains(e.Hint, "-n NAMESPACE") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("the API server is down", func(t *testing.T) {
		h.StopAPI()
		defer h.StartAPI()
		checkUnverified(t, h, query, "the API server at "+h.URL()+" cannot be reached: ", ", or try again when the API server answers")
	})
	t.Run("the API server does not answer", func(t *testing.T) {
		defer h.DropPackets()()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err := h.Find(ctx, query)
		if want := "cannot be found out: the API server at " + h.URL() + " does not answer"; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v; want %q", err, want)
		}
	})
	t.Run("the object may not be read", func(t *testing.T) {
		defer h.Forbid(demo.Rule{Verb: "get", Resource: "services"})()
		checkUnverified(t, h, query, `services "task-api" is forbidden: `, "")
	})
	t.Run("the credentials are refused", func(t *testing.T) {
		h.ExpireTokens()
		checkUnverified(t, h, query, "the API server at "+h.URL()+" does not accept the credentials of context demo: ", "")
	})
	t.Run("the credential plugin is not there", func(t *testing.T) {
		if err := h.WriteKubeconfig(h.kubeconfig, demo.Kubeconfig{Context: "demo", Exec: failingPlugin}); err != nil {
			t.Fatal(err)
		}
		checkUnverified(t, h, query, "the credentials of context demo cannot be had: getting credentials: exec: executable no-such-plugin not found", "")
		_, err := h.Find(t.Context(), query)
		if e, ok := errors.AsType[*forward.Error](err); !ok || strings.Contains(e.Cause, "\n") || !strings.HasPrefix(e.Hint, "no-such-plugin is not in tunneld's PATH") {
			t.Errorf("error %v; want one line, and what is missing as its hint", err)
		}
	})
}

func TestFindInABadContext(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name        string
		change      func(*clientcmdapi.Config)
		cause, hint string
	}{
		{"a server that is no URL", func(c *clientcmdapi.Config) { c.Clusters["demo"].Server = "https://bad host:x" },
			"context demo cannot be used: ", "kubectl --kubeconfig FILE --context demo config view --minify"},
		{"no such cluster entry", func(c *clientcmdapi.Config) { delete(c.Clusters, "demo") },
			`context demo refers to the cluster "demo", which is not in `,
			"see what there is (kubectl --kubeconfig FILE config get-clusters), and mend the context (kubectl --kubeconfig FILE config get-contexts demo)"},
		{"no cluster entry named", func(c *clientcmdapi.Config) { c.Contexts["demo"].Cluster = "" }, "context demo in ",
			"see what there is (kubectl --kubeconfig FILE config get-clusters), and mend the context (kubectl --kubeconfig FILE config get-contexts demo)"},
		{"no such user entry", func(c *clientcmdapi.Config) { c.Contexts["demo"].AuthInfo = "ops" },
			`context demo refers to the user "ops", which is not in `,
			"see what there is (kubectl --kubeconfig FILE config get-users), and mend the context (kubectl --kubeconfig FILE config get-contexts demo)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			config := clientcmdapi.NewConfig()
			config.Clusters["demo"] = &clientcmdapi.Cluster{Server: "https://127.0.0.1:1"}
			config.AuthInfos["dev"] = &clientcmdapi.AuthInfo{Token: "t"}
			config.Contexts["demo"] = &clientcmdapi.Context{Cluster: "demo", AuthInfo: "dev"}
			config.CurrentContext = "demo"
			tt.change(config)
			file := filepath.Join(t.TempDir(), "config")
			if err := clientcmd.WriteToFile(*config, file); err != nil {
				t.Fatal(err)
			}
			_, err := new(kube.Clusters).Find(t.Context(), kube.Query{Kubeconfig: file, Kind: forward.Service, Name: "task-api"})
			e, ok := errors.AsType[*forward.Error](err)
			if !ok || !strings.HasPrefix(e.Cause, tt.cause) || e.Hint != strings.ReplaceAll(tt.hint, "FILE", file) {
				t.Errorf("error %v; want %q with hint %q", err, tt.cause, tt.hint)
				if ok {
					t.Logf("hint %q", e.Hint)
				}
			}
		})
	}
}

// checkUnverified checks that a query that the cluster does not answer is an
// error with the cause, unless its namespace is given or was found before.
func checkUnverified(t *testing.T, h *harness, query kube.Query, cause, hint string) {
	t.Helper()
	_, err := h.Find(t.Context(), query)
	e, ok := errors.AsType[*forward.Error](err)
	if !ok || !strings.HasPrefix(e.Cause, "the namespace of service/task-api cannot be found out: "+cause) || !strings.HasSuffix(e.Hint, "say which it is: -n NAMESPACE"+hint) {
		t.Errorf("error %v; want the cause %q with a hint", err, cause)
		if ok {
			t.Logf("hint %q", e.Hint)
		}
	}
	given, known := query, query
	given.Namespace = "shop"
	known.Known = forward.Workload{Kubeconfig: h.kubeconfig, Context: "demo", Namespace: "shop", Kind: query.Kind, Name: query.Name}
	for name, q := range map[string]kube.Query{"given": given, "known": known} {
		if found, err := h.Find(t.Context(), q); err != nil || found.Workload != known.Known || !strings.HasPrefix(found.Note, "not verified: "+cause) {
			t.Errorf("found %+v, %v; want the namespace that is %s, and the cause", found, err, name)
		}
	}
	known.Known.Name = "other"
	if found, err := h.Find(t.Context(), known); err == nil {
		t.Errorf("found %+v; want an error, since something else was found before", found)
	}
}
