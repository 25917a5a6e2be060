//go:build verifiers

package verifiers_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// An ask is a question to a client: is the server at this port the host?
type ask struct {
	port int
	host string
}

// A said is a client's answer. The zero value is no answer.
type said struct {
	verdict string // accepts or refuses
	why     string // in its own words, only to be printed
}

const (
	accepts = "accepts"
	refuses = "refuses"
)

// A client is a column: a TLS client that shares as little as possible with the
// others.
type client struct {
	name string
	// version says which one it is.
	version func(*testing.T) string
	// judge asks it about each server, while it trusts the root and nothing else.
	// The answers are by port.
	judge func(t *testing.T, rootPEM []byte, asks []ask) map[int]said
}

// clients are the columns.
func clients() []client {
	return []client{
		{"Go", func(*testing.T) string { return runtime.Version() }, judgeGo},
		{"OpenSSL", version("openssl", "version"), each(opensslClient, 1)},
		{"curl", version("curl", "--version"), each(curlClient, 60, 35)},
		{"Python", version("python3", "-c", "import ssl, sys; print('Python', sys.version.split()[0], 'with', ssl.OPENSSL_VERSION)"), program(pythonJudge)},
		{"Node", version("node", "-p", "`Node ${process.version} with OpenSSL ${process.versions.openssl}`"), program(nodeJudge)},
		{"GnuTLS", version("gnutls-cli", "--version"), each(gnutlsClient, 1)},
		{"NSS", nssVersion, each(nssClient, 254)},
		{"Java", version("java", "--version"), program(javaJudge)},
		{"Chromium", version("chromium", "--version"), judgeChromium},
	}
}

func judgeGo(t *testing.T, rootPEM []byte, asks []ask) map[int]said {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(rootPEM)
	out := make(map[int]said)
	for _, a := range asks {
		dialer := tls.Dialer{Config: &tls.Config{RootCAs: roots, ServerName: a.host}}
		conn, err := dialer.DialContext(t.Context(), "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(a.port)))
		if err != nil {
			out[a.port] = said{refuses, err.Error()}
			continue
		}
		conn.Close()
		out[a.port] = said{verdict: accepts}
	}
	return out
}

// command is a program in an environment that has nothing of this machine's
// trust: no home, no proxies, no variables that name other roots.
func command(t *testing.T, home, name string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "LC_ALL=C"}
	return cmd
}

// run runs a program that must succeed.
func run(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
	return string(out)
}

// version is the first line that a program says of itself.
func version(name string, args ...string) func(*testing.T) string {
	return func(t *testing.T) string {
		out, err := command(t, t.TempDir(), name, args...).Output()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		line, _, _ := strings.Cut(string(out), "\n")
		line, _, _ = strings.Cut(line, " zlib/") // curl names all its libraries
		return strings.TrimSpace(line)
	}
}

// An asking is one question to a program that is started for each. home is for
// it alone, roots is a PEM file, and store is an NSS database below home.
type asking struct {
	ask
	home, roots string
}

// each starts a program for each question. It accepts by its exit status 0, and
// refuses by one of others; any other is an error of the test.
func each(command func(*testing.T, asking) *exec.Cmd, refusals ...int) func(*testing.T, []byte, []ask) map[int]said {
	return func(t *testing.T, rootPEM []byte, asks []ask) map[int]said {
		home := t.TempDir()
		roots := filepath.Join(home, "root.pem")
		if err := os.WriteFile(roots, rootPEM, 0o600); err != nil {
			t.Fatal(err)
		}
		out := make(map[int]said)
		for _, a := range asks {
			cmd := command(t, asking{a, home, roots})
			text, err := cmd.CombinedOutput()
			out[a.port] = exitVerdict(t, cmd, err, string(text), refusals)
		}
		return out
	}
}

func exitVerdict(t *testing.T, cmd *exec.Cmd, err error, text string, refusals []int) said {
	t.Helper()
	if err == nil {
		return said{verdict: accepts}
	}
	for _, status := range refusals {
		if cmd.ProcessState != nil && cmd.ProcessState.ExitCode() == status {
			return said{refuses, complaint(text)}
		}
	}
	t.Errorf("%v: %v\n%s", cmd.Args, err, text)
	return said{}
}

// complaint is the line of a program's output that tells most.
func complaint(text string) string {
	best, worth := "", -1
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		w := 0
		for _, word := range []string{"error", "rror:", "ailed", "NOT", "not ", "mismatch", "subtree", "curl:"} {
			w += strings.Count(line, word)
		}
		if w > worth && line != "" {
			best, worth = line, w
		}
	}
	return best
}

func opensslClient(t *testing.T, a asking) *exec.Cmd {
	check, sni := "-verify_hostname", []string{"-servername", a.host}
	if net.ParseIP(a.host) != nil {
		check, sni = "-verify_ip", []string{"-noservername"}
	}
	return command(t, a.home, "openssl", append([]string{"s_client", "-connect", fmt.Sprintf("127.0.0.1:%d", a.port),
		"-CAfile", a.roots, "-no-CApath", "-no-CAstore", "-verify_return_error", check, a.host}, sni...)...)
}

