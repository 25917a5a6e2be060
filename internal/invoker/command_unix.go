//go:build unix

package invoker

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"
)

// Command is a program that runs as the user, for a program that runs as root. It
// gets the user's ids and home, and of the environment what is not root's own. It
// has no terminal, into which it could type as root.
func (u User) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	if !u.Sudo {
		return cmd
	}
	if u.Gone {
		cmd.Err = fmt.Errorf("%w %s", ErrUnknown, u.UID)
		return cmd
	}
	uid, _ := strconv.ParseUint(u.UID, 10, 32) // behind has looked
	cmd.Dir = "/"
	cmd.Env = u.environment()
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential: &syscall.Credential{Uid: uint32(uid), Gid: u.gid, Groups: atMost(maxGroups, u.groups)},
		Setsid:     true,
	}
	// It may end in order, as after Ctrl-C.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// atMost are as many of a user's groups as a process may have; the user's own comes
// first. With more none could be started.
func atMost(n int, groups []uint32) []uint32 { return groups[:min(n, len(groups))] }

func (u User) environment() []string {
	env := []string{
		"HOME=" + u.Home, "USER=" + u.Name, "LOGNAME=" + u.Name,
		"XDG_RUNTIME_DIR=/run/user/" + u.UID, "PATH=/usr/local/sbin:/usr/local/bin:" + systemDirs,
	}
	for _, name := range []string{"LANG", "LC_ALL", "TZ", "TUNNELD_SOCKET", "JAVA_HOME"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}
