//go:build unix

package localapi_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/tunneld/tunneld/internal/localapi"
)

// Another user is turned away, and told why. (It takes root to be another one.)
func TestOtherUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can be somebody else")
	}
	const nobody = 65534
	as := func(path string) string {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		// Where everybody may execute it.
		program := filepath.Join(dir(t), "test")
		os.Chmod(filepath.Dir(program), 0o755)
		copyFile(t, self, program)
		cmd := exec.Command(program)
		cmd.Env = []string{"LOCALAPI_TEST_SOCKET=" + path}
		cmd.SysProcAttr = credentials(nobody)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	path := serve(t, &localapi.Server{})
	os.Chmod(filepath.Dir(path), 0o755)
	if got := as(path); !strings.Contains(got, localapi.ErrForeign.Error()) {
		t.Errorf("another user's socket: %q; want ErrForeign", got)
	}
	// Even if the file lets them in, the daemon does not.
	os.Chmod(path, 0o666)
	if got, want := as(path), fmt.Sprintf("user %d may not control the daemon of user 0", nobody); got != want {
		t.Errorf("through an open socket: %q; want %q", got, want)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, data, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func credentials(uid uint32) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
}