func curlClient(t *testing.T, a asking) *exec.Cmd {
	host := a.host
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	// Debian's curl asks the system's directory, too, unless told another one.
	return command(t, a.home, "curl", "--disable", "--silent", "--show-error", "--noproxy", "*", "--cacert", a.roots, "--capath", "/dev/null",
		"--connect-to", fmt.Sprintf("%s:443:127.0.0.1:%d", host, a.port), "https://"+host+"/")
}

func gnutlsClient(t *testing.T, a asking) *exec.Cmd {
	args := []string{"--port", strconv.Itoa(a.port), "--x509cafile", a.roots, "--verify-hostname", a.host}
	if net.ParseIP(a.host) != nil {
		args = append(args, "--disable-sni")
	} else {
		args = append(args, "--sni-hostname", a.host)
	}
	return command(t, a.home, "gnutls-cli", append(args, "127.0.0.1")...)
}

// nssVersion asks Debian, since NSS's programs do not say it.
func nssVersion(t *testing.T) string {
	out, err := command(t, t.TempDir(), "dpkg-query", "-W", "-f", "${Version}", "libnss3").Output()
	if err != nil {
		return "NSS of an unknown version"
	}
	return "NSS " + string(out)
}

// nssClient is NSS's own client. It compares the host with the name that it is
// told to send.
func nssClient(t *testing.T, a asking) *exec.Cmd {
	store := nssStore(t, a.home, a.roots, "C,,")
	// With a request it ends by itself when it has the reply.
	request := filepath.Join(a.home, "request")
	if err := os.WriteFile(request, []byte("GET / HTTP/1.0\r\n\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return command(t, a.home, "tstclnt", "-h", "127.0.0.1", "-p", strconv.Itoa(a.port), "-d", store, "-a", a.host, "-A", request)
}

// nssStore is a database in home that trusts a root for these uses; it is made
// once.
func nssStore(t *testing.T, home, root, trust string) string {
	t.Helper()
	dir := filepath.Join(home, "nssdb")
	if err := os.Mkdir(dir, 0o700); err == nil {
		run(t, command(t, home, "certutil", "-N", "-d", "sql:"+dir, "--empty-password"))
		run(t, command(t, home, "certutil", "-A", "-d", "sql:"+dir, "-n", "root", "-t", trust, "-i", root))
	}
	return "sql:" + dir
}

// program runs one program that answers all questions: it reads lines of port
// and host, and writes lines of port, verdict and reason.
func program(start func(t *testing.T, home, roots string) *exec.Cmd) func(*testing.T, []byte, []ask) map[int]said {
	return func(t *testing.T, rootPEM []byte, asks []ask) map[int]said {
		home := t.TempDir()
		roots := filepath.Join(home, "root.pem")
		if err := os.WriteFile(roots, rootPEM, 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := start(t, home, roots)
		var in, stderr bytes.Buffer
		for _, a := range asks {
			fmt.Fprintln(&in, a.port, a.host)
		}
		cmd.Stdin, cmd.Stderr = &in, &stderr
		text, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %v\n%s%s", cmd.Args, err, text, &stderr)
		}
		// Around the answers, a browser prints the rest of its page.
		answers := string(text)
		if _, within, ok := strings.Cut(answers, pageBegin); ok {
			answers, _, _ = strings.Cut(within, pageEnd)
		}
		out := make(map[int]said)
		for line := range strings.Lines(answers) {
			fields := strings.SplitN(strings.TrimSpace(line), " ", 3)
			port, err := strconv.Atoi(fields[0])
			if err != nil || len(fields) < 2 || fields[1] != accepts && fields[1] != refuses {
				t.Fatalf("%v said %q", cmd.Args, line)
			}
			out[port] = said{fields[1], strings.Join(fields[2:], " ")}
		}
		return out
	}
}

func testdata(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func pythonJudge(t *testing.T, home, roots string) *exec.Cmd {
	return command(t, home, "python3", testdata(t, "judge.py"), roots)
}

func nodeJudge(t *testing.T, home, roots string) *exec.Cmd {
	return command(t, home, "node", testdata(t, "judge.js"), roots)
}

func javaJudge(t *testing.T, home, roots string) *exec.Cmd {
	run(t, command(t, home, "javac", "-d", home, testdata(t, "Judge.java")))
	return javaWith(t, home, javaStore(t, home, roots), "Judge")
}

// javaStore is a key store in home that trusts a root.
func javaStore(t *testing.T, home, root string) string {
	t.Helper()
	store := filepath.Join(home, "trust.p12")
	run(t, command(t, home, "keytool", "-importcert", "-noprompt", "-alias", "root", "-file", root,
		"-keystore", store, "-storetype", "PKCS12", "-storepass", "changeit"))
	return store
}

// javaWith is a class that was compiled into home, and trusts what the store does.
func javaWith(t *testing.T, home, store, class string, args ...string) *exec.Cmd {
	return command(t, home, "java", append([]string{"-Djavax.net.ssl.trustStore=" + store,
		"-Djavax.net.ssl.trustStorePassword=changeit", "-cp", home, class}, args...)...)
}
