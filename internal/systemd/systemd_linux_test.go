package systemd_test

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/tunneld/tunneld/internal/systemd"
)

// child is what this test's program is when a test runs it as a service: it prints
// what it has been told, and by which descriptors.
const child = "SYSTEMD_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(child) == "" {
		os.Exit(m.Run())
	}
	os.Unsetenv(child)
	manager := systemd.Take()
	print := func(words ...string) { os.Stdout.WriteString(strings.Join(words, " ") + "\n") }
	print("watchdog", manager.Watchdog().String())
	for _, s := range manager.Sockets() {
		l, err := net.FileListener(s.File)
		if err != nil {
			print("socket", s.Name, err.Error())
			continue
		}
		flags, err := unix.FcntlInt(s.File.Fd(), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC == 0 {
			print("inherited")
		}
		print("socket", s.Name, l.Addr().Network())
	}
	for _, v := range os.Environ() {
		for _, prefix := range []string{"NOTIFY", "WATCHDOG", "LISTEN", "FDSTORE"} {
			if strings.HasPrefix(v, prefix) {
				print("left", v)
			}
		}
	}
}

// service runs this test's program with an environment, in which $PID is its own id,
// and two sockets.
func service(t *testing.T, env ...string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", strings.Join(append([]string{"export"}, env...), " ")+`; exec "$0"`, self)
	cmd.Env = append(os.Environ(), child+"=1", "GORACE=atexit_sleep_ms=0")
	for range 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		f, err := l.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

func TestTake(t *testing.T) {
	const manager = "NOTIFY_SOCKET=@nowhere"
	tests := []struct {
		name, env, want string
	}{
		{"nobody", "X=", "watchdog 0s\n"},
		{"a manager", manager, "watchdog 0s\n"},
		{"a watchdog", manager + " WATCHDOG_USEC=3000000 WATCHDOG_PID=$$", "watchdog 3s\n"},
		{"one for whoever is the main process", manager + " WATCHDOG_USEC=3000000", "watchdog 3s\n"},
		{"one for another process", manager + " WATCHDOG_USEC=3000000 WATCHDOG_PID=1", "watchdog 0s\n"},
		{"one that is none", manager + " WATCHDOG_USEC=soon", "watchdog 0s\n"},
		{"one too far away", manager + " WATCHDOG_USEC=9223372036854775807", "watchdog 0s\n"},
		{"sockets", manager + " FDSTORE=9 LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=a:b", "watchdog 0s\nsocket a tcp\nsocket b tcp\n"},
		{"sockets without names", manager + " LISTEN_PID=$$ LISTEN_FDS=2", "watchdog 0s\nsocket  tcp\nsocket  tcp\n"},
		{"too few names", manager + " LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=a", "watchdog 0s\nsocket  tcp\nsocket  tcp\n"},
		{"sockets for another process", manager + " LISTEN_PID=1 LISTEN_FDS=2 LISTEN_FDNAMES=a:b", "watchdog 0s\n"},
		{"less than none", manager + " LISTEN_PID=$$ LISTEN_FDS=-1", "watchdog 0s\n"},
		{"more than there can be", manager + " LISTEN_PID=$$ LISTEN_FDS=99999999999", "watchdog 0s\n"},
		{"sockets by somebody who keeps none", "LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=a:b", "watchdog 0s\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := service(t, tt.env); got != tt.want {
				t.Errorf("got:\n%swant:\n%s", got, tt.want)
			}
		})
	}
}

// listen plays the manager's socket.
func listen(t *testing.T) *net.UnixConn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(30 * time.Second))
	t.Setenv("NOTIFY_SOCKET", path)
	return c
}

// read reads what the manager is told, and the descriptor that comes along, -1
// without one.
func read(t *testing.T, c *net.UnixConn) (string, int) {
	t.Helper()
	text, oob := make([]byte, 4096), make([]byte, syscall.CmsgSpace(4))
	n, oobn, _, _, err := c.ReadMsgUnix(text, oob)
	if err != nil {
		t.Fatal(err)
	}
	messages, err := syscall.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) == 0 {
		return string(text[:n]), -1
	}
	fds, err := syscall.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		t.Fatalf("descriptors %v, %v", fds, err)
	}
	return string(text[:n]), fds[0]
}

func TestNotify(t *testing.T) {
	c := listen(t)
	m := systemd.Take()
	if err := m.Notify(systemd.Ready, systemd.Status("3 forwards")); err != nil {
		t.Fatal(err)
	}
	if got, _ := read(t, c); got != "READY=1\nSTATUS=3 forwards" {
		t.Errorf("told %q", got)
	}
	if err := m.Notify(systemd.Reloading()); err != nil {
		t.Fatal(err)
	}
	if got, _ := read(t, c); !strings.HasPrefix(got, "RELOADING=1\nMONOTONIC_USEC=") {
		t.Errorf("told %q", got)
	}
}

