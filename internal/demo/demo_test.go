package demo_test

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/internal/demo"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/streaming/pkg/httpstream"
)

func TestMain(m *testing.M) {
	demo.RedirectKlog(nil)
	goleak.VerifyTestMain(m,
		// client-go's connections take a second to tell nobody that they could
		// not be closed, because they were broken.
		goleak.IgnoreTopFunction("github.com/moby/spdystream.(*Connection).shutdown"),
		// The server waits 30 s for the second stream of a pair, even if the
		// connection has ended.
		goleak.IgnoreTopFunction("k8s.io/cri-streaming/pkg/streaming/portforward.(*httpStreamHandler).monitorStreamPair"))
}

// start runs a cluster with apps in it.
func start(t testing.TB, o demo.Options, apps ...demo.App) *demo.Cluster {
	t.Helper()
	c, err := demo.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.Run(apps...); err != nil {
		t.Fatal(err)
	}
	return c
}

// sample is the sample application, with pods that go as soon as they are told.
func sample() []demo.App {
	apps := demo.TaskAPI()
	for i := range apps {
		apps[i].Grace = 0
	}
	return apps
}

// client speaks to the core group.
func client(t testing.TB, c *demo.Cluster) *rest.RESTClient {
	t.Helper()
	return clientFor(t, c.RESTConfig(), corev1.SchemeGroupVersion.Group, corev1.SchemeGroupVersion.Version)
}

func clientFor(t testing.TB, config *rest.Config, group, version string) *rest.RESTClient {
	t.Helper()
	config.APIPath = "/apis"
	if group == "" {
		config.APIPath = "/api"
	}
	gv := corev1.SchemeGroupVersion
	gv.Group, gv.Version = group, version
	config.GroupVersion = &gv
	config.NegotiatedSerializer = scheme.Codecs.WithoutConversion()
	rc, err := rest.RESTClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { rc.Client.CloseIdleConnections() })
	return rc
}

// A forward is client-go's own port-forward to a pod.
type forward struct {
	httpstream.Connection
	requests int
}

// dialForward opens an upgraded connection to a pod as kubectl would.
func dialForward(config *rest.Config, protocol, namespace, pod string) (*forward, error) {
	u, err := url.Parse(config.Host)
	if err != nil {
		return nil, err
	}
	u.Path = "/api/v1/namespaces/" + namespace + "/pods/" + pod + "/portforward"
	var dialer httpstream.Dialer
	if protocol == "WebSocket" {
		dialer, err = portforward.NewSPDYOverWebsocketDialerForStreaming(u, config)
	} else {
		var transport http.RoundTripper
		var upgrader spdy.Upgrader
		transport, upgrader, err = spdy.RoundTripperFor(config)
		dialer = spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: transport}, http.MethodPost, u)
	}
	if err != nil {
		return nil, err
	}
	conn, _, err := dialer.Dial(portforward.PortForwardProtocolV1Name)
	if err != nil {
		return nil, err
	}
	return &forward{Connection: conn}, nil
}

func mustForward(t testing.TB, c *demo.Cluster, protocol, namespace, pod string) *forward {
	t.Helper()
	f, err := dialForward(c.RESTConfig(), protocol, namespace, pod)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// open opens a pair of streams to a port. What comes on the error stream is
// sent to refused, and "" when it ends without.
func (f *forward) open(port int) (data httpstream.Stream, refused <-chan string, err error) {
	f.requests++
	headers := http.Header{}
	headers.Set(corev1.PortHeader, fmt.Sprint(port))
	headers.Set(corev1.PortForwardRequestIDHeader, fmt.Sprint(f.requests))
	headers.Set(corev1.StreamType, corev1.StreamTypeError)
	errors, err := f.CreateStream(headers)
	if err != nil {
		return nil, nil, err
	}
	errors.Close()
	ch := make(chan string, 1)
	go func() {
		text, _ := io.ReadAll(errors)
		ch <- string(text)
	}()
	headers.Set(corev1.StreamType, corev1.StreamTypeData)
	data, err = f.CreateStream(headers)
	return data, ch, err
}

func (f *forward) mustOpen(t testing.TB, port int) (httpstream.Stream, <-chan string) {
	t.Helper()
	data, refused, err := f.open(port)
	if err != nil {
		t.Fatal(err)
	}
	return data, refused
}

// refusal opens a stream to a port that says no, and returns its words. The
// reset that follows them may overtake the reply that the client waits for.
func (f *forward) refusal(t testing.TB, port int) string {
	t.Helper()
	_, refused, err := f.open(port)
	if refused == nil {
		t.Fatal(err)
	}
	return <-refused
}

// echo proves that bytes go through.
func echo(s io.ReadWriter, text string) error {
	if _, err := io.WriteString(s, text); err != nil {
		return err
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(s, got); err != nil {
		return err
	}
	if string(got) != text {
		return fmt.Errorf("echo of %q is %q", text, got)
	}
	return nil
}

func wantIn(t testing.TB, got string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(got, part) {
			t.Errorf("got %q; want it to contain %q", got, part)
		}
	}
}
