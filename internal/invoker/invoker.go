// Package invoker tells on whose behalf a program runs: under sudo that is the user
// who typed it, and not root, whose home nothing of theirs belongs into.
package invoker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"
)

// A User is on whose behalf the program runs.
type User struct {
	// UID is the user's id; on Windows a SID.
	UID  string
	Name string
	Home string
	// Sudo says that the program runs as root, and this is another one.
	Sudo bool
	// Gone says that the system knows nobody of that id any more. Nothing can be run
	// as them, and there is no home.
	Gone bool

	gid    uint32
	groups []uint32
}

// ErrUnknown: the system has no such user.
var ErrUnknown = errors.New("the system knows no user")

// sudoVariables have the id of the user who became root; pkexec keeps one of its own.
var sudoVariables = [...]string{"SUDO_UID", "PKEXEC_UID"}

// Find finds the user. A program that does not run as root runs as its user, whose
// home is where $HOME says; under sudo it is where the system's list of users says,
// since $HOME may be anybody's. With an error that Is ErrUnknown there is the user's id.
func Find(ctx context.Context) (User, error) {
	if os.Geteuid() == 0 {
		for _, name := range sudoVariables {
			if uid := os.Getenv(name); uid != "" && uid != "0" {
				u, err := behind(ctx, uid)
				if err != nil {
					return User{UID: uid}, fmt.Errorf("find the user behind $%s: %w", name, err)
				}
				return u, nil
			}
		}
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return User{}, fmt.Errorf("find the home directory: %w", err)
	}
	u := User{UID: strconv.Itoa(os.Getuid()), Home: home}
	if known, err := user.Current(); err == nil {
		u.UID, u.Name = known.Uid, known.Username
	}
	return u, nil
}

// Of is the user of that name or id, for whom this program does something: root may
// do so for anybody, and everybody for themselves.
func Of(ctx context.Context, user string) (User, error) {
	uid := user
	if _, err := strconv.ParseUint(user, 10, 32); err != nil {
		if uid, err = lookupName(ctx, user); err != nil {
			return User{}, err
		}
	}
	if euid := os.Geteuid(); uid == strconv.Itoa(euid) {
		known, err := lookup(ctx, uid)
		if err != nil {
			return User{}, err
		}
		return User{UID: uid, Name: known.Username, Home: known.HomeDir}, nil
	} else if euid > 0 {
		return User{}, fmt.Errorf("only root can do this for user %s", user)
	}
	return behind(ctx, uid)
}

// Former is a user whom the system knew once, for who takes out what is left of them.
func Former(uid string) (User, error) {
	if _, err := strconv.ParseUint(uid, 10, 32); err != nil {
		return User{}, fmt.Errorf("%q is no user id", uid)
	}
	return User{UID: uid, Name: uid, Sudo: true, Gone: true}, nil
}

// behind finds the user of that id, without whom root must not go on.
func behind(ctx context.Context, uid string) (User, error) {
	if _, err := strconv.ParseUint(uid, 10, 32); err != nil {
		return User{}, fmt.Errorf("%q is no user id", uid)
	}
	known, err := lookup(ctx, uid)
	if err != nil {
		return User{}, err
	}
	if !strings.HasPrefix(known.HomeDir, "/") || known.HomeDir == "/" {
		return User{}, fmt.Errorf("user %s has no home directory", known.Username)
	}
	u := User{UID: known.Uid, Name: known.Username, Home: known.HomeDir, Sudo: true}
	gid, err := strconv.ParseUint(known.Gid, 10, 32)
	if err != nil {
		return User{}, fmt.Errorf("group of user %s: %w", known.Username, err)
	}
	u.gid = uint32(gid)
	ids, err := known.GroupIds()
	if err != nil {
		ids = nil // the primary group must do
	}
	for _, id := range ids {
		if id, err := strconv.ParseUint(id, 10, 32); err == nil {
			u.groups = append(u.groups, uint32(id))
		}
	}
	return u, nil
}
