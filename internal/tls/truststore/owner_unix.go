//go:build unix

package truststore

import (
	"fmt"
	"os"

	"github.com/tunneld/tunneld/internal/tls/truststore/place"
)

// mayAct returns why this process must not act in the scope; nil if it may. What is below
// a home is for its owner alone: root would leave files there that are not theirs, and
// follow links of theirs.
func (s *Stores) mayAct() error {
	euid := os.Geteuid()
	if s.Scope == Machine {
		if euid != 0 {
			return place.Blocked("it takes root", "")
		}
		return nil
	}
	info, err := os.Stat(s.Home)
	if err != nil {
		return place.Blocked(fmt.Sprintf("the home directory cannot be looked at: %v", err), "")
	}
	if uid := place.Owner(info); uid != euid {
		return place.Blocked(fmt.Sprintf("%s belongs to another user", s.Home), "run this as its owner, without sudo")
	}
	return nil
}
