//go:build !linux

package netwatch

import "time"

func readClocks() clocks {
	now := time.Now()
	return clocks{now: now, day: now.Round(0)}
}
