//go:build verifiers

package verifiers_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// pageBegin and pageEnd are around the answers in a page.
const pageBegin, pageEnd = "<pre id=\"answers\">\n", "</pre>"

// judgeChromium has one browser fetch from all servers, in a page, since it takes
// a second to start. It trusts the root by the database where it looks for the
// user's own.
func judgeChromium(t *testing.T, rootPEM []byte, asks []ask) map[int]said {
	var page strings.Builder
	page.WriteString("<pre id=\"answers\">\n\n</pre><script>const asks = [")
	for _, a := range asks {
		host := a.host
		if strings.Contains(host, ":") {
			host = "[" + host + "]"
		}
		fmt.Fprintf(&page, "[%d, 'https://%s:%[1]d/'],", a.port, host)
	}
	page.WriteString(`];
const say = (...words) => document.querySelector('pre').append(words.join(' ') + '\n');
for (const [port, url] of asks) {
	fetch(url, { mode: 'no-cors', cache: 'no-store' }).then(() => say(port, 'accepts'), (err) => say(port, 'refuses', err));
}
</script>`)
	return program(func(t *testing.T, home, roots string) *exec.Cmd {
		// The first is where it looks since version 146, the other before.
		for _, dir := range []string{".local/share/pki", ".pki"} {
			if err := os.MkdirAll(filepath.Join(home, dir), 0o700); err != nil {
				t.Fatal(err)
			}
			nssStore(t, filepath.Join(home, dir), roots, "C,,")
		}
		path := filepath.Join(home, "page.html")
		if err := os.WriteFile(path, []byte(page.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		return command(t, home, "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
			"--disable-background-networking", "--no-proxy-server", "--disable-web-security", "--disable-features=LocalNetworkAccessChecks,BlockInsecurePrivateNetworkRequests",
			"--user-data-dir="+filepath.Join(home, "profile"), "--host-resolver-rules=MAP * 127.0.0.1",
			"--virtual-time-budget=60000", "--dump-dom", "file://"+path)
	})(t, rootPEM, asks)
}
