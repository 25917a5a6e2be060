//go:build unix

package localapi_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/tunneld/tunneld/internal/localapi"
	"github.com/tunneld/tunneld/internal/status"
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

// Of the default places, the daemon takes the first where it may make a socket,
// and the client the first that accepts.
func TestSecondPlace(t *testing.T) {
	if runtime.GOOS != "linux" || os.Getuid() != 0 {
		t.Skip("the second place is /run/tunneld/UID, on Linux, which takes root")
	}
	second := filepath.Join("/run/tunneld", strconv.Itoa(os.Getuid()))
	if _, err := os.Stat("/run/tunneld"); err == nil {
		t.Skip("a daemon of this machine may be there")
	}
	t.Cleanup(func() { os.RemoveAll("/run/tunneld") })
	t.Setenv("TUNNELD_SOCKET", "")
	file := filepath.Join(dir(t), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("XDG_RUNTIME_DIR", filepath.Join(file, "no-directory"))
	l, err := localapi.Listen("")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- (&localapi.Server{Version: status.Version{Version: "second"}}).Serve(ctx, l) }()
	// Another user's directory comes first, with a socket that nobody may use.
	foreign := filepath.Join(dir(t), "foreign")
	do(t, os.MkdirAll(filepath.Join(foreign, "tunneld"), 0o755), os.Chown(foreign, 65534, 65534))
	t.Setenv("XDG_RUNTIME_DIR", foreign)
	if got, err := new(localapi.Client).Version(t.Context()); err != nil || got.Version != "second" {
		t.Errorf("%+v, %v; want the daemon in the second place", got, err)
	}
	defer func() {
		cancel()
		<-ended
	}()
	for dir, want := range map[string]os.FileMode{second: 0o700, filepath.Dir(second): 0o755} {
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, %v; want %v", dir, info.Mode().Perm(), err, want)
		}
	}
}

func do(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
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
