package kube_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/await"
	"github.com/tunneld/tunneld/internal/demo"
	"github.com/tunneld/tunneld/internal/forward"
	"github.com/tunneld/tunneld/internal/kube"
)

// Many clients that end badly hurt no other, and leave nothing behind.
func TestStorms(t *testing.T) { // not beside others, which it would starve
	const clients = 60
	tests := []struct {
		name string
		port uint16
		do   func(c *net.TCPConn) error
	}{
		{"clients that end with RST", 9000, func(c *net.TCPConn) error {
			if _, err := io.WriteString(c, "hello"); err != nil {
				return err
			}
			return c.SetLinger(0)
		}},
		{"clients that end at once", 9000, func(*net.TCPConn) error { return nil }},
		{"clients that leave an answer unread", 9001, func(c *net.TCPConn) error {
			_, err := io.WriteString(c, "100000\n")
			return err
		}},
		{"a port that refuses", 9009, func(c *net.TCPConn) error {
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				return fmt.Errorf("read: %v; want a reset", err)
			}
			return nil
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHarness(t, demo.Options{Linger: 10 * time.Millisecond})
			h.Timing = kube.Timing{} // which is patient
			target := h.use("task-tcp", tt.port)
			if tt.port == 9009 { // the Service has no such port, but its pods may be asked for it
				w := h.workload(forward.Deployment, "task-api")
				h.Use([]forward.Workload{w, target.Workload})
				target.Workload = w
			}
			bystander := forward.Target{Workload: target.Workload, Port: 9000}
			_, other := h.open(t, bystander)
			set, addr := h.serve(t, target)
			var running sync.WaitGroup
			each := make(chan struct{}, 16) // at a time
			for range clients {
				each <- struct{}{}
				running.Go(func() {
					defer func() { <-each }()
					c, err := net.Dial("tcp", addr)
					if errors.Is(err, syscall.ECONNRESET) && tt.port == 9009 {
						return // so early that the dial sees it
					}
					if err != nil {
						t.Error(err)
						return
					}
					defer c.Close()
					if err := tt.do(c.(*net.TCPConn)); err != nil {
						t.Error(err)
					}
				})
			}
			running.Wait()
			echo(t, other)
			_, fresh := h.open(t, bystander)
			echo(t, fresh)
			await.Until(t, "all to have ended", func() bool {
				c := set.Meters.Of("f").Counts()
				return c.Active == 0 && c.Total == clients
			})
			// What is kept for either pod, and what the two others use.
			await.Until(t, "few upgraded connections to be left", func() bool { return len(h.Upgrades()) <= 2*32+2 })
		})
	}
}
