package kube_test

import (
	"context"
	"errors"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tunneld/tunneld/internal/await"
	"github.com/tunneld/tunneld/internal/demo"
	"github.com/tunneld/tunneld/internal/forward"
	"github.com/tunneld/tunneld/internal/kube"
	"github.com/tunneld/tunneld/internal/status"
)

// What names a pod leads there, however busy it is, and to who comes after it.
func TestPodByName(t *testing.T) {
	t.Parallel()
	for _, kind := range []forward.Kind{forward.Service, forward.StatefulSet} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, demo.Options{})
			w := h.workload(kind, "task-db")
			h.Use([]forward.Workload{w})
			before := make(map[string]string) // UIDs by pod
			for _, pod := range []string{"task-db-0", "task-db-1"} {
				for range 4 {
					e, c := h.open(t, forward.Target{Workload: w, Pod: pod, Port: 9000})
					echo(t, c)
					if before[pod] = e.UID; e.Pod != pod {
						t.Errorf("%s leads to %s", pod, e.Pod)
					}
				}
			}
			if err := h.DeletePod("task-api", "task-db-0", 0); err != nil {
				t.Fatal(err)
			}
			await.Until(t, "the pod's successor", func() bool {
				e, err := h.Pick(t.Context(), forward.Target{Workload: w, Pod: "task-db-0", Port: 9000})
				if err != nil || e.Pod != "task-db-0" {
					t.Fatalf("task-db-0 leads to %q, %v", e.Pod, err)
				}
				return e.UID != before["task-db-0"]
			})
			_, c := h.open(t, forward.Target{Workload: w, Pod: "task-db-0", Port: 9000})
			echo(t, c)
		})
	}
}

// A pod that is away is waited for, though another one could be had.
func TestPodByNameWaits(t *testing.T) {
	t.Parallel()
	h := newHarness(t, demo.Options{})
	w := h.use("task-db", 9000).Workload
	h.await(t, w, status.Idle)
	if err := h.SetReady("task-api", "task-db-0", false); err != nil {
		t.Fatal(err)
	}
	await.Until(t, "the pod to be seen unready", func() bool { return h.Report(w).Ready == 1 })
	over, end := context.WithCancel(t.Context())
	end() // who is asked with it says at once why it would wait
	_, err := h.Pick(over, forward.Target{Workload: w, Pod: "task-db-0", Port: 9000})
	if e, ok := errors.AsType[*forward.Error](err); !ok || !errors.Is(err, forward.ErrUnavailable) || e.State != status.NoEndpoints ||
		e.Cause != "pod task-db-0 of service/task-db is not ready" || e.Hint == "" {
		t.Errorf("%#v; want ErrUnavailable, that the pod is not ready, and a hint", err)
	}

	picked := make(chan forward.Endpoint, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	go func() {
		e, err := h.Pick(ctx, forward.Target{Workload: w, Pod: "task-db-0", Port: 9000})
		if err != nil {
			t.Error(err)
		}
		picked <- e
	}()
	_, c := h.open(t, forward.Target{Workload: w, Pod: "task-db-1", Port: 9000})
	echo(t, c)
	select {
	case e := <-picked:
		t.Fatalf("it leads to %+v, and its pod is not ready", e)
	default:
	}
	if err := h.SetReady("task-api", "task-db-0", true); err != nil {
		t.Fatal(err)
	}
	if e := <-picked; e.Pod != "task-db-0" {
		t.Errorf("it leads to %s", e.Pod)
	}
}

// A pod that is going away is as good as gone: another one comes under its name.
func TestPodByNameWaitsForTheNext(t *testing.T) {
	t.Parallel()
	h := newHarness(t, demo.Options{})
	target := h.use("task-db", 9000)
	target.Pod = "task-db-0"
	e, c := h.open(t, target)
	echo(t, c)
	if err := h.DeletePod("task-api", "task-db-0", time.Hour); err != nil {
		t.Fatal(err)
	}
	<-c.Retiring()
	over, end := context.WithCancel(t.Context())
	end()
	if e, err := h.Pick(over, target); !errors.Is(err, forward.ErrUnavailable) {
		t.Errorf("it leads to %+v, %v; want ErrUnavailable", e, err)
	}
	echo(t, c) // the connection that it has lives on
	if err := h.DeletePod("task-api", "task-db-0", 0); err != nil {
		t.Fatal(err)
	}
	next, c := h.open(t, target)
	if echo(t, c); next.Pod != "task-db-0" || next.UID == e.UID {
		t.Errorf("it leads to %+v, after %+v", next, e)
	}
}

// The same port of the Service is another one in each of its pods.
func TestPodByNameHasItsOwnTargetPort(t *testing.T) {
	t.Parallel()
	h := newHarness(t, demo.Options{})
	objects := []*discoveryv1.EndpointSlice{
		handmade("one", "first", "task-db-0", 9000),
		handmade("two", "second", "task-db-1", 9001),
	}
	err := h.Apply(&corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "task-api", Name: "by-hand"},
		Spec:       corev1.ServiceSpec{ClusterIP: corev1.ClusterIPNone, Ports: []corev1.ServicePort{{Port: 80}}},
	}, objects[0], objects[1])
	if err != nil {
		t.Fatal(err)
	}
	target := h.use("by-hand", 80)
	for pod, want := range map[string]forward.Endpoint{
		"first": {Pod: "task-db-0", Port: 9000}, "second": {Pod: "task-db-1", Port: 9001},
	} {
		target.Pod = pod
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		e, err := h.Pick(ctx, target)
		if err != nil || e.Pod != want.Pod || e.Port != want.Port {
			t.Errorf("%s leads to port %d of %s, %v; want port %d of %s", pod, e.Port, e.Pod, err, want.Port, want.Pod)
		}
	}
	want := []kube.Pod{{Hostname: "first", Ready: true}, {Hostname: "second", Ready: true}}
	if got := h.Report(target.Workload).Pods; len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("pods %v; want %v", got, want)
	}
}

// handmade is a slice of Service by-hand with one pod, under a name that is not
// the pod's.
func handmade(name, hostname, pod string, port int32) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "task-api", Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: "by-hand"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints: []discoveryv1.Endpoint{{
			Addresses: []string{"10.0.0.1"}, Hostname: &hostname,
			TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: "task-api", Name: pod, UID: "any"},
		}},
		Ports: []discoveryv1.EndpointPort{{Name: new(""), Port: &port}},
	}
}

// As long as the pods have not been seen, nobody knows that they have no names.
func TestReportIsWhole(t *testing.T) {
	t.Parallel()
	h := newHarness(t, demo.Options{})
	undo := h.Forbid(demo.Rule{Verb: "*", Resource: "endpointslices"})
	w := h.use("task-db", 9000).Workload
	await.Until(t, "the Service to be seen", func() bool { return h.Report(w).Seen })
	if r := h.Report(w); r.Whole || len(r.Pods) > 0 {
		t.Errorf("%+v; want it not to be whole", r)
	}
	undo()
	await.Until(t, "its pods to be seen", func() bool { return h.Report(w).Whole })
	if r := h.Report(w); len(r.Pods) != 2 {
		t.Errorf("it is whole with the pods %v", r.Pods)
	}
}
