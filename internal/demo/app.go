package demo

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/tunneld/tunneld/internal/demo/internal/apiserver"
	"github.com/tunneld/tunneld/internal/demo/internal/node"
)

// An App is a workload and the Services in front of it. Its pods run the
// default program, with what Handlers add or replace.
type App struct {
	Namespace   string // "" means "default"; created if need be
	Name        string // of the workload and its Service; pods are labelled app=Name
	StatefulSet bool   // else a Deployment
	Headless    bool   // the Services have no cluster IP
	Replicas    int    // 0 means 1; use Scale for none
	// Ports are those of the Service; without any there is no Service.
	Ports []AppPort
	// Also are further Services over the same pods, by name.
	Also map[string][]AppPort
	// Bare leaves out the workload: a Service that nothing runs behind.
	Bare bool
	// Handlers serve connections to container ports. The connection is closed
	// when the handler returns, and under it when the pod stops; then it must
	// return.
	Handlers map[uint16]func(net.Conn)
	// StartDelay is how long a pod takes to become ready.
	StartDelay time.Duration
	// Grace is how long a pod goes on serving after it was told to stop by a
	// rollout, by scaling or by kubectl. With 0 its endpoint is seen to
	// terminate, and it is gone.
	Grace time.Duration
}

// An AppPort is one port of a Service.
type AppPort struct {
	Name        string
	Port        uint16 // the Service's
	Target      uint16 // the container's; 0 means Port
	TargetName  string // if set, targetPort is this name of the container's port
	AppProtocol string
	Protocol    corev1.Protocol // "" means TCP
}

// The container ports of the default program.
const (
	HTTPPort   = node.HTTPPort   // see HTTP below
	EchoPort   = node.EchoPort   // TCP: sends back what comes
	SourcePort = node.SourcePort // TCP: reads a line with a number, and sends that many bytes
	SinkPort   = node.SinkPort   // TCP: reads to the end, and answers with the count of bytes
)

// HTTP makes a handler of requests one of connections, for App.Handlers. It
// speaks HTTP/1.1, and HTTP/2 to clients that know, as HTTPPort does, which
// answers on
//
//	/health       {"status": "healthy"}
//	/bytes/N      N bytes
//	/slow/MS      after that many milliseconds
//	/sse          ten events, 200 ms apart
//	/upload       the count of the body's bytes
//	/ws           WebSocket echo
//	/status/CODE  that status
//	else          JSON: pod, host, path, method, proto and headers as they came
func HTTP(h http.Handler) func(net.Conn) { return node.HTTP(h) }

func (p AppPort) target() uint16 { return cmp.Or(p.Target, p.Port) }

// TaskAPI is the sample application: two replicas of an HTTP service, raw TCP
// ports on the same pods, a headless StatefulSet, and a Service without
// endpoints; all in namespace task-api.
func TaskAPI() []App {
	const namespace, grace = "task-api", 500 * time.Millisecond
	return []App{{
		Namespace: namespace,
		Name:      "task-api",
		Replicas:  2,
		Grace:     grace,
		Ports:     []AppPort{{Name: "http", Port: 8000, TargetName: "http"}},
		Also: map[string][]AppPort{"task-tcp": {
			{Name: "tcp-echo", Port: 9000},
			{Name: "tcp-source", Port: 9001},
			{Name: "tcp-sink", Port: 9002},
			{Name: "udp-echo", Port: 9003, Protocol: corev1.ProtocolUDP},
		}},
	}, {
		Namespace:   namespace,
		Name:        "task-db",
		Replicas:    2,
		Grace:       grace,
		StatefulSet: true,
		Headless:    true,
		Ports:       []AppPort{{Name: "tcp-db", Port: 9000}},
	}, {
		Namespace: namespace,
		Name:      "task-empty",
		Bare:      true,
		Ports:     []AppPort{{Name: "http", Port: 80}},
	}}
}

func (a *App) resource() string {
	if a.StatefulSet {
		return "statefulsets"
	}
	return "deployments"
}

// Run creates or updates apps. When it returns, their pods exist, and are
// ready unless StartDelay is set. Only the last app of a name has its Handlers
// and delays; pods that run keep theirs.
func (c *Cluster) Run(apps ...App) error {
	for _, a := range apps {
		a.Namespace = cmp.Or(a.Namespace, metav1.NamespaceDefault)
		if err := c.run(a); err != nil {
			return fmt.Errorf("run app %s/%s: %w", a.Namespace, a.Name, err)
		}
	}
	return nil
}

func (c *Cluster) run(a App) error {
	if !a.Bare {
		key := types.NamespacedName{Namespace: a.Namespace, Name: a.Name}
		if err := c.control.do(func() error {
			c.control.apps[workload{a.resource(), key}] = a
			return nil
		}); err != nil {
			return err
		}
		if err := c.Apply(a.workload()); err != nil {
			return err
		}
	}
	for name, ports := range a.services() {
		if err := c.Apply(a.service(name, ports)); err != nil {
			return err
		}
	}
	return nil
}

// services are the app's Services and their ports, by name.
func (a *App) services() map[string][]AppPort {
	all := map[string][]AppPort{}
	for name, ports := range a.Also {
		all[name] = ports
	}
	if len(a.Ports) > 0 {
		all[a.Name] = a.Ports
	}
	return all
}

func (a *App) labels() map[string]string { return map[string]string{"app": a.Name} }

