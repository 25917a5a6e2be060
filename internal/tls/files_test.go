package tls

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A write that ends early, wherever it does, leaves no key: not the old one,
// beside which the new one would be a second, and not half a CA that looks
// whole.
func TestWriteThatFails(t *testing.T) {
	for _, name := range []string{rootFile, intermediateFile, keyFile} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			var as [2]authority
			for i := range as {
				var err error
				if as[i], err = newAuthority([]string{"local"}, time.Now()); err != nil {
					t.Fatal(err)
				}
			}
			if err := write(dir, as[0]); err != nil {
				t.Fatal(err)
			}
			obstacle := filepath.Join(dir, name+partial)
			if err := os.Mkdir(obstacle, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := write(dir, as[1]); err == nil {
				t.Fatal("no error")
			}
			if _, err := os.Stat(filepath.Join(dir, keyFile)); !os.IsNotExist(err) {
				t.Errorf("a key is there (%v)", err)
			}
			_, unusable, err := read(dir)
			if err != nil || unusable != keyFile+" was missing" {
				t.Errorf("read: %q, %v", unusable, err)
			}
			if _, err := os.Stat(obstacle); !os.IsNotExist(err) {
				t.Errorf("read left %s there (%v)", obstacle, err)
			}
		})
	}
}
