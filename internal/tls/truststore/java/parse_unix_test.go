//go:build unix

package java

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tunneld/tunneld/internal/leakcheck"
	"github.com/tunneld/tunneld/internal/tls/truststore/place"
	"github.com/tunneld/tunneld/internal/tls/truststore/storetest"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

func TestParseList(t *testing.T) {
	a, b := storetest.Root(t, "tunneld local CA"), storetest.Root(t, "tunneld local CA")
	out := "Keystore type: JKS\nYour keystore contains 2 entries\n\nAlias name: debian:a.pem\nCreation date: Nov 26, 2026\nEntry type: trustedCertEntry\n\n" +
		string(place.Encode(a)) + "\n\n*******\n\nAlias name: b c\nEntry type: trustedCertEntry\n\n" + string(place.Encode(b))
	var got []string
	for _, e := range parseList(out) {
		got = append(got, e.alias+" "+place.Fingerprint(e.cert))
	}
	if diff := cmp.Diff([]string{"debian:a.pem " + place.Fingerprint(a), "b c " + place.Fingerprint(b)}, got); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
}

func FuzzParseList(f *testing.F) {
	f.Add("Alias name: x\nEntry type: trustedCertEntry\n\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
	f.Fuzz(func(t *testing.T, out string) {
		for _, e := range parseList(out) {
			if strings.Contains(e.alias, "\n") {
				t.Errorf("alias %q", e.alias)
			}
		}
	})
}
