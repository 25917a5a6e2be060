//go:build service

package service

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/await"
	"github.com/tunneld/tunneld/test/internal/debian"
)

// The ways to install it, and what is not installed.
func TestInstall(t *testing.T) {
	onOne(t, func(m *machine) {
		bare := m.snapshot()
		m.check("by sudo, from a directory", func(m *machine) {
			m.Run(dev, "sudo", opt+"plain/tunneld", "install", "--yes")
			m.add()
			m.checkWorks()
			const programs = "/usr/local/libexec/tunneld"
			if got := m.Run(root, "readlink", fmt.Sprintf("/proc/%d/exe", m.daemonPID())); got != programs+"/tunneld" {
				m.T.Errorf("the daemon runs %s", got)
			}
			if found := m.Run(root, "find", programs, "(", "-not", "-user", "root", "-o", "-perm", "/022", ")"); found != "" {
				m.T.Errorf("users may write %s", found)
			}
			m.Run(dev, "sudo", "tunneld", "uninstall", "--yes", "--purge")
			m.checkSame("afterwards", bare)
		})
		m.installPackage(oldVersion)
		before := m.snapshot()
		m.check("by sudo, from the package", func(m *machine) {
			m.Run(dev, "sudo", "tunneld", "install", "--yes")
			m.add()
			m.checkWorks()
			m.Run(dev, "sudo", "tunneld", "install", "--yes") // again changes nothing
			m.checkWorks()
			m.Run(dev, "sudo", "tunneld", "uninstall", "--yes", "--purge")
			m.checkSame("afterwards", before)
		})
		m.check("without names and trust", func(m *machine) {
			m.install("--without", "names,trust")
			m.Run(dev, "tunnelctl", "add", service, "--wait")
			if out, err := m.Try(root, "ls", policy, "/var/lib/tunneld-trust"); err == nil || out != "" {
				m.T.Errorf("there is %s", out)
			}
			if _, err := m.Try(dev, "curl", "-sS", url); err == nil {
				m.T.Error("the name resolves")
			}
			m.uninstall("--purge")
			m.checkSame("afterwards", before)
		})
		m.check("for root, explicitly", func(m *machine) {
			m.Run(root, "tunneld", "install", "--yes", "--user", "root")
			m.Run(root, "systemctl", "is-active", "tunneld@0.service")
			m.Run(root, "tunneld", "uninstall", "--yes", "--purge", "--user", "root")
			m.checkSame("afterwards", before)
		})
		for _, test := range []struct {
			name   string
			uid    int
			args   string
			status int
			says   string
		}{
			{"a dry run", root, "install --dry-run --user dev", 0, policy},
			{"a user's dry run", dev, "install --dry-run", 0, policy},
			{"without root", dev, "install --yes", 1, "sudo /usr/bin/tunneld install"},
			{"nobody to ask", root, "install --user dev </dev/null", 2, "--yes"},
			{"the removal of nothing", root, "uninstall --yes --user dev", 0, ""},
			{"the removal of nothing by a user", dev, "uninstall --yes", 0, ""},
			{"root, not explicitly", root, "install --yes", 2, "--user"},
			{"an unknown user", root, "install --yes --user nobody-there", 1, "nobody-there"},
			{"somebody else, without root", dev, "install --yes --user other", 1, "root"},
			{"an unknown step", root, "install --yes --user dev --without coffee", 2, "coffee"},
			{"an unknown flag", root, "install --yes --coffee", 2, "--coffee"},
		} {
			m.check(test.name, func(m *machine) {
				o := m.outcome(test.uid, "sh", "-c", "tunneld "+test.args)
				if o.status != test.status || !strings.Contains(o.text, test.says) {
					m.T.Errorf("exit status %d; want %d, and %q:\n%s", o.status, test.status, test.says, o.text)
				}
				m.checkSame("afterwards", before)
			})
		}
	})
}

