//go:build trust

package trust

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/isolate"
	"github.com/tunneld/tunneld/internal/status"
)

// TestUnlucky has things fail that an installation needs: it says so in a sentence, and
// leaves nothing half done.
func TestUnlucky(t *testing.T) {
	t.Parallel()
	if !isolate.Test(t) {
		return
	}
	m := boot(t)
	d := m.startDaemon()
	m.startBrowsersOnce(dev)
	before := m.snapshot()
	for _, c := range []struct {
		name       string
		fail, mend string // scripts of root's
		command    []string
		// planned says that it is seen before anything is tried: the plan says so, and
		// there is a hint. Else the command fails with status 1.
		planned bool
		words   []string // that it says
	}{
		{
			name: "the disk is full for root's receipts",
			fail: "mkdir -p /var/lib/tunneld-trust; mount -t tmpfs -o size=4k,mode=755 full /var/lib/tunneld-trust; dd if=/dev/zero of=/var/lib/tunneld-trust/full 2>/dev/null || true",
			mend: "umount /var/lib/tunneld-trust; rmdir /var/lib/tunneld-trust", command: []string{"sudo", "tunnelctl", "trust", "--only", "machine", "--yes"},
			words: []string{"the disk is full"},
		},
		{
			name: "the disk is full for the user's receipts",
			fail: "install -d -m 700 -o dev -g dev " + stateDir + "/trust; mount -t tmpfs -o size=4k,mode=777 full " + stateDir + "/trust; dd if=/dev/zero of=" + stateDir + "/trust/full 2>/dev/null || true",
			mend: "umount " + stateDir + "/trust; rmdir " + stateDir + "/trust", command: []string{"tunnelctl", "trust", "--yes"},
			words: []string{"the disk is full"},
		},
		{
			name: "/etc is read-only",
			fail: "mount -o remount,bind,ro /etc", mend: "mount -o remount,bind,rw /etc",
			command: []string{"sudo", "tunnelctl", "trust", "--only", "machine", "--yes"},
			planned: true, words: []string{"read-only"},
		},
		{
			name: "the store's directory is read-only",
			fail: "mount --bind /usr/local/share/ca-certificates /usr/local/share/ca-certificates; mount -o remount,bind,ro /usr/local/share/ca-certificates",
			mend: "umount /usr/local/share/ca-certificates", command: []string{"sudo", "tunnelctl", "trust", "--only", "machine", "--yes"},
			planned: true, words: []string{"read-only"},
		},
		{
			name: "update-ca-certificates fails",
			fail: `mv /usr/sbin/update-ca-certificates /mnt/; printf '#!/bin/sh\necho it does not work >&2\nexit 1\n' >/usr/sbin/update-ca-certificates; chmod 755 /usr/sbin/update-ca-certificates`,
			mend: "mv /mnt/update-ca-certificates /usr/sbin/", command: []string{"sudo", "tunnelctl", "trust", "--only", "machine", "--yes"},
			words: []string{"update-ca-certificates"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := m.in(t)
			m.script(c.fail)
			o := m.try(dev, c.command[0], c.command[1:]...)
			if c.planned {
				m.checkBlocked(o, c.words...)
			} else {
				m.checkSaid(o, 1, c.words...)
			}
			if ours := debian.ours(t); len(ours) > 0 {
				t.Errorf("%v is left", ours)
			}
			m.script(c.mend)
			// What could not be taken back is noted.
			m.remove()
			m.checkSame("after that", before)
		})
	}
	t.Run("certutil is missing", func(t *testing.T) {
		m := m.in(t)
		m.script("mv /usr/bin/certutil /mnt/")
		o := m.try(dev, "tunnelctl", "trust", "--yes")
		m.script("mv /mnt/certutil /usr/bin/")
		m.checkBlocked(o, "certutil")
		m.checkHint(o, "libnss3-tools")
		m.run(dev, "tunnelctl", "trust", "--remove", "--yes") // of what there was besides
		m.checkSame("after that", before)
	})
	t.Run("a daemon hands out a certificate for everything", func(t *testing.T) {
		m := m.in(t)
		at := m.fakeDaemon(t)
		for _, command := range [][]string{
			{"tunnelctl", "--socket", at, "trust", "--yes"},
			{"sudo", "tunnelctl", "--socket", at, "trust", "--yes"},
		} {
			m.checkSaid(m.try(dev, command[0], command[1:]...), 1, "must not be trusted")
			m.checkSame("after that", before)
		}
	})
	t.Run("the daemon is down", func(t *testing.T) {
		m := m.in(t)
		m.install()
		d.stop(syscall.SIGKILL)
		for _, command := range [][]string{{"tunnelctl", "trust", "--yes"}, {"sudo", "tunnelctl", "trust", "--yes"}, {"tunnelctl", "trust", "--check"}} {
			m.checkSaid(m.try(dev, command[0], command[1:]...), 3, "not running")
		}
		m.remove()
		m.checkSame("after a removal", before)
	})
}

// checkBlocked fails the test unless the plan says that something cannot be done, and
// why, and there is a hint.
func (m *machine) checkBlocked(o outcome, words ...string) {
	m.t.Helper()
	for _, w := range words {
		if !regexp.MustCompile("(?m)^ *cannot add .*" + regexp.QuoteMeta(w)).MatchString(o.out) {
			m.t.Errorf("%v\nwant a line that says what cannot be done, with %q", o, w)
		}
	}
	m.checkHint(o, "")
}

// checkHint fails the test unless there is a hint with a word in it.
func (m *machine) checkHint(o outcome, word string) {
	m.t.Helper()
	if !regexp.MustCompile("(?m)^tunnelctl: hint: .*" + regexp.QuoteMeta(word)).MatchString(o.errOut) {
		m.t.Errorf("%v\nwant a hint that has %q in it", o, word)
	}
}

// fakeDaemon serves, on a socket of the user dev, a root certificate that is not
// constrained to anything, and returns the socket.
func (m *machine) fakeDaemon(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "tunneld local root"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, root, root, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v0/ca.pem", func(w http.ResponseWriter, _ *http.Request) {
		pem.Encode(w, &pem.Block{Type: "CERTIFICATE", Bytes: der})
	})
	mux.HandleFunc("GET /v0/status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(status.Status{TLS: status.TLS{Dir: "/home/dev/fake"}})
	})
	dir := filepath.Join(dev.runtime(), "fake")
	m.run(dev, "mkdir", "-m", "700", dir)
	at := filepath.Join(dir, "socket")
	l, err := net.Listen("unix", at)
	if err == nil {
		err = os.Chown(at, dev.uid, dev.uid)
	}
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(mux)
	s.Listener.Close()
	s.Listener = l
	s.Start()
	t.Cleanup(s.Close)
	return at
}
