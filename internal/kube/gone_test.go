package kube_test

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tunneld/tunneld/internal/await"
	"github.com/tunneld/tunneld/internal/demo"
	"github.com/tunneld/tunneld/internal/forward"
	"github.com/tunneld/tunneld/internal/kube"
)

// A connection that hears nothing of its pod's end is ended; one whose pod has
// only left the Service is not.
func TestPodThatNoWorkloadHas(t *testing.T) {
	t.Parallel()
	leaves := func(t *testing.T, h *harness, name string) {
		pod, err := getPod(h.RESTConfig(), "task-api", name)
		if err != nil {
			t.Fatal(err)
		}
		pod.Labels = nil
		if err := h.Apply(pod); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name   string
		happen func(t *testing.T, h *harness, pod string)
		ends   bool
	}{
		{"deleted", func(t *testing.T, h *harness, pod string) {
			if err := h.DeletePod("task-api", pod, 0); err != nil {
				t.Fatal(err)
			}
		}, true},
		{"ended", func(t *testing.T, h *harness, name string) {
			pod, err := getPod(h.RESTConfig(), "task-api", name)
			if err != nil {
				t.Fatal(err)
			}
			pod.Labels, pod.OwnerReferences = nil, nil
			pod.Status.Phase = corev1.PodFailed
			if err := h.Apply(pod); err != nil {
				t.Fatal(err)
			}
		}, true},
		{"replaced under its name", func(t *testing.T, h *harness, name string) {
			pod, err := getPod(h.RESTConfig(), "task-api", name)
			if err != nil {
				t.Fatal(err)
			}
			if err := h.DeletePod("task-api", name, 0); err != nil {
				t.Fatal(err)
			}
			pod.ObjectMeta = metav1.ObjectMeta{Namespace: "task-api", Name: name}
			if err := h.Apply(pod); err != nil {
				t.Fatal(err)
			}
		}, true},
		{"not in the Service any more", leaves, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, demo.Options{})
			h.Timing = kube.Timing{Watch: 20 * time.Millisecond, Ping: 100 * time.Millisecond}
			target := h.use("task-tcp", 9000)
			e, c := h.open(t, target)
			echo(t, c)
			if err := h.AbandonPod("task-api", e.Pod); err != nil {
				t.Fatal(err)
			}
			tt.happen(t, h, e.Pod)
			if !tt.ends {
				await.Until(t, "it to be asked for three times", func() bool { return gets(h, e.Pod) >= 3 })
				echo(t, c)
				return
			}
			_, err := c.Read(make([]byte, 1))
			said, ok := errors.AsType[*forward.Error](err)
			if !ok || !errors.Is(err, forward.ErrInterrupted) || !strings.Contains(said.Cause, e.Pod+" is gone, or going") {
				t.Errorf("read: %v; want ErrInterrupted, and that the pod is gone", err)
			}
			if _, err := io.WriteString(c, "x"); err == nil {
				t.Error("a write to a pod that is gone works")
			}
		})
	}
}

// gets counts how often a pod was read by name.
func gets(h *harness, pod string) int {
	n := 0
	for _, r := range h.Requests() {
		if r.Verb == "get" && r.Resource == "pods" && r.Subresource == "" && r.Name == pod {
			n++
		}
	}
	return n
}
