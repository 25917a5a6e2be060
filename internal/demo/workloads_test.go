package demo_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/websocket"
	"github.com/tunneld/tunneld/internal/await"
	"github.com/tunneld/tunneld/internal/demo"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// slicesOf describes the EndpointSlices of a Service, one per line, as
// "name=number,… | pod conditions …".
func slicesOf(t *testing.T, c *demo.Cluster, namespace, service string) []string {
	t.Helper()
	rc := clientFor(t, c.RESTConfig(), discoveryv1.GroupName, "v1")
	list := new(discoveryv1.EndpointSliceList)
	err := rc.Get().Namespace(namespace).Resource("endpointslices").
		Param("labelSelector", discoveryv1.LabelServiceName+"="+service).Do(t.Context()).Into(list)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, s := range list.Items {
		var ports, endpoints []string
		for _, p := range s.Ports {
			ports = append(ports, fmt.Sprintf("%s=%d/%s", *p.Name, *p.Port, *p.Protocol))
		}
		for _, e := range s.Endpoints {
			name := e.Addresses[0]
			if e.TargetRef != nil {
				name = e.TargetRef.Name
				if uid := c.PodUID(namespace, name); uid != string(e.TargetRef.UID) {
					t.Errorf("endpoint %s has uid %s; want %s", name, e.TargetRef.UID, uid)
				}
			}
			for word, is := range map[string]*bool{" ready": e.Conditions.Ready, " serving": e.Conditions.Serving, " terminating": e.Conditions.Terminating} {
				if is != nil && *is {
					endpoints = append(endpoints, name+word)
				}
			}
			if len(endpoints) == 0 || !strings.HasPrefix(endpoints[len(endpoints)-1], name) {
				endpoints = append(endpoints, name)
			}
		}
		slices.Sort(endpoints)
		lines = append(lines, strings.Join(ports, ",")+" | "+strings.Join(endpoints, ", "))
	}
	slices.Sort(lines)
	return lines
}

func TestEndpointSlices(t *testing.T) {
	t.Parallel()
	web := demo.App{Name: "web", StatefulSet: true, Replicas: 2, Grace: time.Hour, Ports: []demo.AppPort{
		{Name: "http", Port: 80, TargetName: "web", Target: 8000},
		{Name: "udp", Port: 53, Protocol: corev1.ProtocolUDP},
	}}
	const ports = "http=8000/TCP,udp=53/UDP | "
	tests := []struct {
		name    string
		service string
		act     func(c *demo.Cluster) error
		want    []string
	}{
		{"all is well", "web", nil,
			[]string{ports + "web-0 ready, web-0 serving, web-1 ready, web-1 serving"}},
		{"unready", "web", func(c *demo.Cluster) error { return c.SetReady("default", "web-1", false) },
			[]string{ports + "web-0 ready, web-0 serving, web-1"}},
		{"terminating", "web", func(c *demo.Cluster) error { return c.DeletePod("default", "web-1", time.Hour) },
			[]string{ports + "web-0 ready, web-0 serving, web-1 serving, web-1 terminating"}},
		{"terminating and unready", "web", func(c *demo.Cluster) error {
			c.SetReady("default", "web-1", false)
			return c.DeletePod("default", "web-1", -1)
		}, []string{ports + "web-0 ready, web-0 serving, web-1 terminating"}},
		{"no pods", "web", func(c *demo.Cluster) error { return c.Remove("default", "web") }, nil},
		{"scaled to none", "web", func(c *demo.Cluster) error {
			c.Scale("default", "web", 0)
			c.DeletePod("default", "web-1", 0)
			return c.DeletePod("default", "web-0", 0)
		}, []string{" | "}},
		{"a name that only some pods have", "web", func(c *demo.Cluster) error {
			p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "stray", Labels: map[string]string{"app": "web"}}}
			p.Spec.Containers = []corev1.Container{{Name: "x", Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: 8001}}}}
			p.Status.PodIP = "10.9.9.9"
			return c.Apply(p)
		}, []string{ports + "web-0 ready, web-0 serving, web-1 ready, web-1 serving", "http=8001/TCP,udp=53/UDP | stray"}},
		{"a selector that matches nothing", "other", func(c *demo.Cluster) error {
			return c.Apply(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "other"}, Spec: corev1.ServiceSpec{
				Selector: map[string]string{"app": "nothing"}, Ports: []corev1.ServicePort{{Port: 1}},
			}})
		}, []string{" | "}},
		{"external name", "other", func(c *demo.Cluster) error {
			return c.Apply(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "other"}, Spec: corev1.ServiceSpec{
				Type: corev1.ServiceTypeExternalName, ExternalName: "example.com", Selector: map[string]string{"app": "web"},
			}})
		}, nil},
		{"not ready but published", "other", func(c *demo.Cluster) error {
			c.SetReady("default", "web-0", false)
			return c.Apply(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "other"}, Spec: corev1.ServiceSpec{
				Selector: map[string]string{"app": "web"}, PublishNotReadyAddresses: true,
				Ports: []corev1.ServicePort{{Name: "x", Port: 1, TargetPort: intstr.FromInt32(9000)}},
			}})
		}, []string{"x=9000/TCP | web-0 ready, web-0 serving, web-1 ready, web-1 serving"}},
		{"written by hand", "other", func(c *demo.Cluster) error {
			return c.Apply(
				&corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "other"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 1}}}},
				&discoveryv1.EndpointSlice{
					ObjectMeta: metav1.ObjectMeta{Name: "mine", Labels: map[string]string{discoveryv1.LabelServiceName: "other"}},
					Endpoints:  []discoveryv1.Endpoint{{Addresses: []string{"192.0.2.1"}}},
				})
		}, []string{" | 192.0.2.1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := start(t, demo.Options{}, web)
			if tt.act != nil {
				if err := tt.act(c); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(tt.want, slicesOf(t, c, "default", tt.service)); diff != "" {
				t.Errorf("slices (-want +got):\n%s", diff)
			}
		})
	}
}

