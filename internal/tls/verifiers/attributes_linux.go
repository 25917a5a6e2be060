package verifiers

import "syscall"

// attributes have a program end with the thread that started it, should this process be
// killed: a browser would stay for ever.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
