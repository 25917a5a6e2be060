//go:build unix

package truststore

import (
	"fmt"
	"os"
	"syscall"
)

// mayAct returns why this process must not act in the scope; nil if it may. What is below
// a home is for its owner alone: root would leave files there that are not theirs, and
// follow links of theirs.
func (s *Stores) mayAct() *blockedError {
	euid := os.Geteuid()
	if s.Scope == Machine {
		if euid != 0 {
			return &blockedError{"it takes root", ""}
		}
		return nil
	}
	info, err := os.Stat(s.Home)
	if err != nil {
		return &blockedError{fmt.Sprintf("the home directory cannot be looked at: %v", err), ""}
	}
	if uid := owner(info); uid != euid {
		return &blockedError{fmt.Sprintf("%s belongs to another user", s.Home), "run this as its owner, without sudo"}
	}
	return nil
}

// owner is the user id of a file's owner.
func owner(info os.FileInfo) int { return int(info.Sys().(*syscall.Stat_t).Uid) }
