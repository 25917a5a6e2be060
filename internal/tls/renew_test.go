package tls_test

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	localtls "github.com/tunneld/tunneld/internal/tls"
)

func renew(t testing.TB, ca *localtls.CA) {
	t.Helper()
	if err := ca.Renew(t.Context(), "asked for"); err != nil {
		t.Fatal(err)
	}
}

func TestRenew(t *testing.T) {
	dir := t.TempDir()
	ca := load(t, dir, "dev.example")
	old, oldKey := ca.Root(), steal(t, dir).key
	was, err := ca.Leaf(t.Context(), "task-api.local")
	if err != nil {
		t.Fatal(err)
	}
	told := 0
	ca.Renewed = func() { told++ }
	renew(t, ca)

	if ca.Root().Equal(old) || ca.Root().Subject.String() == old.Subject.String() {
		t.Error("the root is the old one, or is called like it")
	}
	if now := steal(t, dir); now.key.Equal(oldKey) || !now.root.Equal(ca.Root()) {
		t.Error("on disk is another one")
	}
	if ca.Replaced() != "asked for" || told != 1 {
		t.Errorf("Replaced is %q; told %d times", ca.Replaced(), told)
	}
	if want := "local localhost test dev.example"; strings.Join(ca.Permitted(), " ") != want {
		t.Errorf("permits %v; want %s", ca.Permitted(), want)
	}
	leaf, err := ca.Leaf(t.Context(), "task-api.local")
	if err != nil {
		t.Fatal(err)
	}
	if leaf == was {
		t.Error("a leaf of the old one is served")
	}
	if err := verify(ca, leaf.Leaf, parse(t, leaf.Certificate[1]), "task-api.local"); err != nil {
		t.Error(err)
	}
	checkWhole(t, dir, "dev.example", ca)
}

// The daemon runs for years: at the end of its CA's life the next handshake gets a
// leaf of a new one.
func TestEndOfLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		ca := load(t, dir, "local")
		server := ca.ServerConfig(only("task-api.local"), listenAddr)
		old, end := ca.Root(), ca.NotAfter()
		trusting := client(ca, "task-api.local")

		time.Sleep(time.Until(end) - 2*time.Hour)
		if err := ca.RenewOld(t.Context()); err != nil {
			t.Fatal(err)
		}
		if h := shake(t, server, trusting); h.clientErr != nil || !ca.Root().Equal(old) || ca.Replaced() != "" {
			t.Errorf("two hours before its end: %v, replaced %q", h.clientErr, ca.Replaced())
		}
		time.Sleep(time.Hour + time.Minute)
		if h := shake(t, server, trusting); h.clientErr != nil {
			t.Errorf("as long as it is valid nobody waits for another: %v", h.clientErr)
		}
		if err := ca.RenewOld(t.Context()); err != nil {
			t.Fatal(err)
		}
		if h := shake(t, server, trusting); h.clientErr == nil {
			t.Error("it was served on")
		}
		if h := shake(t, server, client(ca, "task-api.local")); h.clientErr != nil || ca.Root().Equal(old) {
			t.Errorf("a client that trusts the new root: %v", h.clientErr)
		}
		if want := "it was about to expire, on 2005-01-01"; ca.Replaced() != want {
			t.Errorf("replaced: %q; want %q", ca.Replaced(), want)
		}
		checkWhole(t, dir, "local", ca)

		// The machine sleeps for six years.
		time.Sleep(6 * 365 * 24 * time.Hour)
		second := ca.Root()
		shake(t, server, client(ca, "task-api.local"))
		if h := shake(t, server, client(ca, "task-api.local")); h.clientErr != nil || ca.Root().Equal(second) || !strings.HasPrefix(ca.Replaced(), "it expired on 20") {
			t.Errorf("after six years: %v, replaced %q", h.clientErr, ca.Replaced())
		}
		if again := load(t, dir, "local"); again.Created != "" || again.Replaced() != "" {
			t.Errorf("loaded again: made anew (%q)", again.Created)
		}
	})
}

// What is being replaced is served until the new one is there, and nobody is
// refused.
func TestHandshakesDuringRenewals(t *testing.T) {
	dir := t.TempDir()
	ca := load(t, dir, "local")
	server := ca.ServerConfig(only("task-api.local"), listenAddr)
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				// Which root it is does not matter here.
				h := shake(t, server, &tls.Config{InsecureSkipVerify: true, ServerName: "task-api.local"})
				if h.clientErr != nil || h.serverErr != nil {
					t.Errorf("client: %v, server: %v", h.clientErr, h.serverErr)
					return
				}
				chain := h.state.PeerCertificates
				if err := chain[0].CheckSignatureFrom(chain[1]); err != nil {
					t.Errorf("leaf and intermediate are of two CAs: %v", err)
				}
			}
		})
	}
	for range 20 {
		renew(t, ca)
	}
	close(stop)
	clients.Wait()
	checkWhole(t, dir, "local", ca)
}

// At no moment does the directory hold two keys. It is read in the order in which
// a key moves, so that none is seen twice.
func TestNeverTwoKeys(t *testing.T) {
	dir := t.TempDir()
	ca := load(t, dir, "local")
	stop := make(chan struct{})
	var watching sync.WaitGroup
	looks := 0
	watching.Go(func() {
		for ; ; looks++ {
			select {
			case <-stop:
				return
			default:
			}
			// What was there before and after the other was seen was there beside it.
			tmp := filepath.Join(dir, keyFile+".tmp")
			first, second := keyIn(tmp), keyIn(filepath.Join(dir, keyFile))
			if first != "" && second != "" && first != second && keyIn(tmp) == first {
				t.Error("two keys are there")
				return
			}
		}
	})
	for range 30 {
		renew(t, ca)
	}
	close(stop)
	watching.Wait()
	if looks < 30 {
		t.Logf("looked %d times only", looks)
	}
}