func TestSample(t *testing.T) {
	t.Parallel()
	c := start(t, demo.Options{}, demo.TaskAPI()...)
	rc := client(t, c)
	for name, want := range map[string]string{
		"task-api": "http:8000->http/TCP", "task-empty": "http:80->80/TCP", "task-db": "tcp-db:9000->9000/TCP",
		"task-tcp": "tcp-echo:9000->9000/TCP tcp-source:9001->9001/TCP tcp-sink:9002->9002/TCP udp-echo:9003->9003/UDP",
	} {
		s := new(corev1.Service)
		if err := rc.Get().Namespace("task-api").Resource("services").Name(name).Do(t.Context()).Into(s); err != nil {
			t.Fatal(err)
		}
		var ports []string
		for _, p := range s.Spec.Ports {
			ports = append(ports, fmt.Sprintf("%s:%d->%s/%s", p.Name, p.Port, p.TargetPort.String(), p.Protocol))
		}
		if got := strings.Join(ports, " "); got != want {
			t.Errorf("%s has ports %s; want %s", name, got, want)
		}
		if headless := s.Spec.ClusterIP == corev1.ClusterIPNone; headless != (name == "task-db") || s.Spec.ClusterIP == "" {
			t.Errorf("%s has cluster IP %q", name, s.Spec.ClusterIP)
		}
	}
	pod := new(corev1.Pod)
	if err := rc.Get().Namespace("task-api").Resource("pods").Name(c.Pods("task-api", "task-api")[0]).Do(t.Context()).Into(pod); err != nil {
		t.Fatal(err)
	}
	var ports []string
	for _, p := range pod.Spec.Containers[0].Ports {
		ports = append(ports, fmt.Sprintf("%s:%d", p.Name, p.ContainerPort))
	}
	if diff := cmp.Diff([]string{"http:8000", ":9000", ":9001", ":9002", ":9003"}, ports); diff != "" {
		t.Errorf("container ports (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"task-db-0", "task-db-1"}, c.Pods("task-api", "task-db")); diff != "" {
		t.Errorf("pods (-want +got):\n%s", diff)
	}
}

// A rollout has one pod too many and never one too few.
func TestRestart(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name             string
		app              demo.App
		least, most      int
		sameNames, delay bool
	}{
		{name: "deployment", app: demo.App{Name: "a", Replicas: 3}, least: 3, most: 4},
		{name: "slow deployment", app: demo.App{Name: "a", Replicas: 2, StartDelay: 20 * time.Millisecond, Grace: 20 * time.Millisecond}, least: 2, most: 3},
		{name: "statefulset", app: demo.App{Name: "a", Replicas: 3, StatefulSet: true}, least: 2, most: 3, sameNames: true},
		{name: "slow statefulset", app: demo.App{Name: "a", Replicas: 2, StatefulSet: true, StartDelay: 20 * time.Millisecond, Grace: 20 * time.Millisecond},
			least: 1, most: 2, sameNames: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := start(t, demo.Options{}, tt.app)
			ready := func() int { return readyPods(t, c) }
			await.Until(t, "the pods", func() bool { return ready() == tt.app.Replicas })
			before := map[string]string{}
			for _, p := range c.Pods("default", "a") {
				before[p] = c.PodUID("default", p)
			}
			done := make(chan error, 1)
			go func() { done <- c.Restart("default", "a") }()
			for finished := false; !finished; {
				select {
				case err := <-done:
					if err != nil {
						t.Fatal(err)
					}
					finished = true
				default:
				}
				if n := ready(); n < tt.least || n > tt.most {
					t.Fatalf("%d pods were ready; want %d to %d", n, tt.least, tt.most)
				}
			}
			pods := c.Pods("default", "a")
			if len(pods) != tt.app.Replicas {
				t.Errorf("pods after the rollout: %v", pods)
			}
			for _, p := range pods {
				if uid, same := before[p]; same != tt.sameNames || uid == c.PodUID("default", p) {
					t.Errorf("pod %s was there before: %v", p, same)
				}
			}
		})
	}
}

