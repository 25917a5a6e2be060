package osdns

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"

	"github.com/tunneld/tunneld/internal/osdns/machine"
)

// resolverDir is where macOS looks for servers of single domains: a file's name
// is the domain, and what is below it goes there, too. See resolver(5).
const resolverDir = "/etc/resolver"

// A resolverFiles rung has one file in /etc/resolver for each name. The system
// takes up changes by itself.
type resolverFiles struct {
	sys machine.System
	dir container
	log *slog.Logger
}

// newResolverFiles returns the rung; note is the file in which it is kept that
// the directory is ours.
func newResolverFiles(sys machine.System, note string, log *slog.Logger) *resolverFiles {
	return &resolverFiles{
		sys: sys,
		log: log,
		dir: container{
			sys:  sys,
			name: resolverDir,
			note: note,
			list: func() (int, error) {
				entries, err := sys.ReadDir(resolverDir)
				return len(entries), err
			},
			make:   func() error { return sys.MakeDir(resolverDir) },
			remove: func() error { return sys.RemoveDir(resolverDir) },
		},
	}
}

func (r *resolverFiles) name() string    { return "resolver-files" }
func (r *resolverFiles) wildcards() bool { return true }

func (r *resolverFiles) fits(context.Context, Claim) (why string, ok bool) {
	if _, err := r.sys.ReadDir(resolverDir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Sprintf("%s cannot be read: %v", resolverDir, err), false
	}
	return "macOS asks the servers that files in " + resolverDir + " name", true
}

func (r *resolverFiles) apply(ctx context.Context, c Claim) error {
	want := make(map[string][]byte, len(c.Names))
	for _, n := range c.Names {
		want[n.Name] = resolverFile(c)
	}
	ours, others, err := r.files(c.Owner)
	if err != nil {
		return err
	}
	for _, n := range c.Names {
		if others[n.Name] {
			return fmt.Errorf("%s/%s is somebody else's", resolverDir, n.Name)
		}
	}
	changed := false
	defer func() {
		if changed {
			flushMacOS(ctx, r.sys, r.log)
		}
	}()
	for name, data := range ours {
		if _, wanted := want[name]; wanted && string(data) == string(want[name]) {
			delete(want, name)
		} else if !wanted {
			changed = true
			if err := r.sys.RemoveFile(resolverDir + "/" + name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	if len(want) > 0 {
		if err := r.dir.ensure(); err != nil {
			return err
		}
	}
	for name, data := range want {
		changed = true
		if err := r.sys.ReplaceFile(resolverDir+"/"+name, data); err != nil {
			return err
		}
	}
	if len(c.Names) == 0 {
		return r.dir.drop()
	}
	return nil
}

func (r *resolverFiles) remove(ctx context.Context, owner string) error {
	return r.apply(ctx, Claim{Owner: owner})
}

// files returns what is in the directory: the owner's files, and which others
// there are.
func (r *resolverFiles) files(owner string) (ours map[string][]byte, others map[string]bool, err error) {
	entries, err := r.sys.ReadDir(resolverDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	} else if err != nil {
		return nil, nil, err
	}
	ours, others = make(map[string][]byte), make(map[string]bool)
	for _, e := range entries {
		// Neither links nor directories are ever ours, and what a link leads to
		// is not to be read as root.
		if !e.Type().IsRegular() {
			others[e.Name()] = true
			continue
		}
		// A file that was not whole when its maker was stopped has no mark yet.
		if isTemporary(e.Name()) {
			ours[e.Name()] = nil
			continue
		}
		data, err := r.sys.ReadFile(resolverDir + "/" + e.Name())
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return nil, nil, err
		}
		if first, _, _ := strings.Cut(string(data), "\n"); first == resolverMark(owner) {
			ours[e.Name()] = data
		} else {
			others[e.Name()] = true
		}
	}
	return ours, others, nil
}

// isTemporary reports whether temporary makes that name of some other.
func isTemporary(name string) bool {
	rest, ok := strings.CutSuffix(name, ".tunneld")
	return ok && strings.HasPrefix(rest, ".")
}

// resolverMark is the first line of an owner's files.
func resolverMark(owner string) string {
	return "# Made by tunneld for user " + owner + ", and taken away by it."
}

func resolverFile(c Claim) []byte {
	return fmt.Appendf(nil, "%s\nnameserver %s\nport %d\n", resolverMark(c.Owner), c.Server.Addr(), c.Server.Port())
}
