package rootapi

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// isolate runs the test again in a network namespace of its own, where low ports
// are free and nobody else's, and reports whether it is there.
func isolate(t *testing.T) bool {
	t.Helper()
	ip, err := exec.LookPath("ip")
	if err != nil {
		t.Skip(err)
	}
	if os.Getenv(inNamespace) != "" {
		if out, err := exec.Command(ip, "link", "set", "lo", "up").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return true
	}
	out, err := inNewNamespace(t.Name()).CombinedOutput()
	if err != nil && strings.Contains(err.Error(), "operation not permitted") {
		t.Skip(err) // root of a container, or user namespaces are forbidden
	}
	t.Logf("\n%s", out)
	switch {
	case err != nil:
		t.Error(err)
	case strings.Contains(string(out), "--- SKIP: "+t.Name()+" "):
		t.Skip("the test in the namespace skipped itself")
	}
	return false
}

// inNewNamespace runs one test in a network namespace; without root, in a user
// namespace, too, of which this user is root.
func inNewNamespace(test string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], "-test.run=^"+test+"$", "-test.v")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	who := "root"
	if os.Getuid() != 0 {
		who = "user"
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	cmd.Env = append(os.Environ(), inNamespace+"="+who, "GORACE=atexit_sleep_ms=0")
	return cmd
}
