//go:build unix

package rootapi

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// asClient, if set, is the socket for which the test binary is a client.
	asClient = "HELPER_TEST_SOCKET"
	// toDo is what it does: see client.
	toDo = "HELPER_TEST_DO"
	// inNamespace is set for a test that runs in a network namespace of its own.
	inNamespace = "HELPER_TEST_NAMESPACE"

	nobody = 65534
)

// client is another process: it says what became of what it did.
func client(socket string) int {
	c := &Client{Socket: socket}
	switch do := os.Getenv(toDo); do {
	case "release":
		fmt.Println(c.Release(context.Background()))
	case "be root": // which it is not
		l, err := net.Listen("unix", socket)
		fmt.Println(err)
		io.Copy(io.Discard, os.Stdin)
		if err == nil {
			l.Close()
		}
	case "hold": // all that could be a lock in the directory
		fmt.Println(hold(socket))
		io.Copy(io.Discard, os.Stdin)
	default: // an address to listen on
		l, err := c.Listen(context.Background(), netip.MustParseAddrPort(do))
		if err != nil {
			fmt.Println(err)
			return 0
		}
		fmt.Println(l.Addr())
		conn, err := l.Accept()
		if err != nil {
			fmt.Println(err)
			return 1
		}
		fmt.Fprintf(conn, "user %d", os.Getuid())
		conn.Close()
		l.Close()
	}
	return 0
}

// hold takes the locks of a directory and of what is in it, as far as it may, and
// keeps them until the process ends.
func hold(dir string) error {
	inside, err := filepath.Glob(filepath.Join(dir, "*"))
	for _, path := range append(inside, dir) {
		if fd, err := unix.Open(path, unix.O_RDONLY, 0); err == nil {
			if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
				return err
			}
		}
	}
	return err
}

// as runs the test binary as a client, and as another user if uid is not this
// one's. It returns the first line that it prints, and what is to be closed for
// it to end.
func as(t *testing.T, uid int, socket, do string) (line string, end func()) {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program)
	if uid != os.Getuid() {
		// Where everybody may execute it.
		if cmd.Path, err = filepath.Abs(filepath.Join(dir(t), "test")); err != nil {
			t.Fatal(err)
		}
		os.Chmod(filepath.Dir(cmd.Path), 0o755)
		copyFile(t, program, cmd.Path)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
		cmd.Dir = "/"
	}
	cmd.Env = []string{asClient + "=" + socket, toDo + "=" + do, "GORACE=atexit_sleep_ms=0"}
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err = bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Errorf("the client's process: %v", err)
	}
	return strings.TrimSpace(line), func() {
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the client's process: %v", err)
		}
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, 0o755); err != nil {
		t.Fatal(err)
	}
}

// open lets everybody connect, so that it is the server that decides.
func open(t *testing.T, socket string) {
	t.Helper()
	if err := errors.Join(os.Chmod(filepath.Dir(socket), 0o755), os.Chmod(socket, 0o666)); err != nil {
		t.Fatal(err)
	}
}

// Only the user of the policy and root are served, whoever may connect.
func TestOtherUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can be somebody else")
	}
	ladder := untouched(t).(fakeLadder)
	released := make(chan string, 2)
	ladder.release = func(_ context.Context, owner string) error { released <- owner; return nil }
	p := policy(t)
	p.UID = nobody
	socket := serve(t, &Server{Policy: p, Ladder: ladder})
	open(t, socket)
	for _, tt := range []struct {
		uid  int
		want string
	}{
		{nobody, "<nil>"},
		{nobody - 1, "refused by tunneld-helper: user 65533 may not use the helper of user 65534"},
		{0, "<nil>"},
	} {
		got, end := as(t, tt.uid, socket, "release")
		end()
		if got != tt.want {
			t.Errorf("user %d: %q; want %q", tt.uid, got, tt.want)
		}
	}
	// Root's request is for the user, too.
	for range 2 {
		if owner := <-released; owner != "65534" {
			t.Errorf("released for %s", owner)
		}
	}
}

// Another user can read what is noted, and cannot hold up who changes it.
func TestLockOfAnotherUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can be somebody else")
	}
	locks := filepath.Join(dir(t), "locks")
	unlock, err := lock(t.Context(), locks)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
	os.Chmod(filepath.Dir(locks), 0o755)
	if info, err := os.Stat(locks); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("the directory: %v, %v; want mode 0755", info.Mode(), err)
	}
	said, end := as(t, nobody, locks, "hold")
	defer end()
	if said != "<nil>" {
		t.Fatal(said)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	unlock, err = lock(ctx, locks)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}

