package config

import (
	"io/fs"
	"os"
)

// keepOwner does nothing: a new file gets the access list of its directory.
func keepOwner(*os.File, fs.FileInfo) error { return nil }

// checkDirWritable does nothing: the attribute of that name does not mean that
// on directories.
func checkDirWritable(string) error { return nil }

// lockDir does nothing: directories cannot be locked.
func lockDir(string) (unlock func()) { return func() {} }

// syncDir does nothing: directories cannot be flushed.
func syncDir(string) {}

func isReadOnlyFS(error) bool { return false }
