package helper

import (
	"os"
	"os/exec"
	"syscall"
)

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
