//go:build !linux

package kube

import (
	"syscall"
	"time"
)

// limitSilence does nothing where there is nothing like TCP_USER_TIMEOUT.
func limitSilence(time.Duration) func(network, address string, c syscall.RawConn) error { return nil }
