//go:build linux

// Package handover_test restarts the real daemon as a service manager would, under
// load. The manager is played: it keeps descriptors as systemd does.
package handover_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/await"
	"github.com/tunneld/tunneld/internal/demo"
	"github.com/tunneld/tunneld/test/internal/built"
)

// bin is where the daemon is.
var bin string

func TestMain(m *testing.M) {
	demo.RedirectKlog(nil)
	os.Exit(built.Main(m, &bin, "../../cmd/tunneld"))
}

// A manager plays systemd for one service.
type manager struct {
	dir    string
	room   int // of the store
	socket *net.UnixConn
	read   sync.WaitGroup
	cmd    *exec.Cmd
	ended  chan error
	log    bytes.Buffer // of the daemon; only while none runs
	unread bool         // the log has nobody who reads it

	mu     sync.Mutex // guards the following
	kept   []kept
	deaf   bool // to what shall not be kept any more
	ready  bool // since the start
	alive  int  // signs of life
	status string
	wrong  []string
}

type kept struct {
	name string
	file *os.File
}

func newManager(t *testing.T, dir string) *manager {
	t.Helper()
	m := &manager{dir: dir, room: 4096}
	var err error
	m.socket, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	m.read.Go(m.listen)
	t.Cleanup(func() {
		m.stop(os.Kill)
		m.socket.Close()
		m.read.Wait()
		m.discard()
		if len(m.wrong) > 0 {
			t.Errorf("told the manager: %q", m.wrong)
		}
		if t.Failed() {
			t.Logf("the last daemon said:\n%s", m.log.String())
		}
	})
	return m
}

// discard is what systemd does with the store of a service that is stopped for good.
func (m *manager) discard() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range m.kept {
		k.file.Close()
	}
	m.kept = nil
}

// listen hears what the daemon says.
func (m *manager) listen() {
	text, oob := make([]byte, 4096), make([]byte, syscall.CmsgSpace(16))
	for {
		n, oobn, _, _, err := m.socket.ReadMsgUnix(text, oob)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		m.hear(strings.Split(string(text[:n]), "\n"), files(oob[:oobn]))
	}
}

func files(oob []byte) []*os.File {
	messages, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	var all []*os.File
	for _, m := range messages {
		fds, err := syscall.ParseUnixRights(&m)
		if err != nil {
			continue
		}
		for _, fd := range fds {
			all = append(all, os.NewFile(uintptr(fd), "kept"))
		}
	}
	return all
}

func (m *manager) hear(lines []string, passed []*os.File) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var name string
	var store, remove bool
	for _, line := range lines {
		key, value, _ := strings.Cut(line, "=")
		switch key {
		case "READY":
			m.ready = true
		case "WATCHDOG":
			m.alive++
		case "STATUS":
			m.status = value
		case "FDNAME":
			name = value
		case "FDSTORE":
			store = true
		case "FDSTOREREMOVE":
			remove = true
		case "STOPPING", "RELOADING", "MONOTONIC_USEC":
		default:
			m.wrong = append(m.wrong, line)
		}
	}
	switch has := func(k kept) bool { return k.name == name }; {
	case store && (len(passed) != 1 || name == "" || strings.Contains(name, ":") || !m.deaf && slices.ContainsFunc(m.kept, has)):
		m.wrong = append(m.wrong, fmt.Sprintf("keep %d as %q", len(passed), name))
	case store && len(m.kept) < m.room:
		m.kept = append(m.kept, kept{name, passed[0]})
		return
	case remove && !m.deaf:
		m.kept = slices.DeleteFunc(m.kept, func(k kept) bool {
			if has(k) {
				k.file.Close()
			}
			return has(k)
		})
	}
	for _, f := range passed {
		f.Close()
	}
}

// names are those that are kept.
func (m *manager) names() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []string
	for _, k := range m.kept {
		all = append(all, k.name)
	}
	return all
}

func (m *manager) has(name string) bool { return slices.Contains(m.names(), name) }

// start starts the daemon, with what is kept, and waits until it is ready.
func (m *manager) start(t *testing.T, args ...string) {
	t.Helper()
	m.launch(t, args...)
	await.Until(t, "the daemon to be ready", func() bool {
		select {
		case err := <-m.ended:
			m.ended <- err
			t.Fatalf("the daemon ended: %v\n%s", err, m.log.String())
		default:
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.ready
	})
}

func (m *manager) launch(t *testing.T, args ...string) {
	t.Helper()
	args = append([]string{
		"-c", `export LISTEN_PID=$$ WATCHDOG_PID=$$; exec "$0" "$@"`, filepath.Join(bin, "tunneld"),
		"run", "--service", "--helper", "none", "--socket", filepath.Join(m.dir, "sock"),
		"--config", filepath.Join(m.dir, "config.yaml"), "--state-dir", filepath.Join(m.dir, "state"),
	}, args...)
	m.cmd = exec.Command("/bin/sh", args...)
	m.mu.Lock()
	defer m.mu.Unlock() // what is kept is not closed before it is passed
	m.ready = false
	var names []string
	for _, k := range m.kept {
		names = append(names, k.name)
		m.cmd.ExtraFiles = append(m.cmd.ExtraFiles, k.file)
	}
	m.cmd.Env = []string{
		"HOME=" + m.dir, "PATH=" + os.Getenv("PATH"),
		"NOTIFY_SOCKET=" + m.socket.LocalAddr().String(), "WATCHDOG_USEC=600000", "FDSTORE=" + strconv.Itoa(m.room),
		"LISTEN_FDS=" + strconv.Itoa(len(names)), "LISTEN_FDNAMES=" + strings.Join(names, ":"),
	}
	m.log.Reset()
	m.cmd.Stderr = &m.log
	if m.unread {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
		defer w.Close()
		m.cmd.Stderr = w
	}
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	cmd := m.cmd
	m.ended = make(chan error, 1)
	go func() { m.ended <- cmd.Wait() }()
}

// stop ends the daemon, and returns how it went.
func (m *manager) stop(sig os.Signal) error {
	if m.cmd == nil {
		return nil
	}
	m.cmd.Process.Signal(sig)
	m.cmd = nil
	select {
	case err := <-m.ended:
		return err
	case <-time.After(20 * time.Second):
		return errors.New("it did not end")
	}
}
