package main

import (
	"os/exec"
	"runtime"
	"syscall"
)

// endWithUs has the program end in order when this process is killed: it would go on to
// add what a removal has just taken out. What is told is the end of the thread that
// started it, which must stay until done is called.
func endWithUs(cmd *exec.Cmd) (done func()) {
	runtime.LockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	return runtime.UnlockOSThread
}
