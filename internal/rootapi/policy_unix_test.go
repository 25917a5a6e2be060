//go:build unix

package rootapi

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestReadPolicy(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if _, err := ReadPolicy(write("good", goodPolicy, 0o644)); err != nil {
		t.Error(err)
	}
	others := write("others", goodPolicy, 0o644)
	if err := os.Lchown(others, 1, -1); err != nil {
		others = "" // takes root
	}
	for _, path := range []string{dir, write("loose", goodPolicy, 0o664), write("looser", goodPolicy, 0o646), others} {
		if path == "" {
			continue
		}
		if _, err := ReadPolicy(path); !errors.Is(err, ErrPolicy) {
			t.Errorf("%s: %v; want ErrPolicy", path, err)
		}
	}
	if _, err := ReadPolicy(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}
