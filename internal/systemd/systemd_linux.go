package systemd

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// firstSocket is the first descriptor that is passed.
	firstSocket = 3
	// maxSockets bounds what is believed of their number.
	maxSockets = 1 << 16
	// maxRoom bounds how many sockets are kept, however many the manager would. It gives
	// their names to the next process in one variable, of which Linux takes 128 KiB: with
	// a longer one, no process could be started any more. Names that NameOf has made of
	// addresses of IPv4 have up to 26 bytes there.
	maxRoom = 5000
	// notifyTimeout bounds a notification: a manager that does not read has other
	// troubles.
	notifyTimeout = 2 * time.Second
)

// variables are those of the protocol. What this process starts is none of the
// manager's, and must not speak for it.
var variables = []string{
	"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "FDSTORE",
	"LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES",
}

// Take finds the manager in the environment, and takes what it says out of there.
// It is called once, before anything else is started.
func Take() *Manager {
	env := make(map[string]string)
	for _, name := range variables {
		env[name] = os.Getenv(name)
		os.Unsetenv(name)
	}
	m := read(env, os.Getpid())
	for _, s := range passed(env, os.Getpid()) {
		syscall.CloseOnExec(s.fd)
		if m == nil {
			syscall.Close(s.fd) // by somebody who would not keep it
			continue
		}
		m.sockets = append(m.sockets, Socket{s.name, os.NewFile(uintptr(s.fd), s.name)})
	}
	return m
}

// read reads all but the sockets.
func read(env map[string]string, pid int) *Manager {
	path := env["NOTIFY_SOCKET"]
	if !strings.HasPrefix(path, "/") && !strings.HasPrefix(path, "@") {
		return nil // of another kind, or there is none
	}
	m := &Manager{path: path}
	if n, err := strconv.Atoi(env["FDSTORE"]); err == nil && n > 0 {
		m.room = min(n, maxRoom)
	}
	if own := env["WATCHDOG_PID"]; own == "" || own == strconv.Itoa(pid) {
		us, err := strconv.ParseInt(env["WATCHDOG_USEC"], 10, 64)
		if d := time.Duration(us) * time.Microsecond; err == nil && us > 0 && d/time.Microsecond == time.Duration(us) {
			m.watchdog = d
		}
	}
	return m
}

type descriptor struct {
	fd   int
	name string
}

// passed are the descriptors that the environment names.
func passed(env map[string]string, pid int) []descriptor {
	n, err := strconv.Atoi(env["LISTEN_FDS"])
	if err != nil || n < 0 || n > maxSockets || env["LISTEN_PID"] != strconv.Itoa(pid) {
		return nil // they are for another process
	}
	names := strings.Split(env["LISTEN_FDNAMES"], ":")
	all := make([]descriptor, n)
	for i := range all {
		all[i].fd = firstSocket + i
		if len(names) == n {
			all[i].name = names[i]
		}
	}
	return all
}

// Reloading says that the configuration is read again, until Ready.
func Reloading() Notification {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return "RELOADING=1"
	}
	return Notification(fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", now.Nano()/1000))
}

// Notify tells the manager something.
func (m *Manager) Notify(what ...Notification) error {
	if m == nil {
		return nil
	}
	return m.send(nil, what...)
}

func (m *Manager) keep(name string, socket syscall.Conn) error {
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = raw.Control(func(fd uintptr) {
		sent = m.send(syscall.UnixRights(int(fd)), "FDSTORE=1", Notification("FDNAME="+name))
	})
	return errors.Join(err, sent)
}

// send waits until the manager has room for it, for a while. It does so in the kernel: a
// socket that is not connected, and others send no descriptors with net, always counts as
// writable, so that net would try again and again.
func (m *Manager) send(rights []byte, what ...Notification) error {
	text := make([]string, len(what))
	for i, w := range what {
		text[i] = string(w)
	}
	if err := sendTo(m.path, []byte(strings.Join(text, "\n")), rights); err != nil {
		return fmt.Errorf("tell the service manager: %w", err)
	}
	return nil
}

func sendTo(path string, text, rights []byte) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	limit := unix.NsecToTimeval(notifyTimeout.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	for {
		err := unix.Sendmsg(fd, text, rights, &unix.SockaddrUnix{Name: path}, unix.MSG_NOSIGNAL)
		if !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("sendmsg", err)
		}
	}
}
