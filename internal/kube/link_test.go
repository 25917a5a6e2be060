package kube

import (
	"crypto/tls"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd/api"

	"github.com/tunneld/tunneld/internal/forward"
	"github.com/tunneld/tunneld/internal/status"
)

func TestLink(t *testing.T) {
	refused := errors.New("connection refused")
	tests := []struct {
		name   string
		happen func(*link)
		want   status.State
	}{
		{"nothing yet", func(*link) {}, status.Connecting},
		{"a question under way", func(l *link) { l.ask() }, status.Connecting},
		{"an answer", func(l *link) { l.ask()(answer(200)) }, status.Ready},
		{"an answer without a known status", func(l *link) { l.ask()(answer(0)) }, status.Ready},
		{"a 403 is an answer", func(l *link) { l.ask()(answer(http.StatusForbidden)) }, status.Ready},
		{"a 500 is an answer", func(l *link) { l.ask()(answer(http.StatusInternalServerError)) }, status.Ready},
		{"a 401", func(l *link) { l.ask()(answer(http.StatusUnauthorized)) }, status.NeedsLogin},
		{"no credentials", func(l *link) { l.ask()(outcome{denied: refused}) }, status.NeedsLogin},
		{"credentials after all", func(l *link) { l.ask()(outcome{denied: refused}); l.ask()(answer(200)) }, status.Ready},
		{"refused", func(l *link) { l.ask()(answer(200)); l.ask()(outcome{failure: refused}) }, status.Offline},
		{"back again", func(l *link) { l.ask()(outcome{failure: refused}); l.ask()(answer(200)) }, status.Ready},
		{"a wrong certificate", func(l *link) { l.ask()(outcome{failure: &tls.CertificateVerificationError{Err: refused}}) }, status.Failed},
		{"silent for a while", func(l *link) {
			l.ask()(answer(200))
			l.ask()
			time.Sleep(silenceLimit - 1)
		}, status.Ready},
		{"silent for too long", func(l *link) {
			l.ask()(answer(200))
			l.ask()
			time.Sleep(silenceLimit)
		}, status.Offline},
		{"silent over several questions", func(l *link) {
			for range 3 {
				done := l.ask()
				time.Sleep(4 * time.Second)
				done(silence)
			}
		}, status.Offline},
		{"an answer to another question", func(l *link) {
			l.ask()
			time.Sleep(silenceLimit - 1)
			l.ask()(answer(200))
			time.Sleep(silenceLimit - 1)
		}, status.Ready},
		{"nobody wants to know any more", func(l *link) {
			l.ask()(answer(200))
			l.ask()(withdrawn)
			time.Sleep(time.Hour)
		}, status.Ready},
		{"a check without an answer", func(l *link) {
			l.ask()(answer(200))
			time.Sleep(time.Second)
			l.dead(time.Now())
		}, status.Offline},
		{"a check without an answer, and one to another question", func(l *link) {
			l.ask()(answer(200))
			began := time.Now()
			time.Sleep(2 * time.Second)
			l.ask()(answer(101))
			time.Sleep(time.Second)
			l.dead(began)
		}, status.Ready},
		{"nobody wants to know any more, but it was silent for too long", func(l *link) {
			l.ask()(answer(200))
			watch := l.ask()
			time.Sleep(silenceLimit + time.Second)
			watch(withdrawn)
		}, status.Offline},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &link{changed: func() {}}
				tt.happen(l)
				c := l.condition()
				if c.State != tt.want {
					t.Errorf("%s (%s); want %s", c.State, c.Cause, tt.want)
				}
				if usable := c.State == status.Ready || c.State == status.Connecting; l.up() != usable {
					t.Errorf("up = %v in state %s", l.up(), c.State)
				}
				if (c.Cause == "") != (c.State == status.Ready) {
					t.Errorf("cause %q in state %s", c.Cause, c.State)
				}
			})
		})
	}
}

// failing is a RoundTripper that fails before the wire.
type failing string

func (f failing) RoundTrip(*http.Request) (*http.Response, error) { return nil, errors.New(string(f)) }

func TestLinkWithoutCredentials(t *testing.T) {
	tests := []struct {
		name, plugin, failure string
		cause, hint           string
	}{
		{"a plugin that is not there", "no-such-plugin", "exec: executable no-such-plugin not found\n\nIt looks like you are trying to use\n",
			"the credentials of context lab cannot be had: exec: executable no-such-plugin not found",
			"no-such-plugin is not in tunneld's PATH, which may be another than your shell's: " +
				"give it that one (tunnelctl reload --env, or a new start), or write the plugin's whole path into the kubeconfig, then: tunnelctl reload"},
		{"a plugin that fails", os.Args[0], "exec: executable get-token failed with exit code 1",
			"the credentials of context lab cannot be had: exec: executable get-token failed with exit code 1",
			"log in as for kubectl (kubectl --context lab version), then: tunnelctl reload (with --env if that works already: a service may have another environment)"},
		{"no plugin", "", "no token", "the credentials of context lab cannot be had: no token",
			"log in as for kubectl (kubectl --context lab version), then: tunnelctl reload"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			to := access{rest: &rest.Config{}}
			if tt.plugin != "" {
				to.rest.ExecProvider = &api.ExecConfig{Command: tt.plugin}
			}
			l := newLink(ID{Context: "lab"}, to, func() {})
			req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/version", nil)
			if _, err := (outermost{failing(tt.failure), l}).RoundTrip(req); err == nil || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %q; want one line", err)
			}
			want := status.Condition{State: status.NeedsLogin, Cause: tt.cause, Hint: tt.hint}
			if diff := cmp.Diff(want, l.condition()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// A command in a hint asks the cluster that the hint is about.
func TestKubectlCommands(t *testing.T) {
	two := "/a" + string(os.PathListSeparator) + "/b"
	for kubeconfig, command := range map[string]string{
		"":   "kubectl --context lab ",
		"/a": "kubectl --kubeconfig /a --context lab ",
		two:  "KUBECONFIG=" + two + " kubectl --context lab ",
	} {
		id := ID{Kubeconfig: kubeconfig, Context: "lab"}
		l := newLink(id, access{rest: &rest.Config{}}, func() {})
		w := forward.Workload{Kubeconfig: kubeconfig, Context: "lab", Namespace: "ns"}
		hints := map[string]string{"version": l.login()}
		hints["config view --minify"] = unusable(id, errors.New("no")).Hint
		hints["get namespaces"] = finder{query: Query{Kubeconfig: kubeconfig, Context: "lab"}}.kubectl("get namespaces")
		hints["-n ns get pods"] = w.Kubectl("get pods")
		for args, hint := range hints {
			if !strings.Contains(hint, command+args) {
				t.Errorf("hint %q; want %q in it", hint, command+args)
			}
		}
		l.ask()(outcome{failure: errors.New("refused")})
		if hint := l.condition().Hint; !strings.Contains(hint, command+"version") {
			t.Errorf("hint %q; want %q in it", hint, command+"version")
		}
	}
}

// A proxy's 404 says nothing about an object.
func TestNotFoundIsTheAPIServersWord(t *testing.T) {
	pods := schema.GroupResource{Resource: "pods"}
	if !isNotFound(apierrors.NewNotFound(pods, "a")) {
		t.Error("the API server's 404 is not believed")
	}
	if err := apierrors.NewGenericServerResponse(404, "get", pods, "a", "404 page not found", 0, true); isNotFound(err) {
		t.Errorf("taken for the API server's word: %v", err)
	}
}
