//go:build unix

package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/syslog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// activated is the socket that systemd has passed (sd_listen_fds(3)). What says
// so is taken out of the environment: it is not for the programs that are run.
func activated() (*net.UnixListener, error) {
	pid, count := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS")
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		os.Unsetenv(name)
	}
	if pid != strconv.Itoa(os.Getpid()) || count == "" {
		return nil, &mistake{"no socket has been passed", "systemd does so, or name one with --socket"}
	}
	if count != "1" {
		return nil, fmt.Errorf("systemd has passed %s sockets, not one", count)
	}
	f := os.NewFile(3, "passed")
	defer f.Close()
	return passed(f, "systemd")
}

// standardInput is the socket that inetd has passed, or launchd, which cannot be
// asked for it without C. It is taken off all three standard files, of which
// programs that are run would inherit it.
func standardInput() (*net.UnixListener, error) {
	if !isSocket(os.Stdin) {
		return nil, &mistake{"no socket has been passed as standard input", "launchd does so, or name one with --socket"}
	}
	l, err := passed(os.Stdin, "launchd")
	if err != nil {
		return nil, err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		l.Close()
		return nil, err
	}
	defer null.Close()
	for _, f := range []*os.File{os.Stdin, os.Stdout, os.Stderr} {
		if !isSocket(f) {
			continue
		}
		if err := unix.Dup2(int(null.Fd()), int(f.Fd())); err != nil {
			l.Close()
			return nil, fmt.Errorf("close %s: %w", f.Name(), err)
		}
	}
	return l, nil
}

// passed is a copy, which is close-on-exec, of the socket that somebody has passed.
func passed(f *os.File, by string) (*net.UnixListener, error) {
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("the socket that %s has passed: %w", by, err)
	}
	u, ok := l.(*net.UnixListener)
	if !ok {
		l.Close()
		return nil, fmt.Errorf("%s has passed a %T, not a unix socket", by, l)
	}
	return u, nil
}

func isSocket(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode().Type() == fs.ModeSocket
}

// systemLog is the system's log, or otherwise if there is none.
func systemLog(otherwise io.Writer) io.Writer {
	w, err := syslog.New(syslog.LOG_DAEMON|syslog.LOG_NOTICE, "tunneld-helper")
	if err != nil {
		return otherwise
	}
	return w
}

// listen makes the socket at path, for the user only. A socket on which nobody
// answers is replaced.
func listen(path string, uid uint32) (*net.UnixListener, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if err := onlyOurs(dir); err != nil {
		return nil, err
	}
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() != fs.ModeSocket {
		return nil, errors.New("something is in the way that is no socket")
	}
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
		return nil, errors.New("another helper answers there")
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	old := syscall.Umask(0o177) // there is no moment in which others could connect
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	syscall.Umask(old)
	if err != nil {
		return nil, err
	}
	if err := os.Lchown(path, int(uid), -1); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// onlyOurs returns an error if somebody else can rename what is in the directory, or
// the directory itself: root gives the socket to the user by its name.
func onlyOurs(dir string) error {
	dir, err := filepath.EvalSymlinks(dir)
	if err == nil {
		dir, err = filepath.Abs(dir)
	}
	if err != nil {
		return err
	}
	for ; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return err
		}
		if uid := info.Sys().(*syscall.Stat_t).Uid; uid != 0 && int(uid) != os.Geteuid() {
			return fmt.Errorf("directory %s is user %d's", dir, uid)
		}
		if info.Mode().Perm()&0o022 != 0 && info.Mode()&fs.ModeSticky == 0 {
			return fmt.Errorf("directory %s may be written by others (mode %v)", dir, info.Mode().Perm())
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}
