//go:build service

package service

import (
	"strings"
	"testing"
)

// Where an installation cannot go on, it says so, and nothing stays behind.
func TestUnlucky(t *testing.T) {
	type test struct {
		name   string
		plain  bool // it is installed without a package
		script string
		status int    // of the installation
		says   string // and what it says
		after  string // sets things right again
		// first says that it cannot be uninstalled before that.
		first bool
	}
	full := func(dir, size string) string {
		return "mkdir -p " + dir + "; mount -t tmpfs -o size=" + size + ",mode=755 tmpfs " + dir + "; echo >" + dir + "/theirs"
	}
	tests := []test{
		{
			name: "another installation is under way", script: "systemd-run --quiet --unit=holder --property=Type=exec flock /run/tunneld-install.lock sleep infinity; until ! flock -n /run/tunneld-install.lock true; do :; done",
			status: 1, says: "another installation", after: "systemctl stop holder; rm -f /run/tunneld-install.lock", first: true,
		},
		{
			name: "no systemd", script: "mv /run/systemd/system /run/systemd/away",
			status: 1, says: "systemd", after: "mv /run/systemd/away /run/systemd/system", first: true,
		},
		{name: "a policy of somebody else's", script: "mkdir -p /etc/tunneld/helper; echo {} >" + policy, status: 1, says: policy, after: "rm -r /etc/tunneld"},
		{name: "a directory in the place of the policy", script: "mkdir -p " + policy, status: 1, says: policy, after: "rm -r /etc/tunneld"},
		{name: "a file in the place of a directory", script: "echo >/etc/tunneld", status: 1, says: "/etc/tunneld", after: "rm /etc/tunneld"},
		{name: "a configuration that is none", script: "su dev -c 'umask 077; mkdir -p ~/.config/tunneld; echo version: 7 >~/.config/tunneld/config.yaml'", status: 1, says: "config.yaml", after: "rm -r /home/dev/.config"},
		{name: "a disk that is full, for receipts", script: full("/var/lib/tunneld", "4k"), status: 1, says: "no space left", after: "umount /var/lib/tunneld; rmdir /var/lib/tunneld"},
		{name: "a disk that is full, for the policy", script: full("/etc/tunneld", "4k"), status: 1, says: "no space left", after: "umount /etc/tunneld; rmdir /etc/tunneld", first: true},
		{name: "a disk that is full, for programs", plain: true, script: full("/usr/local/libexec", "16m"), status: 1, says: "no space left", after: "umount /usr/local/libexec; rmdir /usr/local/libexec"},
		{name: "a directory that others may write to", plain: true, script: "mkdir -p /usr/local/libexec; chmod 777 /usr/local/libexec", status: 1, says: "/usr/local/libexec", after: "rmdir /usr/local/libexec"},
		{name: "a directory of a user's", plain: true, script: "mkdir -p /usr/local/libexec; chown dev /usr/local/libexec", status: 1, says: "/usr/local/libexec", after: "rmdir /usr/local/libexec"},
	}
	for _, path := range []string{
		"/usr/local/libexec/tunneld/tunneld", "/usr/local/libexec/tunneld/tunnelctl", "/usr/local/libexec/tunneld/tunneld-helper",
		"/etc/systemd/system/tunneld@.service", "/etc/systemd/system/tunneld-helper@.service", "/etc/systemd/system/tunneld-helper@.socket",
	} {
		tests = append(tests, test{
			name: "somebody else's " + path, plain: true, script: "mkdir -p $(dirname " + path + "); echo theirs >" + path,
			status: 1, says: path, after: "rm -r /usr/local/libexec 2>/dev/null || rm " + path,
		})
	}
	// What is only for convenience is left alone, and the rest is done.
	tests = append(tests, test{
		name: "somebody else's /usr/local/bin/tunneld", plain: true, script: "echo theirs >/usr/local/bin/tunneld",
		status: 0, says: "/usr/local/bin/tunneld", after: "rm /usr/local/bin/tunneld",
	})
	onOne(t, func(m *machine) {
		for _, packaged := range []bool{false, true} {
			m.tunneld = opt + "plain/tunneld"
			if packaged {
				m.installPackage(oldVersion)
				m.tunneld = "/usr/bin/tunneld"
			}
			before := m.snapshot()
			for _, test := range tests {
				if test.plain == packaged {
					continue
				}
				m.step(test.name, func(m *machine) {
					m.Script(test.script)
					var found map[string]string
					if !test.first {
						found = m.snapshot()
					}
					o := m.outcome(root, m.tunneld, "install", "--yes", "--user", "dev")
					if o.status != test.status || !strings.Contains(o.text, test.says) {
						m.T.Errorf("exit status %d; want %d, and %q:\n%s", o.status, test.status, test.says, o.text)
					}
					if !test.first {
						m.uninstall()
						m.checkSame("uninstalled,", found)
					}
					m.Script(test.after)
					m.uninstall()
					m.checkSame("set right and uninstalled,", before)
				})
			}
		}
	})
}
