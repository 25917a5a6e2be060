package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
)

// programs reads this program and those beside it, which have these names.
func programs(names ...string) (map[string][]byte, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	content := make(map[string][]byte)
	for _, name := range names {
		path := filepath.Join(filepath.Dir(self), name)
		if runtime.GOOS == "windows" {
			path += ".exe"
		}
		if name == "tunneld" {
			path = self
		}
		if content[name], err = os.ReadFile(path); errors.Is(err, fs.ErrNotExist) {
			return nil, withHint(fmt.Errorf("%s is not beside %s", name, self), "build all three: make build")
		}
		if err != nil {
			return nil, err
		}
	}
	return content, nil
}

func without(steps, left []string) []string {
	return slices.DeleteFunc(slices.Clone(steps), func(step string) bool { return slices.Contains(left, step) })
}
