// Package version tells which build this is.
package version

import (
	"runtime"
	"runtime/debug"

	"github.com/tunneld/tunneld/internal/status"
)

// release is the version of what "make dist" builds, which the linker puts here
// (-X): such a build knows nothing of the repository, so that the same sources
// make the same bytes wherever they are. Empty in any other build.
var release string

// Get says which version this is: of a release the one that it was given, else
// what the Go toolchain stamped into the program, the module's version for a
// tagged build, or one with the commit and its time.
func Get() status.Version {
	v := status.Version{Version: "unknown", Go: runtime.Version(), OS: runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		v.Version = info.Main.Version
	}
	if release != "" {
		v.Version = release
	}
	return v
}
