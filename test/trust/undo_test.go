//go:build trust

package trust

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/await"
	"github.com/tunneld/tunneld/internal/isolate"
)

// A layout is how a system keeps its trust store.
type layout struct {
	// prepare makes the machine one of the kind; empty if it is.
	prepare string
	// anchors is where certificates are put.
	anchors string
	// moments is at how many moments an installation is killed, and a removal at half as
	// many.
	moments int
	// jdks says that there are JDKs with key stores of their own, which takes its time.
	jdks bool
}

var (
	debian = layout{anchors: "/usr/local/share/ca-certificates", moments: 3, jdks: true}
	// The others' trust stores are p11-kit's, from which a script of each
	// distribution makes the files that programs read. This Debian's programs find them
	// by links.
	redHat = layout{anchors: "/etc/pki/ca-trust/source/anchors", moments: 2, prepare: p11kit + `
mkdir -p /etc/pki/ca-trust/source/anchors /etc/pki/ca-trust/source/blocklist /usr/share/pki/ca-trust-source/anchors
mkdir -p /etc/pki/tls/certs /etc/pki/ca-trust/extracted/pem /etc/pki/ca-trust/extracted/openssl /etc/pki/ca-trust/extracted/java
mv /mnt/bundle /usr/share/pki/ca-trust-source/anchors/mozilla.pem
paths /etc/pki/ca-trust/source:/usr/share/pki/ca-trust-source
cat >/usr/bin/update-ca-trust <<'END'
#!/bin/sh
to=/etc/pki/ca-trust/extracted
trust extract --overwrite --comment --filter=ca-anchors --purpose=server-auth --format=pem-bundle $to/pem/tls-ca-bundle.pem
trust extract --overwrite --comment --filter=certificates --format=openssl-bundle $to/openssl/ca-bundle.trust.crt
trust extract --overwrite --filter=ca-anchors --purpose=server-auth --format=java-cacerts $to/java/cacerts
END
chmod 755 /usr/bin/update-ca-trust
ln -s /etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem /etc/pki/tls/certs/ca-bundle.crt
ln -s /etc/pki/tls/certs /etc/ssl/certs
ln -s ca-bundle.crt /etc/pki/tls/certs/ca-certificates.crt
ln -s /etc/pki/ca-trust/extracted/java /etc/pki/tls/certs/java
printf 'ID=fedora\nVERSION_ID=44\n' >/etc/os-release
update-ca-trust`}
	arch = layout{anchors: "/etc/ca-certificates/trust-source/anchors", moments: 2, prepare: p11kit + `
mkdir -p /etc/ca-certificates/trust-source/anchors /etc/ca-certificates/trust-source/blocklist /etc/ca-certificates/extracted
mkdir -p /usr/share/ca-certificates/trust-source/anchors /etc/ssl/certs/java
mv /mnt/bundle /usr/share/ca-certificates/trust-source/anchors/mozilla.pem
paths /etc/ca-certificates/trust-source:/usr/share/ca-certificates/trust-source
cat >/usr/bin/update-ca-trust <<'END'
#!/bin/sh
to=/etc/ca-certificates/extracted
trust extract --overwrite --comment --filter=ca-anchors --purpose=server-auth --format=pem-bundle $to/tls-ca-bundle.pem
trust extract --overwrite --filter=ca-anchors --purpose=server-auth --format=java-cacerts /etc/ssl/certs/java/cacerts
END
chmod 755 /usr/bin/update-ca-trust
ln -s /usr/bin/update-ca-trust /usr/libexec/p11-kit/trust-extract-compat
ln -s ../../ca-certificates/extracted/tls-ca-bundle.pem /etc/ssl/certs/ca-certificates.crt
printf 'ID=arch\n' >/etc/os-release
update-ca-trust`}
)

// p11kit takes out what only Debian has, and has p11-kit read a list of directories.
const p11kit = `
cp /etc/ssl/certs/ca-certificates.crt /mnt/bundle
rm -rf /etc/ssl/certs /etc/ca-certificates /etc/ca-certificates.conf /usr/sbin/update-ca-certificates
rm -rf /usr/share/ca-certificates /usr/local/share/ca-certificates
rm /etc/os-release
paths() { sed -i "s,^x-init-reserved:.*,x-init-reserved: paths=$1," /usr/share/p11-kit/modules/p11-kit-trust.module; }
`

func TestUndoDebian(t *testing.T) { testUndo(t, debian) }
func TestUndoRedHat(t *testing.T) { testUndo(t, redHat) }
func TestUndoArch(t *testing.T)   { testUndo(t, arch) }

