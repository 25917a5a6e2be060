//go:build trust

package trust

import (
	"slices"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/internal/isolate"
)

// TestSnapshot shows that a snapshot sees whatever is changed, and that it was
// changed back: else the other tests show nothing.
func TestSnapshot(t *testing.T) {
	t.Parallel()
	if !isolate.Test(t) {
		return
	}
	m := boot(t)
	m.script(`
cp -r /etc/ssl /etc/own
mkdir /home/dev/db; certutil -N --empty-password -d sql:/home/dev/db
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout /dev/null -subj /CN=other -out /home/dev/other.pem 2>/dev/null`)
	before := m.snapshot()
	for _, c := range []struct {
		name, do, undo string
		paths          []string // that differ
	}{
		{"a new file", "echo >/etc/ssl/new", "rm /etc/ssl/new", []string{"/etc/ssl/new"}},
		{"a new directory", "mkdir /usr/share/new", "rmdir /usr/share/new", []string{"/usr/share/new"}},
		{"a file that is gone", "mv /etc/debian_version /mnt/", "mv /mnt/debian_version /etc/", []string{"/etc/debian_version"}},
		{"another content", "cp /etc/debian_version /mnt/; echo >>/etc/debian_version", "cp /mnt/debian_version /etc/", []string{"/etc/debian_version"}},
		{"another mode", "chmod 600 /etc/debian_version", "chmod 644 /etc/debian_version", []string{"/etc/debian_version"}},
		{"another owner", "chown dev /etc/debian_version", "chown root /etc/debian_version", []string{"/etc/debian_version"}},
		{"another link", "ln -sfn /tmp /usr/bin/awk", "ln -sfn /etc/alternatives/awk /usr/bin/awk", []string{"/usr/bin/awk"}},
		{"a directory that is another", "mv /etc/own /mnt/; mkdir /etc/own", "rmdir /etc/own; mv /mnt/own /etc/", nil},
		{
			"a directory of the machine that is another",
			"cp -a /etc/apt /mnt/; rm -r /etc/apt; mkdir -m 755 /etc/apt", "rmdir /etc/apt; cp -a /mnt/apt /etc/", nil,
		},
		{"a file of root's", "echo >/root/new", "rm /root/new", []string{"/root/new"}},
		{
			"an entry of a database", "certutil -A -d sql:/home/dev/db -n other -t C,, -i /home/dev/other.pem",
			"certutil -D -d sql:/home/dev/db -n other", []string{"/home/dev/db/cert9.db", "/home/dev/db/key4.db"}, // which signs trust
		},
		{
			"an entry of a key store",
			"keytool -import -noprompt -alias other -storepass changeit -keystore /etc/ssl/certs/java/cacerts -file /home/dev/other.pem 2>&1",
			"keytool -delete -alias other -storepass changeit -keystore /etc/ssl/certs/java/cacerts", []string{"/etc/ssl/certs/java/cacerts"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := m.in(t)
			m.script(c.do)
			after := m.snapshot()
			diff := differences(before, after)
			if diff == "" {
				t.Error("no difference was seen")
			}
			var paths []string
			for line := range strings.Lines(diff) {
				if path := strings.TrimSpace(line); strings.HasPrefix(line, "  /") {
					paths = append(paths, path)
				}
			}
			if c.paths != nil && !slices.Equal(paths, c.paths) {
				t.Errorf("differences in %v; want %v", paths, c.paths)
			}
			m.script(c.undo)
			m.checkSame("after it was undone,", before)
		})
	}
}
