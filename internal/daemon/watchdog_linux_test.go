package daemon

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/await"
	"github.com/tunneld/tunneld/internal/systemd"
)

// A deafManager is told things, and keeps nothing of it.
type deafManager struct {
	*systemd.Manager
	alive atomic.Int64
}

// PlayManager plays a service manager that says it has a store, and a watchdog.
func PlayManager(t *testing.T) *systemd.Manager { return newDeafManager(t).Manager }

func newDeafManager(t *testing.T) *deafManager {
	t.Helper()
	dir, err := os.MkdirTemp("", "tunneld") // not t.TempDir, whose names are too long for sockets
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	m, done := new(deafManager), make(chan struct{})
	go func() {
		defer close(done)
		text := make([]byte, 4096)
		for {
			n, err := c.Read(text)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if strings.HasPrefix(string(text[:n]), "WATCHDOG=1") {
				m.alive.Add(1)
			}
		}
	}()
	t.Cleanup(func() {
		c.Close()
		<-done
		os.RemoveAll(dir)
	})
	t.Setenv("NOTIFY_SOCKET", c.LocalAddr().String())
	t.Setenv("FDSTORE", "64")
	t.Setenv("WATCHDOG_USEC", "60000")
	m.Manager = systemd.Take()
	return m
}

// A daemon that hangs as it brings a plan into force gives no sign of life.
func TestWatchdogNoticesADeadlock(t *testing.T) {
	m := newDeafManager(t)
	dir := t.TempDir()
	d := &Daemon{ConfigPath: filepath.Join(dir, "config.yaml"), StateDir: filepath.Join(dir, "state"), Socket: filepath.Join(dir, "s"), Manager: m.Manager}
	if err := os.WriteFile(d.ConfigPath, []byte("version: 1\ndns: {listen: \"127.0.0.1:0\"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	started := make(chan struct{})
	d.Started = func() { close(started) }
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	<-started
	await.Until(t, "signs of life", func() bool { return m.alive.Load() >= 3 })
	d.applying.Lock()
	last, since := m.alive.Load(), time.Now()
	await.Until(t, "them to end", func() bool {
		if now := m.alive.Load(); now != last {
			last, since = now, time.Now()
		}
		return time.Since(since) > 300*time.Millisecond
	})
	d.applying.Unlock()
	await.Until(t, "signs of life again", func() bool { return m.alive.Load() > last })
}
