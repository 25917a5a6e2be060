package localapi

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/tunneld/tunneld/internal/lockfile"
)

var (
	// ErrNotRunning: no daemon listens.
	ErrNotRunning = errors.New("tunneld is not running")
	// ErrRunning: another daemon listens already.
	ErrRunning = errors.New("another tunneld is running")
	// ErrForeign: the socket belongs to another user.
	ErrForeign = errors.New("the socket belongs to another user")
	// ErrNoSocket: a socket can be made nowhere.
	ErrNoSocket = errors.New("no control socket can be made")
)

// Named is the socket that is named, by a flag or by $TUNNELD_SOCKET; empty if
// none is.
func Named(flag string) string { return cmp.Or(flag, os.Getenv("TUNNELD_SOCKET")) }

// Candidates lists where the socket may be, in order: the client takes the
// first that accepts, the daemon the first that it may create. A socket that
// is named, by a flag or by $TUNNELD_SOCKET, is the only one: whoever names
// one daemon does not want another.
func Candidates(named string) []string {
	if path := Named(named); path != "" {
		return []string{path}
	}
	return defaultSockets()
}

// Listen binds the first of the sockets named by Candidates that may be
// created. Only its owner may use it: mode 0600 in a directory of mode 0700. A
// socket that a dead daemon left behind is replaced; while one lives, the
// error Is ErrRunning. Closing the listener removes the socket.
func Listen(named string) (net.Listener, error) {
	var failed []string
	for _, path := range Candidates(named) {
		l, err := listen(path)
		if err == nil {
			return l, nil
		}
		if errors.Is(err, ErrRunning) || errors.Is(err, ErrForeign) {
			return nil, err
		}
		failed = append(failed, err.Error())
	}
	return nil, fmt.Errorf("%w: %s", ErrNoSocket, strings.Join(failed, "; "))
}

// Fits reports whether a path is short enough for a socket.
func Fits(path string) bool { return len(path) <= maxPath }

func listen(path string) (net.Listener, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if !Fits(path) {
		return nil, fmt.Errorf("%s is longer than the %d bytes that a socket's path may have", path, maxPath)
	}
	if err := privateDir(filepath.Dir(path)); err != nil {
		return nil, err
	}
	if info, err := os.Lstat(path); err == nil && !isSocket(info) {
		return nil, fmt.Errorf("%s is in the way: it is no socket", path)
	}
	// The lock decides between two daemons that start at once; the socket file
	// itself says nothing about whether its daemon lives.
	release, err := lockfile.Lock(path + ".lock")
	if errors.Is(err, lockfile.ErrLocked) {
		return nil, fmt.Errorf("%w on %s", ErrRunning, path)
	}
	if err != nil {
		return nil, foreign(path, err)
	}
	l, err := bind(path)
	if err != nil {
		release()
		return nil, fmt.Errorf("%s: %w", path, foreign(path, err))
	}
	return &socket{Listener: l, release: release}, nil
}

// bind binds the path, with the lock held.
func bind(path string) (net.Listener, error) {
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
		return nil, ErrRunning
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// A socket is a listener that lets another daemon listen when it is closed.
type socket struct {
	net.Listener
	release func()
}

func (s *socket) Close() error {
	err := s.Listener.Close()
	s.release()
	return err
}

// isSocket reports whether the file is what a unix socket looks like.
func isSocket(info fs.FileInfo) bool {
	return info.Mode().Type() == fs.ModeSocket || isReparse(info)
}

// privateDir makes sure that the directory exists. One that it creates is of
// mode 0700, and its parents are for everybody to pass: other users may have
// directories beside it. One that was there must not let other users exchange
// files, which a sticky bit prevents too.
func privateDir(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if loose := info.Mode().Perm() & 0o022; loose != 0 && info.Mode()&fs.ModeSticky == 0 && hasModes {
		return fmt.Errorf("directory %s may be written by other users (mode %v)", dir, info.Mode().Perm())
	}
	return nil
}

// foreign makes a permission error one that names the reason, if the path
// belongs to somebody else.
func foreign(path string, err error) error {
	if errors.Is(err, fs.ErrPermission) && !ownedByUs(path) {
		return fmt.Errorf("%w: %w", ErrForeign, err)
	}
	return err
}

// dial connects to the first socket that accepts.
func dial(ctx context.Context, named string) (net.Conn, error) {
	var tried []string
	var others error
	var d net.Dialer
	for _, path := range Candidates(named) {
		c, err := d.DialContext(ctx, "unix", path)
		if err == nil {
			return c, nil
		}
		if err := foreign(path, err); errors.Is(err, ErrForeign) && others == nil {
			others = fmt.Errorf("%w: %s", ErrForeign, path)
		}
		tried = append(tried, path)
	}
	if others != nil {
		return nil, others
	}
	return nil, fmt.Errorf("%w: nothing answers on %s", ErrNotRunning, strings.Join(tried, " or "))
}
