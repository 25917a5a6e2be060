//go:build unix

package script_test

import "syscall"

var (
	terminate = syscall.SIGTERM
	hangup    = syscall.SIGHUP
)
