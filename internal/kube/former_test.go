package kube_test

import (
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/await"
	"github.com/tunneld/tunneld/internal/demo"
	"github.com/tunneld/tunneld/internal/forward"
	"github.com/tunneld/tunneld/internal/kube"
	"github.com/tunneld/tunneld/internal/status"
)

// rotate gives the kubeconfig new credentials, and makes the old ones worthless.
func (h *harness) rotate(t *testing.T) {
	t.Helper()
	h.ExpireTokens()
	err := h.WriteKubeconfig(h.kubeconfig, demo.Kubeconfig{Context: "demo", Namespace: "task-api", Token: h.IssueToken(demo.DefaultUser)})
	if err != nil {
		t.Fatal(err)
	}
	h.Reload()
}

// New credentials cost no connection that lives.
func TestRotationKeepsConnections(t *testing.T) {
	t.Parallel()
	h := newHarness(t, demo.Options{})
	h.Timing.InUse = 300 * time.Millisecond
	target := h.use("task-tcp", 9000)
	_, c := h.open(t, target)
	echo(t, c)
	for range 3 {
		h.rotate(t)
		echo(t, c)
	}
	<-c.Retiring() // nobody keeps it for later
	began := time.Now()
	await.Until(t, "it to be in use for longer than a connection is remembered", func() bool {
		return time.Since(began) > 3*h.Timing.InUse && h.Report(target.Workload).State == status.Ready
	})
	h.await(t, target.Workload, status.Ready)
	_, late := h.open(t, target)
	echo(t, late)
	echo(t, c)
	h.Use([]forward.Workload{h.workload(forward.Service, "task-db")}) // of the same cluster
	echo(t, c)                                                        // it is its owner's to close
	h.Use(nil)
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("it outlives the last forward of its cluster")
	}
}

// What was connected before is told of its pod's end.
func TestRotationKeepsAnEyeOnPods(t *testing.T) {
	t.Parallel()
	h := newHarness(t, demo.Options{})
	h.Timing = kube.Timing{Watch: 20 * time.Millisecond, Ping: 100 * time.Millisecond}
	e, c := h.open(t, h.use("task-tcp", 9000))
	echo(t, c)
	h.rotate(t)
	if err := h.AbandonPod("task-api", e.Pod); err != nil {
		t.Fatal(err)
	}
	if err := h.DeletePod("task-api", e.Pod, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, forward.ErrInterrupted) || !strings.Contains(err.Error(), "is gone, or going") {
		t.Errorf("read: %v; want ErrInterrupted, and that the pod is gone", err)
	}
}

// Connections to another API server than the kubeconfig names now are of no use.
func TestAnotherAPIServerEndsConnections(t *testing.T) {
	t.Parallel()
	h, anew := newHarness(t, demo.Options{}), newHarness(t, demo.Options{})
	h.Timing.Ping = time.Hour // or they would end because their pods are not known there
	target := h.use("task-tcp", 9000)
	_, c := h.open(t, target)
	echo(t, c)
	h.rotate(t) // also where they are of a former cluster
	_, late := h.open(t, target)
	echo(t, late)
	if err := anew.WriteKubeconfig(h.kubeconfig, demo.Kubeconfig{Context: "demo", Namespace: "task-api"}); err != nil {
		t.Fatal(err)
	}
	soon(t, "Reload", h.Reload)
	for _, c := range []net.Conn{c, late} {
		c.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a connection to the old one lives on: %v", err)
		}
	}
	_, c = h.open(t, target)
	echo(t, c)
}