// In the usual place, nobody but root is taken for the helper.
func TestForeignHelper(t *testing.T) {
	socket := filepath.Join(dir(t), "s")
	if os.Getuid() == 0 {
		os.Chown(filepath.Dir(socket), nobody, nobody)
	}
	uid := os.Getuid()
	if uid == 0 {
		uid = nobody
	}
	said, end := as(t, uid, socket, "be root")
	defer end()
	if said != "<nil>" {
		t.Fatal(said)
	}
	if c, err := dialHelper(t.Context(), socket, true); err == nil {
		c.Close()
		t.Error("it is trusted")
	} else if !strings.Contains(err.Error(), fmt.Sprintf("user %d listens there, not root", uid)) {
		t.Error(err)
	}
	// Who names a socket knows whose it is.
	c, err := dialHelper(t.Context(), socket, false)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if os.Getuid() == 0 {
		l := listener(t)
		defer l.Close()
		c, err := dialHelper(t.Context(), l.Addr().String(), true)
		if err != nil {
			t.Fatalf("root's own: %v", err)
		}
		c.Close()
	}
}

// A low port's socket goes to the client, who has it for himself then: with the
// right address, and without ever blocking or reaching his children.
func TestListen(t *testing.T) {
	if !isolate(t) {
		return
	}
	uid := os.Getuid()
	if uid == 0 && os.Getenv(inNamespace) == "root" {
		uid = nobody // the port must be one that the client could not have
	}
	p := policy(t)
	p.UID = uint32(uid)
	s := &Server{Policy: p, Ladder: untouched(t)}
	socket := serve(t, s)
	open(t, socket)
	for _, at := range []string{"127.77.0.1:80", "127.0.0.1:443", "[::1]:80"} {
		said, end := as(t, uid, socket, at)
		if said != at {
			t.Errorf("%s: %s", at, said)
			continue
		}
		c, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		hello, err := io.ReadAll(c)
		c.Close()
		if want := "user " + strconv.Itoa(uid); err != nil || string(hello) != want {
			t.Errorf("%s: %q, %v; want %q", at, hello, err, want)
		}
		end()
		// Nobody else has kept it.
		l, err := net.Listen("tcp", at)
		if err != nil {
			t.Errorf("after the client's end: %v", err)
			continue
		}
		said, end = as(t, uid, socket, at)
		end()
		if !strings.Contains(said, "address already in use") {
			t.Errorf("%s, which is taken: %s", at, said)
		}
		l.Close()
	}
}

func TestPassedSocket(t *testing.T) {
	if !isolate(t) {
		return
	}
	s := &Server{Ladder: untouched(t)}
	c := &Client{Socket: serve(t, s)}
	at := netip.MustParseAddrPort("127.77.0.1:80")
	_, passed, err := c.exchange(t.Context(), &request{Verb: verbListen, Listen: at})
	if err != nil {
		t.Fatal(err)
	}
	defer passed.Close()
	checkFlags(t, passed)
	if _, err := c.Listen(t.Context(), at); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a second one: %v; want EADDRINUSE", err)
	}
	l, err := c.Listen(t.Context(), netip.MustParseAddrPort("[::1]:443"))
	if err != nil {
		t.Fatal(err)
	}
	checkFlags(t, l.(*net.TCPListener))
	go func() {
		c, err := net.Dial("tcp", l.Addr().String())
		if err == nil {
			c.Close()
		}
	}()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	accepting := make(chan error, 1)
	go func() { _, err := l.Accept(); accepting <- err }()
	l.Close()
	if err := <-accepting; !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed while it accepts: %v", err) // what blocks would never end
	}
}

func checkFlags(t *testing.T, c syscall.Conn) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = raw.Control(func(fd uintptr) {
		if flags, err := unix.FcntlInt(fd, unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("not close-on-exec: %v, %v", flags, err)
		}
		if flags, err := unix.FcntlInt(fd, unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK == 0 {
			t.Errorf("blocking: %v, %v", flags, err)
		}
	})
	if err != nil {
		t.Error(err)
	}
}

// A descriptor that nobody has asked for, or that comes with an error, is not
// kept; one that leads elsewhere is no listener.
func TestStrangeDescriptors(t *testing.T) {
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	l := listener(t)
	defer l.Close()
	c := &Client{Socket: l.Addr().String()}
	answer := func(resp response) {
		conn, err := l.AcceptUnix()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		io.Copy(io.Discard, conn)
		if err := send(conn, resp, other); err != nil {
			t.Error(err)
		}
	}
	go answer(response{})
	if err := c.Release(t.Context()); err != nil {
		t.Error(err)
	}
	go answer(response{Error: "no"})
	if _, passed, err := c.call(t.Context(), &request{Verb: verbListen}); err == nil || passed != nil {
		t.Errorf("%v, %v", passed, err)
	}
	go answer(response{})
	if got, err := c.Listen(t.Context(), netip.MustParseAddrPort("127.77.0.1:80")); err == nil || got != nil {
		t.Errorf("%v, %v; want an error", got, err)
	}
}
