package keychain

import (
	"strings"
	"testing"

	"github.com/tunneld/tunneld/internal/tls/truststore/storetest"
)

func TestTrustSettings(t *testing.T) {
	cert := storetest.Root(t, "tunneld local CA")
	setting := func(lines ...string) string {
		return "<array><dict>" + strings.Join(lines, "") + "</dict></array>"
	}
	const (
		ssl    = "<key>kSecTrustSettingsPolicy</key><data>KoZIhvdjZAED</data><key>kSecTrustSettingsPolicyName</key><string>sslServer</string>"
		smime  = "<key>kSecTrustSettingsPolicy</key><data>KoZIhvdjZAEI</data><key>kSecTrustSettingsPolicyName</key><string>SMIME</string>"
		result = "<key>kSecTrustSettingsResult</key>"
	)
	for _, test := range []struct {
		name  string
		array string
		want  trust
	}{
		{"always, by an empty list", "<array/>", trustedForServers},
		{"always", setting(), trustedForServers},
		{"for servers", setting(ssl), trustedForServers},
		{"for servers, said", setting(ssl, result, "<integer>1</integer>"), trustedForServers},
		{"for servers, written in lines", setting(ssl, result, "\n\t<integer>\n\t1\n\t</integer>\n"), trustedForServers},
		{"as root", setting(result, "<integer>2</integer>"), trustedForServers},
		{"never", setting(result, "<integer>3</integer>"), otherTrustSettings},
		{"never for servers", setting(ssl, result, "<integer>3</integer>"), otherTrustSettings},
		{"unspecified", setting(result, "<integer>4</integer>"), otherTrustSettings},
		{"an unknown result", setting(result, "<integer>9</integer>"), otherTrustSettings},
		{"for mail", setting(smime), otherTrustSettings},
		{"for one application", setting("<key>kSecTrustSettingsApplication</key><data>AA==</data>"), otherTrustSettings},
		{"for one host", setting(ssl, "<key>kSecTrustSettingsPolicyString</key><string>a.local</string>"), otherTrustSettings},
		{"never for mail, then always", "<array><dict>" + smime + result + "<integer>3</integer></dict><dict/></array>", trustedForServers},
		{"never, then always", "<array><dict>" + result + "<integer>3</integer></dict><dict/></array>", otherTrustSettings},
		{"unspecified, then for servers", "<array><dict>" + result + "<integer>4</integer></dict><dict>" + ssl + "</dict></array>", trustedForServers},
	} {
		t.Run(test.name, func(t *testing.T) {
			data := exportedSettings(map[string]string{appleHash(cert.Raw): test.array})
			if got, err := parseTrustSettings([]byte(data), cert); got != test.want || err != nil {
				t.Errorf("%d, %v; want %d", got, err, test.want)
			}
			if got, err := parseTrustSettings([]byte(data), storetest.Root(t, "tunneld local CA")); got != noTrustSettings || err != nil {
				t.Errorf("%d, %v for another certificate; want %d", got, err, noTrustSettings)
			}
		})
	}
	for _, data := range []string{
		"", "bplist00", "<plist/>", "<plist><dict/></plist>", "<plist><dict><key>trustList</key></dict></plist>",
		"<plist><dict><string/></dict></plist>", "<plist><dict>", exportedSettings(nil)[:200],
		exportedSettings(map[string]string{"AA": strings.Repeat("<array>", 100) + strings.Repeat("</array>", 100)}),
	} {
		if got, err := parseTrustSettings([]byte(data), cert); err == nil {
			t.Errorf("%.40q: %d; want an error", data, got)
		}
	}
}

func FuzzTrustSettings(f *testing.F) {
	cert := storetest.Root(f, "tunneld local CA")
	f.Add([]byte(exportedSettings(nil)))
	f.Add([]byte(exportedSettings(map[string]string{appleHash(cert.Raw): "<array/>"})))
	f.Add([]byte(exportedSettings(map[string]string{"AA": "<array><dict><key>kSecTrustSettingsResult</key><integer>3</integer></dict></array>"})))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := parseTrustSettings(data, cert)
		if err != nil && got != noTrustSettings {
			t.Errorf("%d, and error %v", got, err)
		}
	})
}
