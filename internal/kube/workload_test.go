package kube

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func endpoint(pod string, set func(*discoveryv1.Endpoint)) discoveryv1.Endpoint {
	e := discoveryv1.Endpoint{
		Addresses: []string{"10.0.0.1"},
		TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: pod, UID: types.UID(pod + "-uid")},
	}
	if set != nil {
		set(&e)
	}
	return e
}

func conditions(ready, serving, terminating bool) func(*discoveryv1.Endpoint) {
	return func(e *discoveryv1.Endpoint) {
		e.Conditions = discoveryv1.EndpointConditions{Ready: &ready, Serving: &serving, Terminating: &terminating}
	}
}

func named(hostname string) func(*discoveryv1.Endpoint) {
	return func(e *discoveryv1.Endpoint) { e.Hostname = &hostname }
}

// slice has ports given as name and number.
func slice(ports map[string]int32, es ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{AddressType: discoveryv1.AddressTypeIPv4, Endpoints: es}
	for name, number := range ports {
		s.Ports = append(s.Ports, discoveryv1.EndpointPort{Name: &name, Port: &number})
	}
	return s
}

func service(ports ...corev1.ServicePort) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "app"}, Spec: corev1.ServiceSpec{Ports: ports}}
}

func TestViewService(t *testing.T) {
	http := corev1.ServicePort{Name: "http", Port: 80}
	proto := "kubernetes.io/h2c"
	both := service(http, corev1.ServicePort{Name: "admin", Port: 81})
	to := func(target uint16) map[uint16]uint16 { return map[uint16]uint16{80: target} }
	tests := []struct {
		name string
		svc  *corev1.Service
		eps  []*discoveryv1.EndpointSlice
		want view
	}{
		{"named target port", service(http), []*discoveryv1.EndpointSlice{
			slice(map[string]int32{"http": 8080}, endpoint("a", nil)),
		}, view{
			ports:    []Port{{Name: "http", Number: 80}},
			backends: []backend{{pod: "a", uid: "a-uid", ready: true, serving: true, ports: to(8080)}},
		}},
		{"the only port has no name", service(corev1.ServicePort{Port: 80}), []*discoveryv1.EndpointSlice{
			slice(map[string]int32{"": 8080}, endpoint("a", nil)),
		}, view{
			ports:    []Port{{Number: 80}},
			backends: []backend{{pod: "a", uid: "a-uid", ready: true, serving: true, ports: to(8080)}},
		}},
		{"target ports differ between pods", both, []*discoveryv1.EndpointSlice{
			slice(map[string]int32{"http": 8080, "admin": 9090}, endpoint("new", nil)),
			slice(map[string]int32{"http": 80}, endpoint("old", nil)),
		}, view{
			ports: []Port{{Name: "http", Number: 80}, {Name: "admin", Number: 81}},
			backends: []backend{
				{pod: "new", uid: "new-uid", ready: true, serving: true, ports: map[uint16]uint16{80: 8080, 81: 9090}},
				{pod: "old", uid: "old-uid", ready: true, serving: true, ports: to(80)},
			},
		}},
		{"a pod in two slices counts once", both, []*discoveryv1.EndpointSlice{
			slice(map[string]int32{"http": 8080}, endpoint("a", conditions(false, false, false))),
			slice(map[string]int32{"admin": 9090}, endpoint("a", nil)),
		}, view{
			ports:    []Port{{Name: "http", Number: 80}, {Name: "admin", Number: 81}},
			backends: []backend{{pod: "a", uid: "a-uid", ready: true, serving: true, ports: map[uint16]uint16{80: 8080, 81: 9090}}},
		}},
		{"names of pods", service(http), []*discoveryv1.EndpointSlice{
			slice(map[string]int32{"http": 1}, endpoint("app-0", named("app-0")), endpoint("stray", nil)),
			slice(nil, endpoint("app-0", nil)),
		}, view{
			ports: []Port{{Name: "http", Number: 80}},
			backends: []backend{
				{pod: "app-0", uid: "app-0-uid", hostname: "app-0", ready: true, serving: true, ports: to(1)},
				{pod: "stray", uid: "stray-uid", ready: true, serving: true, ports: to(1)},
			},
		}},
		{"conditions", service(http), []*discoveryv1.EndpointSlice{
			slice(map[string]int32{"http": 1},
				endpoint("going", conditions(false, true, true)),
				endpoint("gone", conditions(false, false, true)),
				endpoint("starting", conditions(false, false, false))),
		}, view{
			ports: []Port{{Name: "http", Number: 80}},
			backends: []backend{
				{pod: "going", uid: "going-uid", serving: true, terminating: true, ports: to(1)},
				{pod: "gone", uid: "gone-uid", terminating: true, ports: to(1)},
				{pod: "starting", uid: "starting-uid", ports: to(1)},
			},
		}},
		{"without a selector, by the pod's IP", service(http), []*discoveryv1.EndpointSlice{
			slice(map[string]int32{"http": 1},
				endpoint("", func(e *discoveryv1.Endpoint) { e.TargetRef, e.Addresses = nil, []string{"10.9.9.9"} }),
				endpoint("", func(e *discoveryv1.Endpoint) { e.TargetRef, e.Addresses = nil, []string{"192.0.2.1"} }),
				endpoint("", func(e *discoveryv1.Endpoint) { e.TargetRef.Kind, e.Addresses = "Node", []string{"192.0.2.2"} })),
		}, view{
			ports:    []Port{{Name: "http", Number: 80}},
			backends: []backend{{pod: "by-ip", uid: "by-ip-uid", ready: true, serving: true, ports: to(1)}},
			strays:   []string{"192.0.2.1", "192.0.2.2"},
		}},
		{"UDP is named, not carried", service(corev1.ServicePort{Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP}, http), nil, view{
			ports:  []Port{{Name: "http", Number: 80}},
			others: []otherPort{{"dns", 53, corev1.ProtocolUDP}},
		}},
		{"UDP only", service(corev1.ServicePort{Port: 53, Protocol: corev1.ProtocolUDP}), nil, view{
			others:   []otherPort{{number: 53, protocol: corev1.ProtocolUDP}},
			obstacle: "service/app has no TCP port: port-forward carries TCP only",
		}},
		{"ExternalName", &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Name: "app"},
			Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "example.com"},
		}, nil, view{
			obstacle: "service/app is of type ExternalName (example.com): it has no pods, and port-forward goes to pods only",
		}},
		{"application protocol", service(corev1.ServicePort{Name: "grpc", Port: 80, AppProtocol: &proto}), nil, view{
			ports: []Port{{Name: "grpc", Number: 80, AppProtocol: "kubernetes.io/h2c"}},
		}},
		{"nothing selected", service(http), nil, view{ports: []Port{{Name: "http", Number: 80}}}},
	}
	podAt := func(ip string) (*corev1.Pod, bool) {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "by-ip", UID: "by-ip-uid"}}
		return pod, ip == "10.9.9.9"
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.want.exists, tt.want.subdomain = true, "app"
			got := viewService(tt.svc, tt.eps, podAt)
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(view{}, backend{}, otherPort{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestViewTemplate(t *testing.T) {
	pod := func(name string, set func(*corev1.Pod)) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), Labels: map[string]string{"app": "web"}}}
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		if set != nil {
			set(p)
		}
		return p
	}
	always := corev1.ContainerRestartPolicyAlways
	template := corev1.PodSpec{
		InitContainers: []corev1.Container{{RestartPolicy: &always, Ports: []corev1.ContainerPort{{Name: "proxy", ContainerPort: 15000}}}},
		Containers: []corev1.Container{{Ports: []corev1.ContainerPort{
			{Name: "http", ContainerPort: 8080}, {ContainerPort: 8080}, {Name: "dns", ContainerPort: 53, Protocol: corev1.ProtocolUDP},
		}}},
	}
	got := viewTemplate(&metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}, template, []*corev1.Pod{
		pod("ready", nil),
		pod("not-ready", func(p *corev1.Pod) { p.Status.Conditions = nil }),
		pod("going", func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{} }),
		pod("failed", func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }),
		pod("other", func(p *corev1.Pod) { p.Labels = nil }),
	})
	want := view{
		exists: true,
		ports:  []Port{{Name: "proxy", Number: 15000}, {Name: "http", Number: 8080}},
		others: []otherPort{{"dns", 53, corev1.ProtocolUDP}},
		backends: []backend{
			{pod: "going", uid: "going", serving: true, terminating: true},
			{pod: "not-ready", uid: "not-ready"},
			{pod: "ready", uid: "ready", ready: true, serving: true},
		},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(view{}, backend{}, otherPort{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Only the set's own pods have names, and they have them from the set.
func TestViewStatefulSet(t *testing.T) {
	set := &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Name: "db", UID: "set"},
		Spec:       appsv1.StatefulSetSpec{ServiceName: "peers", Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "db"}}},
	}
	pod := func(name string, owner types.UID) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), Labels: map[string]string{"app": "db"}}}
		p.Spec.Hostname = name
		p.OwnerReferences = []metav1.OwnerReference{{UID: owner, Controller: new(true)}}
		return p
	}
	got := viewStatefulSet(set, []*corev1.Pod{pod("db-0", "set"), pod("other-0", "another"), pod("db-1", "set")})
	want := view{exists: true, subdomain: "peers", backends: []backend{
		{pod: "db-0", uid: "db-0", hostname: "db-0"}, {pod: "db-1", uid: "db-1", hostname: "db-1"}, {pod: "other-0", uid: "other-0"},
	}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(view{}, backend{}, otherPort{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
