//go:build !linux

package main

import "os/exec"

// endWithUs does nothing: that this process is killed, nobody is told here.
func endWithUs(*exec.Cmd) (done func()) { return func() {} }
