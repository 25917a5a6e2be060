package kube

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/rest"

	"github.com/tunneld/tunneld/internal/portforward"
)

// A client speaks to one API server. It has three REST clients with a scheme
// of their own, instead of the generated clientset: the daemon needs five
// kinds, and the clientset's scheme holds several hundred.
type client struct {
	http      *http.Client
	core      rest.Interface
	discovery rest.Interface
	apps      rest.Interface
	upgrade   *portforward.Dialer
}

// dialTimeout is for connecting to an API server; TCP's second try is after 3 s.
const dialTimeout = 4 * time.Second

// newClient builds a client whose every request tells watched what became of
// it.
func newClient(config *rest.Config, userAgent string, timing Timing, watched *link) (*client, error) {
	config = rest.CopyConfig(config)
	config.UserAgent = userAgent
	config.QPS = -1 // the API server's own priority and fairness decides
	config.WarningHandler = rest.NoWarnings{}
	config.ContentType = runtime.ContentTypeProtobuf
	config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	config.Wrap(func(rt http.RoundTripper) http.RoundTripper { return innermost{rt} })
	// A dialer of one's own also means connections of one's own: client-go
	// shares them between all configs that are alike, and a dead one that
	// another cluster's watches keep would be asked again.
	config.Dial = dialer(timing).DialContext

	hc, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("credentials: %w", err)
	}
	noticeSilence(hc.Transport, timing)
	hc.Transport = outermost{hc.Transport, watched}

	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, discoveryv1.AddToScheme, appsv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	codecs := serializer.NewCodecFactory(scheme).WithoutConversion()
	group := func(apiPath string, gv schema.GroupVersion) (rest.Interface, error) {
		c := rest.CopyConfig(config)
		c.APIPath, c.GroupVersion, c.NegotiatedSerializer = apiPath, &gv, codecs
		return rest.RESTClientForConfigAndClient(c, hc)
	}
	k := &client{http: hc}
	if k.core, err = group("/api", corev1.SchemeGroupVersion); err != nil {
		return nil, err
	}
	if k.discovery, err = group("/apis", discoveryv1.SchemeGroupVersion); err != nil {
		return nil, err
	}
	if k.apps, err = group("/apis", appsv1.SchemeGroupVersion); err != nil {
		return nil, err
	}
	// Without the limits of dialer, which say why.
	upgrades := rest.CopyConfig(config)
	upgrades.Dial = (&net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}).DialContext
	k.upgrade, err = portforward.NewDialer(upgrades, func(rt http.RoundTripper) http.RoundTripper {
		return outermost{rt, watched}
	})
	return k, err
}

// dialer connects to API servers. What it connects ends if nothing comes back:
// whoever only waits for what comes next, as a watch does, would wait for ever
// on a connection whose path is gone. The kernel asks after Timing.Ping, and a
// second more, since HTTP/2 asks before; and where the system has it, what was
// sent has as long to be acknowledged as a ping with its answer.
//
// It is not for upgraded connections: a peer that takes nothing more for a
// while is all right there, and Linux does not tell it from one that is gone.
func dialer(timing Timing) *net.Dialer {
	return &net.Dialer{
		Timeout:         dialTimeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: timing.Ping + time.Second, Interval: time.Second, Count: max(int(timing.Pong/time.Second), 1)},
		Control:         limitSilence(timing.Ping + timing.Pong),
	}
}

// noticeSilence has HTTP/2 ping a connection that has brought nothing for
// Timing.Ping, and end it if no answer comes within Timing.Pong. By itself
// client-go would take 45 s. Kernels on the way do not see that, proxies do not
// answer for it, and it takes no request, which might go by another connection.
func noticeSilence(rt http.RoundTripper, timing Timing) {
	for rt != nil {
		if t, ok := rt.(*http.Transport); ok {
			if t.HTTP2 == nil {
				t.HTTP2 = new(http.HTTP2Config)
			}
			t.HTTP2.SendPingTimeout, t.HTTP2.PingTimeout = timing.Ping, timing.Pong
			return
		}
		wrapper, ok := rt.(utilnet.RoundTripperWrapper)
		if !ok {
			return
		}
		rt = wrapper.WrappedRoundTripper()
	}
}