func TestKeepAndDrop(t *testing.T) {
	c := listen(t)
	t.Setenv("FDSTORE", "4096")
	m := systemd.Take()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := m.Keep("tcp-a", l.(*net.TCPListener)); err != nil {
		t.Fatal(err)
	}
	got, fd := read(t, c)
	if got != "FDSTORE=1\nFDNAME=tcp-a" || fd < 0 {
		t.Fatalf("told %q, with %d", got, fd)
	}
	f := os.NewFile(uintptr(fd), "kept")
	kept, err := net.FileListener(f)
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	if diff := cmp.Diff(l.Addr(), kept.Addr()); diff != "" {
		t.Error("another socket:", diff)
	}
	if err := m.Drop("tcp-a"); err != nil {
		t.Fatal(err)
	}
	if got, _ := read(t, c); got != "FDSTOREREMOVE=1\nFDNAME=tcp-a" {
		t.Errorf("told %q", got)
	}
}

// Who has no store is not told of sockets.
func TestNoRoom(t *testing.T) {
	c := listen(t)
	for _, room := range []string{"", "0", "some"} {
		t.Setenv("NOTIFY_SOCKET", c.LocalAddr().String())
		t.Setenv("FDSTORE", room)
		m := systemd.Take()
		if m.Room() != 0 {
			t.Errorf("room %d with FDSTORE=%s", m.Room(), room)
		}
		if err := errors.Join(m.Keep("a", c), m.Drop("a"), m.Notify(systemd.Ready)); err != nil {
			t.Fatal(err)
		}
		if got, _ := read(t, c); got != "READY=1" {
			t.Errorf("told %q", got)
		}
	}
}

func TestManagerThatIsGone(t *testing.T) {
	c := listen(t)
	m := systemd.Take()
	c.Close()
	if err := m.Notify(systemd.Ready); err == nil {
		t.Error("no error")
	}
}

// Whoever waits for a manager that has much to read does not try again and again.
func TestBusyManager(t *testing.T) {
	c := listen(t)
	m := systemd.Take()
	fill, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fill)
	for err == nil {
		err = unix.Sendto(fill, []byte("much"), 0, &unix.SockaddrUnix{Name: c.LocalAddr().String()})
	}
	const waiting = 20
	const while = 500 * time.Millisecond
	ended := make(chan error, waiting)
	before := processorTime(t)
	for range waiting {
		go func() { ended <- m.Notify(systemd.Alive) }()
	}
	<-time.After(while) // it takes no more of the processor on a busy machine
	if spent := processorTime(t) - before; spent > while/5 {
		t.Errorf("took %v of the processor to wait for %v", spent, while)
	}
	for told := 0; told < waiting; {
		if text, _ := read(t, c); text == "WATCHDOG=1" {
			told++
		}
	}
	for range waiting {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// The zero is told nothing, and keeps nothing.
func TestNobody(t *testing.T) {
	var m *systemd.Manager
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := errors.Join(m.Notify(systemd.Ready), m.Keep("a", l.(*net.TCPListener)), m.Drop("a")); err != nil {
		t.Error(err)
	}
	if m.Room() != 0 || m.Watchdog() != 0 || m.Sockets() != nil {
		t.Error("nobody has something")
	}
}

func TestNameOf(t *testing.T) {
	tests := []struct {
		addr net.Addr
		want string
	}{
		{&net.TCPAddr{IP: net.IPv4(127, 77, 0, 1), Port: 443}, "tcp-127.77.0.1_443"},
		{&net.TCPAddr{IP: net.IPv6loopback, Port: 443}, "tcp-[__1]_443"},
		{&net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 15353}, "udp-127.0.0.1_15353"},
	}
	for _, tt := range tests {
		if got := systemd.NameOf(tt.addr); got != tt.want {
			t.Errorf("%v: %s; want %s", tt.addr, got, tt.want)
		}
	}
}

// What is kept never has more names than Linux takes in a variable.
func TestRoomForNames(t *testing.T) {
	const most = 128 << 10 // MAX_ARG_STRLEN
	t.Setenv("NOTIFY_SOCKET", "/notify")
	t.Setenv("FDSTORE", "65536")
	m := systemd.Take()
	longest := systemd.NameOf(&net.TCPAddr{IP: net.IPv4(127, 255, 255, 255), Port: 65535})
	if n := len("LISTEN_FDNAMES=") + m.Room()*(len(longest)+1); n > most {
		t.Errorf("%d names may take %d bytes; want %d at most", m.Room(), n, most)
	}
	if m.Room() < 4096 {
		t.Errorf("there is room for %d; the unit says 4096", m.Room())
	}
}
