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
	out, err := getent(ctx, uid)
	if err != nil {
		return nil, err
	}
	return parsePasswd(out, uid)
}

// lookupName finds the id of the user of that name.
func lookupName(ctx context.Context, name string) (uid string, err error) {
	if known, err := user.Lookup(name); err == nil {
		return known.Uid, nil
	}
	if name == "" || strings.HasPrefix(name, "-") {
		return "", fmt.Errorf("%q is no user's name", name)
	}
	out, err := getent(ctx, name)
	if err != nil {
		return "", err
	}
	fields := strings.SplitN(string(out), ":", 4)
	if len(fields) != 4 || fields[0] != name {
		return "", fmt.Errorf("what getent says of user %s cannot be read", name)
	}
	return fields[2], nil
}

// getent asks libc for the line of passwd(5) of a user, by name or id.
func getent(ctx context.Context, user string) ([]byte, error) {
	program := systemProgram("getent")
	if program == "" {
		return nil, fmt.Errorf("%w %s", ErrUnknown, user)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "passwd", user)
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if _, ended := errors.AsType[*exec.ExitError](err); ended && ctx.Err() == nil {
		return nil, fmt.Errorf("%w %s", ErrUnknown, user)
	}
	if err != nil {
		return nil, fmt.Errorf("ask getent for user %s: %w", user, err)
	}
	return out, nil
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