// Two users of one machine have nothing in common but the machine.
func TestTwoUsers(t *testing.T) {
	onOne(t, func(m *machine) {
		m.installPackage(oldVersion)
		before := m.snapshot()
		m.install()
		m.add()
		m.Run(root, "tunneld", "install", "--yes", "--user", "other")
		m.Run(other, "tunnelctl", "add", service, "--name", "theirs")
		const theirs = "https://theirs.local/health"
		leads := func(url string) {
			m.T.Helper()
			await.Until(t, url+" to lead somewhere", func() bool {
				_, err := m.Try(other, "curl", "-sS", "--fail", url)
				return err == nil
			})
		}
		leads(theirs)
		both := func(when string) {
			m.T.Helper()
			for _, uid := range []int{dev, other} {
				m.checkFetch(uid, url)
				m.checkFetch(uid, theirs)
			}
			if m.T.Failed() {
				m.T.Fatal(when)
			}
		}
		both("with both installed")
		// What is one's cannot be taken over.
		m.outcome(other, "tunnelctl", "add", service)
		both("after the same forward of the other one's")
		if got, want := m.status().DNS.Rung, m.env.rung; got != want {
			t.Errorf("names are claimed by %q; want %q", got, want)
		}
		if o := m.outcome(other, "tunnelctl", "--socket", "/run/tunneld/1000/tunneld.sock", "status"); o.status == 0 {
			t.Errorf("another user gets to the daemon:\n%s", o.text)
		}
		// At a reboot it would be whose daemon starts first.
		m.Run(other, "tunnelctl", "rm", service)
		m.Reboot()
		leads(url) // the name in the cluster, of which there is one, may be the other one's now
		leads(theirs)
		both("after a reboot")

		m.uninstall()
		m.checkFetch(other, theirs)
		m.checkFetch(dev, theirs)
		m.install()
		leads(url)
		both("after one was uninstalled, and installed again")
		m.Run(root, "tunneld", "uninstall", "--yes", "--all")
		after := m.snapshot()
		drop(after, configDir)
		drop(after, "/home/other/.config")
		m.checkDifference("after both were uninstalled", before, after)
	})
}

// plugin is a credential plugin that needs to be found, and to know for whom it is
// asked.
const plugin = `#!/bin/sh -eu
echo "${AWS_PROFILE-nobody}" >>"$HOME/plugin.log"
token=$(cat "$HOME/tokens/$AWS_PROFILE")
printf '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"%s"}}' "$token"
`

// A credential plugin has from the service what it has from the user's shell.
func TestPlugin(t *testing.T) {
	onOne(t, func(m *machine) {
		text := m.Run(dev, "cat", kubeconfig)
		token := regexp.MustCompile(`(?m)^( +)token: (\S+)$`)
		found := token.FindStringSubmatch(text)
		if found == nil {
			t.Fatalf("no token in the kubeconfig:\n%s", text)
		}
		m.writeAs(dev, kubeconfig, token.ReplaceAllString(text, `${1}exec: {apiVersion: client.authentication.k8s.io/v1, command: lab-token, interactiveMode: Never}`))
		m.writeAs(dev, "/home/dev/bin/lab-token", plugin)
		m.writeAs(dev, "/home/dev/tokens/lab", found[2])
		m.Run(dev, "sh", "-euc", "chmod 700 ~/bin/lab-token; echo 'export AWS_PROFILE=lab' >>~/.profile") // which puts ~/bin into PATH
		m.installPackage(oldVersion)
		m.install()
		m.add()
		m.checkWorks()
		if got := m.Run(root, "stat", "--format=%a %U", "/home/dev/.local/state/tunneld/environment.json"); got != "600 dev" {
			t.Errorf("the captured environment is %s", got)
		}

		m.Run(dev, "mv", "/home/dev/tokens/lab", "/home/dev/tokens/second")
		m.Run(dev, "rm", "/home/dev/plugin.log")
		m.Run(dev, "env", "AWS_PROFILE=second", "PATH=/home/dev/bin:/usr/bin:/bin", "tunnelctl", "reload", "--env")
		asked := func() bool {
			out, _ := m.Try(dev, "sort", "-u", "/home/dev/plugin.log")
			return out == "second"
		}
		await.Until(t, "the plugin to be asked for the second profile", asked)
		m.checkWorks()
		m.Run(dev, "rm", "/home/dev/plugin.log")
		m.Run(root, "systemctl", "restart", daemonUnit)
		m.awaitNames()
		m.checkWorks()
		if !asked() {
			t.Error("after a restart the plugin is asked for another profile")
		}
		m.checkLeftRunning()
		m.checkRootsPrograms()
	})
}

