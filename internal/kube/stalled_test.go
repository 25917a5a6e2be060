package kube_test

import (
	"io"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/demo"
)

// A pod that takes nothing, for longer than anything else may be silent, is not
// one that is gone.
func TestStalledUploadIsNotCut(t *testing.T) {
	t.Parallel()
	h := newHarness(t, demo.Options{})
	target := h.use("task-tcp", 9000)
	e, c := h.open(t, target)
	echo(t, c)
	undo, err := h.StallPod("task-api", e.Pod)
	if err != nil {
		t.Fatal(err)
	}
	defer undo()
	const size = 32 << 20
	written := make(chan error, 1)
	go func() {
		_, err := c.Write(make([]byte, size))
		written <- err
	}()
	select {
	case err := <-written:
		t.Fatalf("while the pod took nothing, the write ended: %v", err)
	case <-time.After(2 * (quick.Ping + quick.Pong)):
	}
	undo()
	if n, err := io.CopyN(io.Discard, c, size); err != nil {
		t.Errorf("%d bytes came back: %v", n, err)
	}
	if err := <-written; err != nil {
		t.Errorf("the write: %v", err)
	}
}