// readyPods counts pods that are ready and not on their way out.
func readyPods(t *testing.T, c *demo.Cluster) int {
	t.Helper()
	list := new(corev1.PodList)
	if err := client(t, c).Get().Namespace("default").Resource("pods").Do(t.Context()).Into(list); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, p := range list.Items {
		for _, condition := range p.Status.Conditions {
			if condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue && p.DeletionTimestamp == nil {
				n++
			}
		}
	}
	return n
}

func TestScale(t *testing.T) {
	t.Parallel()
	c := start(t, demo.Options{}, sample()...)
	for _, n := range []int{5, 0, 2} {
		for _, app := range []string{"task-api", "task-db"} {
			if err := c.Scale("task-api", app, n); err != nil {
				t.Fatal(err)
			}
			await.Until(t, fmt.Sprintf("%s with %d pods", app, n), func() bool { return len(c.Pods("task-api", app)) == n })
		}
	}
	if err := c.Scale("task-api", "nope", 1); err == nil {
		t.Error("scaling nothing succeeded")
	}
}

// A pod that is told to stop serves on for its grace, connections included.
func TestGrace(t *testing.T) {
	t.Parallel()
	c := start(t, demo.Options{Linger: 10 * time.Millisecond}, sample()...)
	uid := c.PodUID("task-api", "task-db-0")
	if err := c.DeletePod("task-api", "task-db-0", time.Hour); err != nil {
		t.Fatal(err)
	}
	f := mustForward(t, c, "SPDY", "task-api", "task-db-0")
	data, _ := f.mustOpen(t, demo.EchoPort)
	if err := echo(data, "still here"); err != nil {
		t.Error(err)
	}
	if c.PodUID("task-api", "task-db-0") != uid {
		t.Error("a StatefulSet's pod was replaced before it was gone")
	}
	if err := c.DeletePod("task-api", "task-db-0", time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, data); err != nil {
		t.Logf("the stream ended with %v", err)
	}
	await.Until(t, "the replacement", func() bool {
		now := c.PodUID("task-api", "task-db-0")
		return now != "" && now != uid
	})
}

func TestHandlers(t *testing.T) {
	t.Parallel()
	app := demo.App{Name: "own", StatefulSet: true, Handlers: map[uint16]func(net.Conn){
		demo.EchoPort: func(c net.Conn) { io.WriteString(c, "not an echo") },
		5432:          func(c net.Conn) { io.WriteString(c, "hello") },
		80: demo.HTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, "own ", r.URL.Path)
		})),
	}}
	c := start(t, demo.Options{Linger: 10 * time.Millisecond}, app)
	f := mustForward(t, c, "WebSocket", "default", "own-0")
	for port, want := range map[int]string{demo.EchoPort: "not an echo", 5432: "hello"} {
		data, _ := f.mustOpen(t, port)
		if got, err := io.ReadAll(data); string(got) != want {
			t.Errorf("port %d said %q, %v; want %q", port, got, err, want)
		}
	}
	res, err := http.Get("http://" + local(t, c, "default", "own-0", 80) + "/x")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if got, _ := io.ReadAll(res.Body); string(got) != "own /x" {
		t.Errorf("own HTTP: %q", got)
	}
	http.DefaultClient.CloseIdleConnections()
}