// checkLeftRunning has the plugin leave a process behind that does not heed SIGTERM,
// as programs do that wait for an answer. Nobody waits for it.
func (m *machine) checkLeftRunning() {
	m.T.Helper()
	const left = "\nsetsid sh -c 'trap \"\" TERM; echo $$ >\"$HOME/left\"; exec sleep 1h' >/dev/null 2>&1 &\n"
	for profile, how := range map[string]string{"third": "systemctl restart " + daemonUnit, "fourth": "systemctl kill --signal=KILL --kill-who=main " + daemonUnit} {
		m.writeAs(dev, "/home/dev/bin/lab-token", plugin+left)
		m.Run(dev, "sh", "-euc", "rm -f ~/left; cp ~/tokens/second ~/tokens/"+profile+"; AWS_PROFILE="+profile+" PATH=/home/dev/bin:/usr/bin:/bin tunnelctl reload --env")
		await.Until(m.T, "the plugin to leave something running", func() bool {
			_, err := m.Try(dev, "test", "-s", "/home/dev/left")
			return err == nil
		})
		m.writeAs(dev, "/home/dev/bin/lab-token", plugin)
		began := time.Now()
		m.Script(how)
		m.checkWorks()
		if took := time.Since(began); took >= stopTimeout {
			m.T.Errorf("%s: served after %v: what plugins leave running is waited for", how, took)
		}
		if out, err := m.Try(dev, "sh", "-c", "kill -0 $(cat ~/left)"); err == nil {
			m.T.Errorf("%s: what the plugin has left still runs\n%s", how, out)
		}
	}
}

// checkRootsPrograms gives the service a PATH by its unit that begins with the user's
// own programs. None of them is run by root.
func (m *machine) checkRootsPrograms() {
	m.T.Helper()
	for _, name := range []string{"sh", "grep", "systemctl", "env"} {
		m.writeAs(dev, "/home/dev/bin/"+name, "#!/bin/sh\nid -u >>/home/dev/ran\nexec /usr/bin/"+name+" \"$@\"\n")
		m.Run(dev, "chmod", "700", "/home/dev/bin/"+name)
	}
	m.Script("mkdir /etc/systemd/system/" + daemonUnit + ".d; printf '[Service]\\nEnvironment=PATH=/home/dev/bin:/usr/bin:/bin\\n' >/etc/systemd/system/" + daemonUnit + ".d/path.conf; systemctl daemon-reload; systemctl restart " + daemonUnit + "; systemctl restart " + daemonUnit)
	if out, _ := m.Try(root, "grep", "-x", "0", "/home/dev/ran"); out != "" {
		m.T.Error("root has run a program of the user's")
	}
	m.Script("rm -r /etc/systemd/system/" + daemonUnit + ".d /home/dev/bin/sh /home/dev/bin/grep /home/dev/bin/systemctl /home/dev/bin/env; systemctl daemon-reload; systemctl restart " + daemonUnit)
}

// stopTimeout is the unit's.
const stopTimeout = 10 * time.Second

// The snapshots see what they are there for.
func TestSnapshot(t *testing.T) {
	m := newMachine(t, environments()[0])
	for _, test := range []struct{ name, change string }{
		{"a new file", "echo >/usr/lib/new"},
		{"a link", "ln -s /nowhere /etc/link"},
		{"a change", "echo >>/etc/profile"},
		{"a mode", "chmod 600 /etc/issue"},
		{"an owner", "chown dev /etc/issue"},
		{"an attribute", "setfattr -n user.note -v mine /etc/issue"},
		{"a removed file", "rm /etc/issue"},
		{"a removed directory", "rm -r /usr/share/doc"},
		{"a directory that was replaced", "rm -r /etc/skel; mkdir /etc/skel"},
		{"a certificate", "certutil -S -z /etc/passwd -d sql:/root -n x -s CN=x -t C,, -x; certutil -L -d sql:/root -n x -a >/run/x.pem; rm /root/*.db; su dev -c 'certutil -A -d sql:" + nssDatabase + " -n x -t C,, -i /run/x.pem'"},
		{"an interface", "ip link add bridge7 type bridge"},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := m.in(t)
			before := m.snapshot()
			m.Script(test.change)
			if diff := debian.Differences(before, m.snapshot()); diff == "" {
				t.Error("it sees no difference")
			}
		})
	}
}
