package machine

import (
	"path/filepath"

	"golang.org/x/sys/windows"
)

// Program finds a program of the system.
func Program(name string) (string, error) {
	return filepath.Join(SystemDirectory(), name+".exe"), nil
}

// SystemDirectory is where Windows has its programs.
func SystemDirectory() string {
	dir, err := windows.GetSystemDirectory()
	if err != nil { // not known to happen
		return `C:\Windows\System32`
	}
	return dir
}
