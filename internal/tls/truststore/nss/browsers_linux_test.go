package nss

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/internal/tls/truststore/program"
)

func TestFind(t *testing.T) {
	home := t.TempDir()
	write := func(path, data string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{
		".pki/nssdb", ".local/share/pki/nssdb", "snap/chromium/7/.pki/nssdb", "snap/firefox/common/.mozilla/firefox/s.default",
		".var/app/org.mozilla.firefox/.mozilla/firefox/f.default", ".mozilla/firefox/listed", ".mozilla/firefox/not.listed", "far/away",
		".config/mozilla/firefox/new.default", ".var/app/com.google.Chrome/data/pki/nssdb",
	} {
		write(filepath.Join(home, dir, "cert9.db"), "")
	}
	write(filepath.Join(home, ".mozilla/firefox/old.default/cert8.db"), "")
	write(filepath.Join(home, ".mozilla/firefox/never.started/prefs.js"), "")
	write(filepath.Join(home, ".waterfox"), "a file")
	write(filepath.Join(home, ".mozilla/firefox/profiles.ini"),
		"[Profile0]\nPath=listed\nIsRelative=1\n[Profile1]\nPath=../../far/away\n[Profile2]\nIsRelative=0\nPath="+home+"/.mozilla/firefox/listed\n")
	if err := os.Symlink("7", filepath.Join(home, "snap/chromium/current")); err != nil {
		t.Fatal(err)
	}
	b := Browsers{Home: home, Getenv: func(string) string { return "" }, Programs: program.Programs{Find: func(name string) (string, error) {
		return "/usr/bin/" + name, nil
	}}}
	var got []string
	for _, st := range b.Find() {
		p := st.Place()
		got = append(got, strings.TrimPrefix(p.Path, home+"/")+": "+p.Readers)
	}
	same(t, "found", []string{
		".pki/nssdb: " + chromiumReaders,
		".local/share/pki/nssdb: " + chromiumReaders,
		"snap/chromium/current/.pki/nssdb: Chromium (snap)",
		".var/app/com.google.Chrome/data/pki/nssdb: Chrome (flatpak)",
		".mozilla/firefox/listed: Firefox, profile listed",
		".mozilla/firefox/not.listed: Firefox, profile not.listed",
		"far/away: Firefox, profile away",
		".config/mozilla/firefox/new.default: Firefox, profile new.default",
		"snap/firefox/common/.mozilla/firefox/s.default: Firefox (snap), profile s.default",
		".var/app/org.mozilla.firefox/.mozilla/firefox/f.default: Firefox (flatpak), profile f.default",
	}, got)
}
