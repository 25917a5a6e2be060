package apiserver

import (
	"net/http"
	"net/url"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/proxy"
	"k8s.io/streaming/pkg/httpstream/wsstream"
)

// servePortForward is the API server's part of a port-forward: it checks, and
// passes the upgraded connection on to the kubelet byte for byte, as servers
// since 1.36 do with both protocols.
func (s *Server) servePortForward(w http.ResponseWriter, r *http.Request, q *Request) error {
	if q.Verb != "get" && q.Verb != "create" {
		return apierrors.NewMethodNotSupported(corev1.Resource("pods"), q.Verb)
	}
	webSocket := wsstream.IsWebSocketRequest(r)
	if webSocket && !s.options.OldServer {
		// A WebSocket begins with GET, and "get" shall not be enough to reach
		// into a pod: https://github.com/kubernetes/kubernetes/issues/133515
		create := *q
		create.Verb = "create"
		if err := s.auth.check(&create); err != nil {
			return err
		}
	}
	o := s.Store.Get("pods", q.Namespace, q.Name)
	if o == nil {
		return apierrors.NewNotFound(corev1.Resource("pods"), q.Name)
	}
	if !webSocket && s.options.NoSPDY() {
		r = r.Clone(r.Context())
		r.Header.Del("Upgrade")
		r.Header.Del("Connection")
	}
	kubelet := &url.URL{
		Scheme:   "http",
		Host:     s.options.KubeletAddress,
		Path:     "/portForward/" + o.GetNamespace() + "/" + o.GetName() + "/" + string(o.GetUID()),
		RawQuery: r.URL.RawQuery,
	}
	proxy.NewUpgradeAwareHandler(kubelet, s.options.Kubelet, false, true, responder{}).ServeHTTP(w, r)
	return nil
}

// A responder writes what goes wrong between API server and kubelet.
type responder struct{}

func (responder) Error(w http.ResponseWriter, _ *http.Request, err error) { respondError(w, err) }
