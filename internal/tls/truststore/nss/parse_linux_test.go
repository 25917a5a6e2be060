package nss

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tunneld/tunneld/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

func TestParseProfiles(t *testing.T) {
	for _, tt := range []struct {
		name, data string
		want       []string
	}{
		{"empty", "", nil},
		{"of 153", "[Profile1]\nName=default\nIsRelative=1\nPath=t.default\nDefault=1\n\n[Profile0]\nName=default-esr\nIsRelative=1\nPath=4.default-esr\n\n[General]\nStartWithLastProfile=1\nVersion=2\n\n[Install3B]\nDefault=4.default-esr\nLocked=1\n",
			[]string{"/ff/t.default", "/ff/4.default-esr"}},
		{"absolute", "[Profile0]\r\nIsRelative=0\r\nPath=/data/profile\r\n", []string{"/data/profile"}},
		{"path before", "[Profile0]\nPath=/data/profile\nIsRelative=0", []string{"/data/profile"}},
		{"absolute by mistake", "[Profile0]\nPath=data/profile\nIsRelative=0", nil},
		{"no profile", "[Install0]\nPath=x\n", nil},
		{"not a list", "\x00[[[=Path=\n", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			same(t, "profiles", tt.want, parseProfiles("/ff", tt.data))
		})
	}
}

func FuzzParseProfiles(f *testing.F) {
	f.Add("[Profile0]\nIsRelative=1\nPath=x\n")
	f.Fuzz(func(t *testing.T, data string) {
		for _, path := range parseProfiles("/ff", data) {
			if !filepath.IsAbs(path) || path != filepath.Clean(path) {
				t.Errorf("path %q", path)
			}
		}
	})
}

func FuzzParseCertutil(f *testing.F) {
	f.Add("\nCertificate Nickname                         Trust Attributes\n                     SSL,S/MIME,JAR/XPI\n\na b                                   C,,  \n")
	f.Add("    Fingerprint (SHA-256):\n        F2:1C\n    Certificate Trust Flags:\n        SSL Flags:\n            Trusted CA\n        Email Flags:\n            Valid CA\n")
	f.Fuzz(func(t *testing.T, out string) {
		for _, nick := range parseNicks(out) {
			if nick == "" || strings.Contains(nick, "\n") {
				t.Errorf("nickname %q", nick)
			}
		}
		parseEntries("x", out)
	})
}

func TestParseNicks(t *testing.T) {
	out := "\nCertificate Nickname                                         Trust Attributes\n" +
		"                                                             SSL,S/MIME,JAR/XPI\n\n" +
		"tunneld local root                                           C,,  \n" +
		"tunneld local root                                           C,,  \n" +
		"a name, with, commas                                         ,,   \n" +
		"key                                                          u,u,u\n"
	same(t, "nicknames", []string{"tunneld local root", "a name, with, commas", "key"}, parseNicks(out))
}

// A certificate cannot say that it is another one.
func TestParseEntries(t *testing.T) {
	out := "Certificate:\n    Data:\n        Subject: \"CN=Fingerprint (SHA-256):\"\n    Fingerprint (SHA-256):\n        AA:BB\n    Fingerprint (SHA1):\n        CC\n\n" +
		"    Certificate Trust Flags:\n        SSL Flags:\n            Valid CA\n            Trusted CA\n        Email Flags:\n            Terminal Record\n" +
		"Certificate:\n    Fingerprint (SHA-256):\n        DD\n    Certificate Trust Flags:\n        SSL Flags:\n        Email Flags:\n            Trusted CA\n"
	got := parseEntries("n", out)
	if len(got) != 2 || got[0].fingerprint != "aabb" || !got[0].trusted() || got[1].fingerprint != "dd" || got[1].trusted() || len(got[1].flags) != 0 {
		t.Errorf("entries %+v", got)
	}
}

func same(t *testing.T, what string, want, got any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}
