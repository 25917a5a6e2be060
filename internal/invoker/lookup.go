package invoker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"time"
)

// patience is how long a directory service may take for an answer.
const patience = 10 * time.Second

// lookup finds a user by id. Without cgo Go reads /etc/passwd only; users that come
// from a directory service are known to libc, which getent asks.
func lookup(ctx context.Context, uid string) (*user.User, error) {
	known, err := user.LookupId(uid)
	if err == nil {
		return known, nil
	}
	getent := systemProgram("getent")
	if getent == "" {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, getent, "passwd", uid)
	cmd.WaitDelay = time.Second
	out, runErr := cmd.Output()
	if _, ended := errors.AsType[*exec.ExitError](runErr); ended && ctx.Err() == nil {
		return nil, fmt.Errorf("the system knows no user of id %s", uid)
	}
	if runErr != nil {
		return nil, fmt.Errorf("ask getent for user %s: %w", uid, runErr)
	}
	return parsePasswd(out, uid)
}

// systemDirs are root's own: $PATH may name anybody's.
const systemDirs = "/usr/sbin:/usr/bin:/sbin:/bin:/run/current-system/sw/bin"

// systemProgram finds a program of the system; empty if it is not there.
func systemProgram(name string) string {
	for _, dir := range filepath.SplitList(systemDirs) {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path
		}
	}
	return ""
}

// parsePasswd reads the line of passwd(5) of the user of that id.
func parsePasswd(out []byte, uid string) (*user.User, error) {
	line, _, _ := bytes.Cut(out, []byte("\n"))
	fields := strings.Split(string(line), ":")
	if len(fields) != 7 || fields[0] == "" || fields[2] != uid {
		return nil, fmt.Errorf("what getent says of user %s cannot be read", uid)
	}
	return &user.User{Username: fields[0], Uid: fields[2], Gid: fields[3], HomeDir: fields[5]}, nil
}