// check asks the API server for a sign of life. /version is open to every
// user, and credentials that are presented are verified all the same.
func (k *client) check(ctx context.Context) error {
	return k.core.Get().AbsPath("/version").Do(ctx).Error()
}

// lookAt asks for a pod: whether it is certain that there is none of that UID any
// more, or that it has ended, and whether it is about to.
func (k *client) lookAt(ctx context.Context, pod portforward.Pod) (gone, terminating bool) {
	var now corev1.Pod
	err := k.core.Get().Namespace(pod.Namespace).Resource("pods").Name(pod.Name).Do(ctx).Into(&now)
	if err != nil {
		return isNotFound(err), false
	}
	return string(now.UID) != pod.UID || finished(&now), now.DeletionTimestamp != nil
}

// close drops idle connections: a request that follows dials anew.
func (k *client) close() { utilnet.CloseIdleConnectionsFor(k.http.Transport) }

// An outermost RoundTripper sees each request before the credentials do, and
// its outcome after.
type outermost struct {
	next http.RoundTripper
	link *link
}

// onWire is the key of the mark that innermost leaves in a request's context.
type onWire struct{}

func (o outermost) RoundTrip(req *http.Request) (*http.Response, error) {
	sent := new(atomic.Bool)
	ctx, began := req.Context(), time.Now()
	done := o.link.ask()
	resp, err := interruptible(o.next, req.WithContext(context.WithValue(ctx, onWire{}, sent)))
	switch {
	case err == nil:
		done(answer(resp.StatusCode))
	case errors.Is(ctx.Err(), context.Canceled):
		done(withdrawn)
	case overdue(ctx) && time.Since(began) < leastPatience:
		done(withdrawn)
	case overdue(ctx) && !sent.Load():
		done(outcome{denied: errPluginWaits})
	case overdue(ctx):
		done(silence)
	case !sent.Load():
		// What fails before the wire is the plugin that fetches credentials.
		err = firstLine{err}
		done(outcome{denied: err})
	default:
		done(outcome{failure: err})
	}
	return resp, err
}

// interruptible is rt.RoundTrip for those that cannot be interrupted: client-go
// runs credential plugins without a context, and a plugin may wait for a
// browser. Whatever comes after the context is done is thrown away.
func interruptible(rt http.RoundTripper, req *http.Request) (*http.Response, error) {
	type result struct {
		resp *http.Response
		err  error
	}
	ended := make(chan result, 1)
	go func() {
		resp, err := rt.RoundTrip(req)
		ended <- result{resp, err}
	}()
	select {
	case r := <-ended:
		return r.resp, r.err
	case <-req.Context().Done():
	}
	go func() {
		if r := <-ended; r.err == nil {
			r.resp.Body.Close()
		}
	}()
	return nil, context.Cause(req.Context())
}

// errPluginWaits: a plugin that takes long may be waiting for a person.
var errPluginWaits = errors.New("its credential plugin has not finished")

// A firstLine is an error without the explanations that client-go adds to it.
type firstLine struct{ error }

func (e firstLine) Error() string {
	line, _, _ := strings.Cut(e.error.Error(), "\n")
	return line
}

func (e firstLine) Unwrap() error { return e.error }

// leastPatience is what one must give an API server before its silence says
// anything.
const leastPatience = time.Second

// overdue reports whether the deadline has passed: a connection may notice that
// before ctx does.
func overdue(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ok && !time.Now().Before(deadline)
}

// WrappedRoundTripper lets apimachinery reach the transport underneath.
func (o outermost) WrappedRoundTripper() http.RoundTripper { return o.next }

// innermost marks requests that have passed the credentials.
type innermost struct{ next http.RoundTripper }

func (i innermost) RoundTrip(req *http.Request) (*http.Response, error) {
	if sent, ok := req.Context().Value(onWire{}).(*atomic.Bool); ok {
		sent.Store(true)
	}
	return i.next.RoundTrip(req)
}

// WrappedRoundTripper lets apimachinery reach the transport underneath.
func (i innermost) WrappedRoundTripper() http.RoundTripper { return i.next }

// isNotFound reports whether the API server said so itself, and not a proxy on
// the way, which knows no pods.
func isNotFound(err error) bool {
	return apierrors.IsNotFound(err) && !apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse)
}
