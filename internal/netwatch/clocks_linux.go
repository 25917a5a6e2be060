package netwatch

import (
	"time"

	"golang.org/x/sys/unix"
)

// readClocks also asks for how long the machine was suspended: the monotonic
// clock stands meanwhile, and the boot clock does not. Whoever sets the time of
// day changes neither. Inside of a virtual machine that was stopped, or of WSL,
// both stand, and only the time of day tells.
func readClocks() clocks {
	var boot, monotonic unix.Timespec
	now := time.Now()
	c := clocks{now: now, day: now.Round(0)}
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &monotonic) == nil && unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot) == nil {
		c.asleep = time.Duration(boot.Nano() - monotonic.Nano())
	}
	return c
}