// testUndo has the CA trusted, and shows that then everything can be as it was,
// whatever happened in between.
func testUndo(t *testing.T, l layout) {
	t.Parallel()
	if !isolate.Test(t) {
		return
	}
	m := boot(t)
	if l.prepare != "" {
		m.script(l.prepare)
	}
	if l.jdks {
		m.addJDKs(dev)
	}
	m.startDaemon()
	t.Run("a user who has started no browser", func(t *testing.T) {
		m := m.in(t)
		before := m.snapshot()
		m.install()
		m.remove()
		m.checkSame("after a removal", before)
	})
	m.startBrowsersOnce(dev)
	before := m.snapshot()
	t.Run("twice", func(t *testing.T) {
		m := m.in(t)
		m.install()
		l.checkOne(t)
		for _, c := range clients {
			if c.family == "curl" || c.family == "Java" {
				if refused := c.get(m, dev); refused != "" {
					t.Errorf("%s does not trust what was installed: %s", c.family, refused)
				}
			}
		}
		installed := m.snapshot()
		m.install()
		m.checkSame("after a second installation", installed)
		m.remove()
		m.checkSame("after a removal", before)
		m.remove()
		m.checkSame("after a second removal", before)
	})
	t.Run("killed", func(t *testing.T) {
		m := m.in(t)
		n := l.moments
		if os.Getenv("TUNNELD_SOAK") != "" {
			n = 100
		}
		began := time.Now()
		m.install()
		took := time.Since(began)
		for i := range n {
			if i == 0 {
				m.remove()
			}
			after := took * time.Duration(i+1) / time.Duration(n+1)
			m.runAndKill(after, installCommand, killed[i%2])
			m.remove()
			m.checkSame(fmt.Sprintf("after an installation that was killed after %v, not %v, and a removal,", after, took), before)
		}
		for i := range n / 2 {
			m.install()
			after := took * time.Duration(i+1) / time.Duration(n/2+1)
			m.runAndKill(after, removeCommand, killed[(i+1)%2])
			m.remove()
			m.checkSame(fmt.Sprintf("after a removal that was killed after %v and one that was not", after), before)
		}
	})
	t.Run("renewed", func(t *testing.T) {
		m := m.in(t)
		m.install()
		m.run(dev, "sudo", "tunnelctl", "trust", "--renew", "--yes")
		l.checkOne(t)
		m.remove()
		after := m.snapshot()
		for path, was := range before {
			if filepath.Dir(path) == stateDir { // the daemon's own files are another CA's now
				after[path] = was
			}
		}
		if diff := differences(before, after); diff != "" {
			t.Errorf("after a removal it is not as it was before:\n%s", diff)
		}
	})
}

var (
	installCommand = []string{"sudo", "tunnelctl", "trust", "--yes"}
	removeCommand  = []string{"sudo", "tunnelctl", "trust", "--remove", "--yes"}
)

func (m *machine) install() {
	m.t.Helper()
	m.run(dev, installCommand[0], installCommand[1:]...)
}

func (m *machine) remove() {
	m.t.Helper()
	m.run(dev, removeCommand[0], removeCommand[1:]...)
}

// checkOne fails the test unless one certificate is installed.
func (l layout) checkOne(t *testing.T) {
	t.Helper()
	if ours := l.ours(t); len(ours) != 1 {
		t.Errorf("%v in %s; want one certificate of ours", ours, l.anchors)
	}
}

// ours are the certificates in the directory that are tunneld's.
func (l layout) ours(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(l.anchors + "/*tunneld*")
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// addJDKs installs two JDKs that have a key store of their own, as those have that do
// not come from the distribution: one for all, one in the user's home.
func (m *machine) addJDKs(u user) {
	m.t.Helper()
	m.script(`
java=$(dirname "$(dirname "$(readlink -f /usr/bin/java)")")
for jdk in /usr/lib/jvm/own ` + u.home + `/.sdkman/candidates/java/own; do
	mkdir -p $jdk/bin $jdk/lib/security
	ln -s "$java"/bin/* $jdk/bin/
	cp "$(readlink -f "$java/lib/security/cacerts")" $jdk/lib/security/cacerts
	chmod 444 $jdk/lib/security/cacerts
done
chown -R ` + u.name + `: ` + u.home)
}

// runAndKill runs a command as the user, kills (SIGKILL) those of these programs that
// it has started after a time, and waits for the rest to end.
func (m *machine) runAndKill(after time.Duration, command, programs []string) {
	m.t.Helper()
	before := others()
	cmd := m.command(context.Background(), dev, command[0], command[1:]...)
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		cmd.Wait()
	}()
	select {
	case <-ended:
	case <-time.After(after):
		// They are stopped first, so that there are no more of them.
		stopped := make(map[int]bool)
		for more := true; more; {
			more = false
			for pid := range others() {
				if _, ok := before[pid]; !ok && !stopped[pid] {
					stopped[pid], more = true, true
					syscall.Kill(pid, syscall.SIGSTOP)
				}
			}
		}
		for pid, program := range others() {
			if stopped[pid] && slices.Contains(programs, program) {
				syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		for pid := range stopped {
			syscall.Kill(pid, syscall.SIGCONT)
		}
		<-ended
	}
	await.Until(m.t, "what was started to end", func() bool {
		for pid := range others() {
			if _, ok := before[pid]; !ok {
				return false
			}
		}
		return true
	})
}

// Who is killed: tunnelctl alone, or what it starts as well, by the first 15 bytes of
// their names. Not dpkg, through which Debian's store tells Java's: whoever kills that
// has to mend what is installed. Nor p11-kit's trust, which leaves files of its own.
var killed = [...][]string{
	{"tunnelctl", "update-ca-certi", "update-ca-trust", "certutil"},
	{"tunnelctl"},
}