// local listens on loopback and forwards to a pod's port, as kubectl does.
func local(t *testing.T, c *demo.Cluster, namespace, pod string, port int) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer conn.Close()
				f, err := dialForward(c.RESTConfig(), "WebSocket", namespace, pod)
				if err != nil {
					t.Error(err)
					return
				}
				defer f.Close()
				data, _, err := f.open(port)
				if err != nil {
					t.Error(err)
					return
				}
				all.Go(func() {
					io.Copy(data, conn)
					data.Close()
				})
				io.Copy(conn, data)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		all.Wait()
	})
	return l.Addr().String()
}

func TestProgram(t *testing.T) {
	t.Parallel()
	c := start(t, demo.Options{Linger: 10 * time.Millisecond}, demo.App{Name: "web", StatefulSet: true})
	address := local(t, c, "default", "web-0", demo.HTTPPort)
	http1 := &http.Client{Transport: &http.Transport{}}
	var unencrypted http.Protocols
	unencrypted.SetUnencryptedHTTP2(true)
	http2 := &http.Client{Transport: &http.Transport{Protocols: &unencrypted}}
	defer http1.CloseIdleConnections()
	defer http2.CloseIdleConnections()
	tests := []struct {
		client       *http.Client
		method, path string
		want         string
	}{
		{http1, "GET", "/health", `200 {"status": "healthy"}`},
		{http1, "GET", "/bytes/5", "200 \x00\x00\x00\x00\x00"},
		{http1, "GET", "/slow/1", "200 web-0"},
		{http1, "GET", "/status/503", "503 "},
		{http1, "POST", "/upload", "200 4"},
		{http1, "GET", "/sse", "200 data: 0\n\ndata: 1\n\n"},
		{http1, "PUT", "/any?x=1", `200 {"headers":{"Accept-Encoding":["gzip"],"Content-Length":["4"],"User-Agent":["x"]},"host":"web",` +
			`"method":"PUT","path":"/any?x=1","pod":"web-0","proto":"HTTP/1.1"}` + "\n"},
		{http2, "GET", "/", `200 {"headers":{"Accept-Encoding":["gzip"],"Content-Length":["4"],"User-Agent":["x"]},"host":"web",` +
			`"method":"GET","path":"/","pod":"web-0","proto":"HTTP/2.0"}` + "\n"},
	}
	for _, tt := range tests {
		t.Run(tt.path, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), tt.method, "http://"+address+tt.path, strings.NewReader("body"))
			if err != nil {
				t.Fatal(err)
			}
			req.Host = "web"
			req.Header.Set("User-Agent", "x")
			res, err := tt.client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			body, err := io.ReadAll(io.LimitReader(res.Body, int64(len(tt.want)-4))) // events come for seconds
			if got := fmt.Sprint(res.StatusCode, " ", string(body)); got != tt.want || err != nil {
				t.Errorf("got %q, %v; want %q", got, err, tt.want)
			}
		})
	}
	ws, _, err := websocket.DefaultDialer.Dial("ws://"+address+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	ws.WriteMessage(websocket.TextMessage, []byte("hello"))
	if _, got, err := ws.ReadMessage(); string(got) != "hello" || err != nil {
		t.Errorf("WebSocket echo: %q, %v", got, err)
	}
}

// Everything at once, for the race detector.
func TestConcurrency(t *testing.T) {
	t.Parallel()
	c := start(t, demo.Options{}, sample()...)
	var all sync.WaitGroup
	for _, f := range []func(){
		func() { c.Restart("task-api", "task-api") },
		func() { c.Scale("task-api", "task-db", 3) },
		func() { c.DeletePod("task-api", "task-db-0", 0) },
		func() { c.SetReady("task-api", "task-db-1", false); c.SetReady("task-api", "task-db-1", true) },
		func() { c.CutWatches(); c.KillUpgrades("", "") },
		func() { c.DropPackets()() },
		func() { c.StopKubelet()() },
		func() { c.RestartAPI() },
		func() { c.Pods("task-api", "task-api"); c.Requests(); c.Upgrades() },
	} {
		all.Go(f)
	}
	all.Wait()
	if _, err := client(t, c).Get().Resource("pods").DoRaw(t.Context()); err != nil {
		t.Error(err)
	}
}
