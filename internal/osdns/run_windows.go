package osdns

import (
	"path/filepath"

	"golang.org/x/sys/windows"
)

// program finds a program of the system.
func program(name string) (string, error) {
	return filepath.Join(systemDirectory(), name+".exe"), nil
}

// systemDirectory is where Windows has its programs.
func systemDirectory() string {
	dir, err := windows.GetSystemDirectory()
	if err != nil { // not known to happen
		return `C:\Windows\System32`
	}
	return dir
}
