//go:build unix

package verifiers

import (
	"os/exec"
	"syscall"
)

// A family is a program and all that it starts. They are a process group, which is
// ended as one. Of browsers, Firefox's crash helper alone leaves it, and ends with
// its Firefox.
type family struct{ cmd *exec.Cmd }

func newFamily(cmd *exec.Cmd) *family {
	cmd.SysProcAttr = attributes()
	return &family{cmd}
}

func (f *family) started() {}

// end ends all of them. It may be called when the program has ended: while there
// is another process in the group, its number is taken by nobody.
func (f *family) end() {
	if f.cmd.Process != nil && f.cmd.Process.Pid > 0 {
		syscall.Kill(-f.cmd.Process.Pid, syscall.SIGKILL)
	}
}
