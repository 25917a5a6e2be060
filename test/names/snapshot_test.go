//go:build names

package names

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// snapshot describes all that a claim might change in the machine, but for times:
// each file of /etc with its content, mode, owner and extended attributes; what
// is in the directories where claims are kept; network interfaces; and what
// systemd-resolved asks of whom, where it runs.
func (m *machine) snapshot() map[string]string {
	m.t.Helper()
	found := make(map[string]string)
	for _, dir := range []string{"/etc", "/run/systemd/dns-delegate.d", "/run/NetworkManager", "/var/lib/tunneld-helper"} {
		err := filepath.WalkDir(m.path(dir), func(path string, d fs.DirEntry, err error) error {
			if err == nil {
				found[strings.TrimPrefix(path, m.path(""))], err = describe(path)
			}
			if os.IsNotExist(err) && path == m.path(dir) {
				return nil
			}
			return err
		})
		if err != nil {
			m.t.Fatal(err)
		}
	}
	// Where the helper's lock is says nothing, and it may stay.
	for path := range found {
		if path == "/var/lib/tunneld-helper" || strings.HasSuffix(path, "lock") {
			delete(found, path)
		}
	}
	var links []struct {
		Name string `json:"ifname"`
		Kind string `json:"link_type"`
	}
	if err := json.Unmarshal([]byte(m.run(root, "ip", "-json", "link")), &links); err != nil {
		m.t.Fatal(err)
	}
	for _, link := range links {
		found["interface "+link.Name] = link.Kind
	}
	if out, _ := m.try(root, "systemctl", "is-active", "systemd-resolved"); out == "active" {
		found["resolvectl domain"] = m.run(root, "resolvectl", "domain")
		found["resolvectl dns"] = m.run(root, "resolvectl", "dns")
	}
	return found
}

// describe describes a file.
func describe(path string) (string, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return "", err
	}
	stat := info.Sys().(*syscall.Stat_t)
	text := fmt.Sprintf("%v %d:%d", info.Mode(), stat.Uid, stat.Gid)
	switch {
	case info.Mode().IsRegular():
		content, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		text += fmt.Sprintf(" %d bytes %.6x", len(content), sha256.Sum256(content))
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

// checkSame fails the test if something is left in the machine, or missing.
func (m *machine) checkSame(before map[string]string) {
	m.t.Helper()
	if diff := differences(before, m.snapshot()); diff != "" {
		m.t.Errorf("it is not as it was:\n%s", diff)
	}
}
