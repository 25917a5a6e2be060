package truststore

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/internal/tls/truststore/place"
	"github.com/tunneld/tunneld/internal/tls/truststore/storetest"
)

// A step that somebody has made up removes no file by its fingerprint, and ends no
// process by its lack of a certificate.
func TestForgedStep(t *testing.T) {
	dir := t.TempDir()
	victim := filepath.Join(dir, "daemon.json")
	if err := os.WriteFile(victim, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := &Stores{Scope: User, Home: dir, Receipts: filepath.Join(dir, "receipts")}
	for _, step := range []Step{
		{Action: Remove, Fingerprint: "../daemon", Place: Place{Kind: place.Receipt, Scope: User}},
		{Action: Remove, Fingerprint: strings.Repeat("a", 64), Place: Place{Kind: place.NSS, Path: dir, Scope: User}},
		{Action: Add, Fingerprint: strings.Repeat("A", 64), Place: Place{Kind: place.Receipt, Scope: User}},
	} {
		if err := s.Do(t.Context(), step); err == nil {
			t.Errorf("%+v was done", step)
		}
	}
	if _, err := os.Stat(victim); err != nil {
		t.Error(err)
	}
}

// A user's receipt that names what is the machine's plans nothing there.
func TestForgedReceipt(t *testing.T) {
	dir := t.TempDir()
	cert := storetest.Root(t, "forged")
	fingerprint := place.Fingerprint(cert)
	receipts := filepath.Join(dir, "receipts")
	text, err := json.Marshal(receipt{
		Version: receiptVersion, Certificate: string(place.Encode(cert)),
		Places: []noted{{Place: Place{Kind: place.Debian, Path: "/usr/local/share/ca-certificates", Scope: Machine}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(receipts, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(receipts, fingerprint+receiptExt), text, 0o600); err != nil {
		t.Fatal(err)
	}
	s := &Stores{Scope: User, Home: dir, Receipts: receipts}
	steps, err := s.Removal(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range steps {
		if step.Place.Scope != User {
			t.Errorf("planned: %+v", step)
		}
		if err := s.Do(t.Context(), step); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(receipts); !os.IsNotExist(err) {
		t.Errorf("the receipts are still there: %v", err)
	}
}
