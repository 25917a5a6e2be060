package truststore

import (
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/windows"

	"github.com/tunneld/tunneld/internal/tls/truststore/place"
)

// mayAct returns why this process must not act in the scope; nil if it may. The stores
// of the scope User are those of whoever runs this, which may not be whose home it is:
// an administrator's password starts programs as that administrator.
func (s *Stores) mayAct() error {
	token := windows.GetCurrentProcessToken()
	if s.Scope == Machine {
		if !token.IsElevated() {
			return place.Blocked("it takes an administrator", `run this in a terminal that was started with "Run as administrator"`)
		}
		return nil
	}
	profile, err := token.GetUserProfileDirectory()
	if err != nil {
		return place.Blocked(fmt.Sprintf("whose process this is cannot be found out: %v", err), "")
	}
	if !strings.EqualFold(filepath.Clean(profile), filepath.Clean(s.Home)) {
		return place.Blocked(fmt.Sprintf("%s belongs to another user", s.Home), "run this as its owner, not as administrator")
	}
	return nil
}