func (a *App) service(name string, ports []AppPort) *corev1.Service {
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: a.Namespace, Name: name, Labels: a.labels()},
		Spec:       corev1.ServiceSpec{Selector: a.labels()},
	}
	if a.Headless {
		s.Spec.ClusterIP = corev1.ClusterIPNone
	}
	for _, p := range ports {
		port := corev1.ServicePort{Name: p.Name, Port: int32(p.Port), Protocol: p.Protocol, TargetPort: intstr.FromInt32(int32(p.target()))}
		if p.TargetName != "" {
			port.TargetPort = intstr.FromString(p.TargetName)
		}
		if p.AppProtocol != "" {
			port.AppProtocol = &p.AppProtocol
		}
		s.Spec.Ports = append(s.Spec.Ports, port)
	}
	return s
}

func (a *App) workload() apiserver.Object {
	replicas := int32(cmp.Or(a.Replicas, 1))
	meta := metav1.ObjectMeta{Namespace: a.Namespace, Name: a.Name, Labels: a.labels()}
	selector := &metav1.LabelSelector{MatchLabels: a.labels()}
	if a.StatefulSet {
		return &appsv1.StatefulSet{ObjectMeta: meta, Spec: appsv1.StatefulSetSpec{
			Replicas: &replicas, Selector: selector, Template: a.template(), ServiceName: a.Name,
		}}
	}
	return &appsv1.Deployment{ObjectMeta: meta, Spec: appsv1.DeploymentSpec{
		Replicas: &replicas, Selector: selector, Template: a.template(),
	}}
}

func (a *App) template() corev1.PodTemplateSpec {
	container := corev1.Container{Name: a.Name, Image: "tunneld.invalid/demo:1"}
	var seen []corev1.ContainerPort
	for _, ports := range a.services() {
		for _, p := range ports {
			seen = append(seen, corev1.ContainerPort{
				Name: p.TargetName, ContainerPort: int32(p.target()), Protocol: cmp.Or(p.Protocol, corev1.ProtocolTCP),
			})
		}
	}
	slices.SortFunc(seen, func(a, b corev1.ContainerPort) int {
		// Of two entries for a port the named one comes first, and stays.
		return cmp.Or(cmp.Compare(a.ContainerPort, b.ContainerPort), cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(b.Name, a.Name))
	})
	container.Ports = slices.CompactFunc(seen, func(a, b corev1.ContainerPort) bool {
		return a.ContainerPort == b.ContainerPort && a.Protocol == b.Protocol && (b.Name == "" || a.Name == b.Name)
	})
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: a.labels()},
		Spec: corev1.PodSpec{
			Containers:                    []corev1.Container{container},
			TerminationGracePeriodSeconds: new(int64(corev1.DefaultTerminationGracePeriodSeconds)),
		},
	}
}

// Remove deletes the workload of that name, its Services and its pods, these
// at once.
func (c *Cluster) Remove(namespace, name string) error {
	return c.control.do(func() error {
		for w, a := range c.control.apps {
			if w.key.Namespace != namespace || w.key.Name != name {
				continue
			}
			delete(c.control.apps, w)
			c.store.Remove(w.resource, w.key)
			for service := range a.services() {
				c.store.Remove("services", types.NamespacedName{Namespace: namespace, Name: service})
			}
			c.control.endAll(namespace, labelled(name))
			return nil
		}
		return fmt.Errorf("no app %s/%s runs", namespace, name)
	})
}

// Scale sets how many replicas a Deployment or StatefulSet shall have. When it
// returns, new pods exist; what is too many has been told to stop.
func (c *Cluster) Scale(namespace, name string, replicas int) error {
	return c.control.change(namespace, name, func(s *int32, _ *corev1.PodTemplateSpec) { *s = int32(replicas) })
}

// Restart replaces the pods of a Deployment or StatefulSet one by one, as
// "kubectl rollout restart" does, and returns when that is done: never, if the
// new ones do not become ready.
func (c *Cluster) Restart(namespace, name string) error {
	err := c.control.change(namespace, name, func(_ *int32, t *corev1.PodTemplateSpec) {
		if t.Annotations == nil {
			t.Annotations = map[string]string{}
		}
		t.Annotations["kubectl.kubernetes.io/restartedAt"] = time.Now().Format(time.RFC3339Nano)
	})
	if err != nil {
		return err
	}
	for {
		changed := c.store.Wait()
		if done, err := c.control.rolled(namespace, name); done || err != nil {
			return err
		}
		select {
		case <-changed:
		case <-c.control.closing:
			return ErrClosed
		}
	}
}

// Pods returns the names of an app's pods that are there, those on their way
// out included.
func (c *Cluster) Pods(namespace, app string) []string {
	pods, _ := c.store.List("pods", namespace, labelled(app))
	names := make([]string, 0, len(pods))
	for _, p := range pods {
		names = append(names, p.GetName())
	}
	return names
}

func labelled(app string) func(apiserver.Object) bool {
	return func(o apiserver.Object) bool { return o.GetLabels()["app"] == app }
}

// PodUID returns the uid of a pod, or "" if there is none of that name.
func (c *Cluster) PodUID(namespace, name string) string {
	if p := c.store.Get("pods", namespace, name); p != nil {
		return string(p.GetUID())
	}
	return ""
}

var errNoWorkload = errors.New("no such Deployment or StatefulSet")