// keyIn is the key in a file; empty if there is none, or not all of it yet.
func keyIn(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return ""
	}
	return string(block.Bytes)
}

// Many handshakes come across the end of the CA's life at once.
func TestOneRenewalForManyCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := load(t, t.TempDir(), "local")
		var mu sync.Mutex
		told := 0
		ca.Renewed = func() {
			mu.Lock()
			defer mu.Unlock()
			told++
		}
		time.Sleep(time.Until(ca.NotAfter()) + time.Hour)
		var callers sync.WaitGroup
		for range 50 {
			callers.Go(func() {
				if _, err := ca.Leaf(t.Context(), "task-api.local"); err != nil {
					t.Error(err)
				}
			})
		}
		callers.Wait()
		if told != 1 {
			t.Errorf("renewed %d times", told)
		}
	})
}

// A CA that cannot be replaced is served for as long as it is of any use.
func TestRenewalThatFails(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("needs Unix errors")
	}
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "state")
		ca := load(t, dir, "local")
		old := ca.Fingerprint()
		away := dir + ".away"
		if err := os.Rename(dir, away); err != nil {
			t.Fatal(err)
		}
		if err := ca.Renew(t.Context(), "asked for"); !errors.Is(err, os.ErrNotExist) || ca.Fingerprint() != old || ca.Replaced() != "" {
			t.Errorf("%v, replaced %q", err, ca.Replaced())
		}
		time.Sleep(time.Until(ca.NotAfter()) - time.Minute)
		if cert, err := ca.Leaf(t.Context(), "task-api.local"); err != nil || cert.Leaf.NotAfter.After(ca.NotAfter()) {
			t.Errorf("before its end: %v", err)
		}
		if err := ca.RenewOld(t.Context()); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("RenewOld: %v", err)
		}
		time.Sleep(time.Hour)
		if _, err := ca.Leaf(t.Context(), "task-api.local"); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "expired on 2005-01-01") {
			t.Errorf("after its end: %v", err)
		}
		if err := os.Rename(away, dir); err != nil {
			t.Fatal(err)
		}
		if _, err := ca.Leaf(t.Context(), "task-api.local"); err != nil {
			t.Errorf("once it works again: %v", err)
		}
		checkWhole(t, dir, "local", ca)
	})
}

func TestRenewalWaitsNoLongerThanItMay(t *testing.T) {
	ca := load(t, t.TempDir(), "local")
	ctx, cancel := context.WithCancelCause(t.Context())
	ca.Renewed = func() { // the turn is taken now
		gone := errors.New("gone")
		cancel(gone)
		if err := ca.Renew(ctx, "asked for, too"); !errors.Is(err, gone) {
			t.Errorf("%v; want %v", err, gone)
		}
	}
	if err := ca.Renew(t.Context(), "asked for"); err != nil {
		t.Error(err)
	}
	if ca.Replaced() != "asked for" {
		t.Errorf("replaced: %q", ca.Replaced())
	}
}

// What is connected stays so, and sessions go on: see Renew.
func TestConnectionsOutliveARenewal(t *testing.T) {
	ca := load(t, t.TempDir(), "local")
	conf := ca.ServerConfig(only("task-api.local"), listenAddr)
	near, far := net.Pipe()
	defer near.Close()
	var serving sync.WaitGroup
	serving.Go(func() {
		c := tls.Server(far, conf)
		defer c.Close()
		io.Copy(c, c)
	})
	c := tls.Client(near, client(ca, "task-api.local"))
	echo := func() {
		t.Helper()
		if _, err := io.WriteString(c, "hello"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
	}
	echo()
	session := client(ca, "task-api.local")
	session.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	if h := shake(t, conf, session); h.clientErr != nil {
		t.Fatal(h.clientErr)
	}
	renew(t, ca)
	echo()
	if h := shake(t, conf, session); h.clientErr != nil || !h.state.DidResume {
		t.Errorf("a session of before: %v, resumed %v", h.clientErr, h.state.DidResume)
	}
	near.Close()
	serving.Wait()
}

// A clock that is set forth and back leaves nobody with a leaf that is not valid.
func TestClockThatJumps(t *testing.T) {
	dir := t.TempDir()
	ca := load(t, dir, "local")
	synctest.Test(t, func(t *testing.T) { // where it is the year 2000
		cert, err := ca.Leaf(t.Context(), "task-api.local")
		if err != nil {
			t.Fatal(err)
		}
		if !cert.Leaf.NotBefore.Before(time.Now()) || cert.Leaf.NotAfter.Before(time.Now()) {
			t.Errorf("valid from %v to %v; it is %v", cert.Leaf.NotBefore, cert.Leaf.NotAfter, time.Now())
		}
	})
	cert, err := ca.Leaf(t.Context(), "task-api.local")
	if err != nil {
		t.Fatal(err)
	}
	if err := verify(ca, cert.Leaf, parse(t, cert.Certificate[1]), "task-api.local"); err != nil {
		t.Errorf("with the clock mended: %v", err)
	}
	if ca.Replaced() != "" {
		t.Errorf("it was replaced: %s", ca.Replaced())
	}
}
