//go:build unix

package config_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/tunneld/tunneld/internal/config"
)

func TestEditKeepsOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	path := filepath.Join(t.TempDir(), "config.yaml")
	write(t, path, oneText)
	do(t, os.Chown(path, 4711, 4712))
	do(t, config.Edit(path, add("b")))
	wantFile(t, path, bothText, 0o600, "config.yaml")
	info, err := os.Stat(path)
	do(t, err)
	if st := info.Sys().(*syscall.Stat_t); st.Uid != 4711 || st.Gid != 4712 {
		t.Errorf("the owner is %d:%d; want 4711:4712", st.Uid, st.Gid)
	}
}
