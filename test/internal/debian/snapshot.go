//go:build linux

package debian

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Files describes each file of these directories, and they themselves, but for times:
// with its content, mode, owner and extended attributes. A directory that is not
// there has none.
func (m *Machine) Files(dirs ...string) map[string]string {
	m.T.Helper()
	found := make(map[string]string)
	for _, dir := range dirs {
		err := filepath.WalkDir(m.Path(dir), func(path string, d fs.DirEntry, err error) error {
			if err == nil {
				found[strings.TrimPrefix(path, m.Path(""))], err = m.describe(path)
			}
			if errors.Is(err, fs.ErrNotExist) { // gone meanwhile, too
				return nil
			}
			return err
		})
		if err != nil {
			m.T.Fatal(err)
		}
	}
	return found
}

// Changed describes, as Files does, each file of these directories that is not what it
// is in the tree that the machine was made from. One that is gone is "deleted". What
// was mounted in the machine is left out.
func (m *Machine) Changed(dirs ...string) map[string]string {
	m.T.Helper()
	found := make(map[string]string)
	upper := fmt.Sprintf("/proc/%d/root%s", m.outside, m.upper)
	for _, dir := range dirs {
		err := filepath.WalkDir(upper+dir, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			name := strings.TrimPrefix(path, upper)
			if d.IsDir() && isOpaque(path) { // whatever it covers is gone, unless it is there again
				if err := m.changedBelow(found, name); err != nil {
					return err
				}
			}
			return m.changed(found, name)
		})
		if err != nil {
			m.T.Fatal(err)
		}
	}
	return found
}

// changed describes one file, if it is not what it is in the tree.
func (m *Machine) changed(found map[string]string, name string) error {
	is, err := m.describe(m.Path(name))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		is, err = "deleted", nil
	}
	if err != nil {
		return err
	}
	was, err := m.describe(m.tree + name)
	switch {
	case err == nil && was == is, errors.Is(err, fs.ErrNotExist) && is == "deleted", errors.Is(err, syscall.ENOTDIR) && is == "deleted":
	case err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR):
		return err
	default:
		found[name] = is
	}
	return nil
}

// changedBelow describes what has become of the tree's files in a directory.
func (m *Machine) changedBelow(found map[string]string, dir string) error {
	return filepath.WalkDir(m.tree+dir, func(path string, _ fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		return m.changed(found, strings.TrimPrefix(path, m.tree))
	})
}

// isOpaque reports whether a directory of an overlay hides what is below it.
func isOpaque(path string) bool {
	value := make([]byte, 1)
	n, _ := unix.Lgetxattr(path, "trusted.overlay.opaque", value)
	return n == 1 && value[0] == 'y'
}

// Network describes the network interfaces, and what systemd-resolved asks of whom,
// where it runs.
func (m *Machine) Network() map[string]string {
	m.T.Helper()
	found := make(map[string]string)
	var links []struct {
		Name string `json:"ifname"`
		Kind string `json:"link_type"`
	}
	if err := json.Unmarshal([]byte(m.Run(Root, "ip", "-json", "link")), &links); err != nil {
		m.T.Fatal(err)
	}
	for _, link := range links {
		found["interface "+link.Name] = link.Kind
	}
	if out, _ := m.Try(Root, "systemctl", "is-active", "systemd-resolved"); out == "active" {
		found["resolvectl domain"] = m.Run(Root, "resolvectl", "domain")
		found["resolvectl dns"] = m.Run(Root, "resolvectl", "dns")
	}
	return found
}

// Differences says what has changed, a line for each key; empty if nothing has.
func Differences(before, after map[string]string) string {
	all := maps.Clone(before)
	maps.Copy(all, after)
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(all)) {
		if before[key] != after[key] {
			fmt.Fprintf(&b, "%s: %q, now %q\n", key, before[key], after[key])
		}
	}
	return b.String()
}

// describe describes a file.
func (m *Machine) describe(path string) (string, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return "", err
	}
	stat := info.Sys().(*syscall.Stat_t)
	text := fmt.Sprintf("%v %d:%d", info.Mode(), stat.Uid, stat.Gid)
	switch {
	case info.Mode().IsRegular():
		digest, err := m.digest(path, info)
		if err != nil {
			return "", err
		}
		text += digest
	case info.Mode()&fs.ModeSymlink != 0:
		to, err := os.Readlink(path)
		if err != nil {
			return "", err
		}
		return text + " to " + to, nil
	}
	names := make([]byte, 4096)
	n, err := unix.Llistxattr(path, names)
	if err != nil && err != unix.ENOTSUP {
		return "", err
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names[:max(n, 0)]), "\x00"), "\x00") {
		if name == "" || strings.HasPrefix(name, "trusted.overlay.") {
			continue
		}
		value := make([]byte, 4096)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return "", err
		}
		text += fmt.Sprintf(" %s=%q", name, value[:n])
	}
	return text, nil
}

// digest stands for what a file holds. It is read again only if the kernel has noted
// a change.
func (m *Machine) digest(path string, info fs.FileInfo) (string, error) {
	stat := info.Sys().(*syscall.Stat_t)
	same := fmt.Sprint(m.leader, path, stat.Dev, stat.Ino, stat.Size, stat.Mtim, stat.Ctim)
	if digest, ok := m.digests[same]; ok {
		return digest, nil
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	digest := fmt.Sprintf(" %d bytes %.6x", len(content), sha256.Sum256(content))
	m.digests[same] = digest
	return digest, nil
}
