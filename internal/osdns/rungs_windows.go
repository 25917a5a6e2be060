package osdns

import (
	"log/slog"
	"path/filepath"

	"github.com/tunneld/tunneld/internal/osdns/machine"
)

// systemRungs are the ways of this system, the best first.
func systemRungs(s machine.System, dir string, log *slog.Logger) []rung {
	return windowsRungs(s, dir, hostsFile(), log)
}

func hostsFile() string { return filepath.Join(machine.SystemDirectory(), "drivers", "etc", "hosts") }

// Watched are files whose change may mean that names are no longer found as they
// were.
func Watched() []string { return []string{hostsFile()} }
