// Package statedir keeps what the daemon must not forget between two starts:
// which addresses each forward has, and which ports and pods it had last. The CA
// keeps its files in the same directory, by itself.
package statedir

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/tunneld/tunneld/internal/atomicfile"
	"github.com/tunneld/tunneld/internal/lockfile"
)

// version is that of the directory's layout. A higher one is refused: it was
// written by a newer program, which may mean something else by it.
const version = 1

var (
	// ErrInUse: another daemon uses the directory.
	ErrInUse = errors.New("the state directory is in use by another tunneld")
	// ErrNewer: the directory was written by a newer version.
	ErrNewer = errors.New("the state directory was written by a newer tunneld")
	// ErrUnusable: the directory cannot be made, or not be used.
	ErrUnusable = errors.New("the state directory cannot be used")
	// ErrNoHome: nobody says where the user's files are.
	ErrNoHome = errors.New("no home directory")
)

// A Port is a port of a forward as it was last seen in the cluster.
type Port struct {
	Name        string `json:"name,omitempty"`
	Number      uint16 `json:"number"`
	AppProtocol string `json:"appProtocol,omitempty"`
}

// A Forward is what is remembered of one.
type Forward struct {
	Address netip.Addr `json:"address"`
	// Ports let the listeners of a forward be bound before its cluster can be
	// reached. Empty means that it never was.
	Ports []Port `json:"ports,omitempty"`
	// Pods are those that have a name, and so an address, of their own.
	Pods []Pod `json:"pods,omitempty"`
	// Subdomain is the Service under which cluster DNS has the Pods' names.
	Subdomain string `json:"subdomain,omitempty"`
	// Whole says that the pods had been seen, and that no others had a name.
	Whole bool `json:"whole,omitempty"`
	// Target is what all of this is of.
	Target string `json:"target,omitempty"`
}

// A Pod is one that a forward leads to by its name, whether it is there or not.
type Pod struct {
	Name    string     `json:"name"`
	Address netip.Addr `json:"address"`
}

// A Dir is a state directory that this process has for itself. Its methods may
// be called concurrently.
type Dir struct {
	path    string
	release func()

	mu       sync.Mutex // guards the following, and the file
	forwards map[string]Forward
	saved    map[string]Forward // as the file has them
}

// file is the layout of forwards.json.
type file struct {
	Version  int                `json:"version"`
	Forwards map[string]Forward `json:"forwards"`
}

// DefaultPath is $XDG_STATE_HOME/tunneld, else ~/.local/state/tunneld, on
// every system.
func DefaultPath() (string, error) {
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "tunneld"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("find the state directory: %w: %w", ErrNoHome, err)
	}
	return filepath.Join(home, ".local", "state", "tunneld"), nil
}

// Open creates the directory if need be, with mode 0700, locks it, and reads
// it. An error Is ErrInUse or ErrNewer, and then nothing has been changed, or it
// Is ErrUnusable.
func Open(path string) (*Dir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnusable, err)
	}
	release, err := lockfile.Lock(filepath.Join(path, "lock"))
	if errors.Is(err, lockfile.ErrLocked) {
		return nil, fmt.Errorf("%w: %s", ErrInUse, path)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnusable, err)
	}
	d := &Dir{path: path, release: release}
	d.sweep()
	if err := d.read(); err != nil {
		release()
		return nil, err
	}
	return d, nil
}

// Path is where the directory is.
func (d *Dir) Path() string { return d.path }

// Close lets another process have the directory.
func (d *Dir) Close() { d.release() }

func (d *Dir) filename() string { return filepath.Join(d.path, "forwards.json") }

// sweep removes what a write that was killed left behind.
func (d *Dir) sweep() {
	left, _ := filepath.Glob(filepath.Join(d.path, "."+filepath.Base(d.filename())+".*.tmp"))
	for _, name := range left {
		os.Remove(name)
	}
}

func (d *Dir) read() error {
	data, err := os.ReadFile(d.filename())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnusable, err)
	}
	// Of a newer file nothing is known but where its version stands.
	var head struct{ Version int }
	if json.Unmarshal(data, &head) == nil && head.Version > version {
		return fmt.Errorf("%w: %s has version %d, and this program knows %d", ErrNewer, d.filename(), head.Version, version)
	}
	var f file
	if err := json.Unmarshal(data, &f); err != nil {
		// A cut cannot happen, since it is written by renaming. Whatever this
		// is, the addresses in it are worth more to a person than to us.
		aside := d.filename() + ".unreadable"
		if renameErr := os.Rename(d.filename(), aside); renameErr != nil {
			return fmt.Errorf("%w: %s: %w", ErrUnusable, d.filename(), err)
		}
		return nil
	}
	d.forwards, d.saved = f.Forwards, f.Forwards
	return nil
}

// Forwards returns what is remembered, by the forwards' names.
func (d *Dir) Forwards() map[string]Forward {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.forwards)
}

// Saved returns what the file has of a forward, which is less than Forwards
// returns where it could not be written.
func (d *Dir) Saved(name string) Forward {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.saved[name]
}

// SetForwards remembers forwards in place of what was. It writes nothing if
// nothing changed. If it cannot write, they are remembered for as long as the
// process lives, and the next call tries again.
func (d *Dir) SetForwards(forwards map[string]Forward) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	same := func(a, b Forward) bool {
		return a.Address == b.Address && a.Target == b.Target && a.Subdomain == b.Subdomain && a.Whole == b.Whole &&
			slices.Equal(a.Ports, b.Ports) && slices.Equal(a.Pods, b.Pods)
	}
	d.forwards = maps.Clone(forwards)
	if maps.EqualFunc(d.saved, forwards, same) {
		return nil
	}
	data, err := json.MarshalIndent(file{Version: version, Forwards: forwards}, "", "  ")
	if err != nil {
		return err
	}
	if err := atomicfile.Write(d.filename(), append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("write the state directory: %w", err)
	}
	d.saved = d.forwards
	return nil
}
