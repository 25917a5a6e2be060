//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/status"
)

// A port that nothing listens on is a reset for its client and a fault in the
// status, and hurts no other port.
func TestRefusedPort(t *testing.T) {
	settle(t)
	u := newUser(t, 0)
	u.start()
	u.run("tunnelctl", "add", "task-tcp", "--wait")
	f := u.status("task-tcp")
	c, err := net.Dial("tcp", listen(t, f, 9009))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read: %v; want a reset", err)
	}
	u.awaitState("task-tcp", status.Degraded)
	if cause := u.status("task-tcp").Cause; !strings.Contains(cause, "refuses connections to port 9009") {
		t.Errorf("the cause is %q", cause)
	}
	if err := echo(listen(t, f, 9000)); err != nil {
		t.Error(err)
	}
}

// A download whose pod is deleted ends, and not as if it were complete, though
// the node takes the pod's network away with bytes on their way.
func TestPodDeletedDuringADownload(t *testing.T) {
	settle(t)
	u := newUser(t, 0)
	u.start()
	u.run("tunnelctl", "add", "task-tcp", "--wait")
	c, err := net.Dial("tcp", listen(t, u.status("task-tcp"), 9001))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(30 * time.Second))
	fmt.Fprintln(c, 1<<30)
	if _, err := io.CopyN(io.Discard, c, 1<<20); err != nil {
		t.Fatal(err)
	}
	// Nothing is read meanwhile, so that everything on the way is full.
	kubectl(t, "-n", namespace, "delete", "pods", "-l", "app=task-api", "--grace-period=1")
	began := time.Now() // a cluster whose API server was killed lately takes a minute to delete a pod
	c.SetDeadline(began.Add(90 * time.Second))
	n, err := io.Copy(io.Discard, c)
	t.Logf("%d bytes more, then %v after %v", n, err, time.Since(began))
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after %d bytes: %v; want a reset", n, err)
	}
}
