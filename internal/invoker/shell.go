package invoker

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
)

// Shell is the user's login shell, by the system's list of users; it may be empty,
// which passwd(5) says is /bin/sh.
func (u User) Shell(ctx context.Context) (string, error) {
	if runtime.GOOS == "darwin" {
		return directoryShell(ctx, u.Name)
	}
	if list, err := os.ReadFile("/etc/passwd"); err == nil {
		if shell, ok := passwdShell(list, u.UID); ok {
			return shell, nil
		}
	}
	out, err := getent(ctx, u.UID)
	if err != nil {
		return "", fmt.Errorf("find the login shell: %w", err)
	}
	shell, ok := passwdShell(out, u.UID)
	if !ok {
		return "", fmt.Errorf("find the login shell: what getent says of user %s cannot be read", u.UID)
	}
	return shell, nil
}

// passwdShell reads the shell of a user from lines of passwd(5).
func passwdShell(list []byte, uid string) (shell string, ok bool) {
	for line := range bytes.Lines(list) {
		fields := strings.Split(strings.TrimRight(string(line), "\r\n"), ":")
		if len(fields) == 7 && fields[2] == uid && fields[0] != "" && !strings.HasPrefix(fields[0], "#") {
			return fields[6], true
		}
	}
	return "", false
}

// directoryShell asks macOS's directory of users.
func directoryShell(ctx context.Context, name string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/usr/bin/dscl", ".", "-read", "/Users/"+name, "UserShell")
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("find the login shell: ask dscl: %w", err)
	}
	_, shell, _ := strings.Cut(string(out), "UserShell:")
	return strings.TrimSpace(shell), nil
}
