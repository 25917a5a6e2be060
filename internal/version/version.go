// Package version tells which build this is.
package version

import (
	"runtime"
	"runtime/debug"

	"github.com/tunneld/tunneld/internal/status"
)

// Get reads what the Go toolchain stamped into the program: the module's
// version for a tagged build, else one with the commit and its time.
func Get() status.Version {
	v := status.Version{Version: "unknown", Go: runtime.Version(), OS: runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		v.Version = info.Main.Version
	}
	return v
}
