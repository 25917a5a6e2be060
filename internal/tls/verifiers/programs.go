package verifiers

import (
	"context"
	_ "embed"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// What makes the CA known: to the stores that all users have in common, to those of
// a user, and to programs that have a list of their own.
const (
	forMachine = "sudo tunnelctl trust"
	forUser    = "tunnelctl trust"
	byEnv      = `eval "$(tunnelctl env)"`
	byEnvJava  = `eval "$(tunnelctl env --java)"`
)

// onPath finds the first of some programs on the PATH.
func onPath(names ...string) string {
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

// systemFix is for programs that read the system's roots, unless a variable has them
// read another file. Where roots are no files, a user's own are read as well.
func systemFix(variables ...string) func(string) string {
	return func(string) string {
		for _, name := range variables {
			if file := os.Getenv(name); file != "" && !isSystems(file) {
				return byEnv
			}
		}
		if runtime.GOOS == "linux" {
			return forMachine
		}
		return forUser
	}
}

// isSystems reports whether a file or directory follows the machine's trust store.
func isSystems(path string) bool {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	for _, dir := range []string{"/etc/ssl/", "/etc/pki/", "/etc/ca-certificates/", "/var/lib/ca-certificates/"} {
		if strings.HasPrefix(path+"/", dir) {
			return true
		}
	}
	return false
}

// fileFix is for programs that read the system's roots on Linux, and a list of their
// own elsewhere.
func fileFix(variables ...string) func(string) string {
	if runtime.GOOS != "linux" {
		return always(byEnv)
	}
	return systemFix(variables...)
}

func always(fix string) func(string) string {
	return func(string) string { return fix }
}

func findCurl(context.Context) []client {
	return []client{{
		program: onPath("curl"),
		command: func(url, dir string) (command, error) {
			// A ~/.curlrc can have it write files where it runs.
			return command{dir: dir, args: []string{"--silent", "--show-error", "--noproxy", "*", "--output", os.DevNull, url}}, nil
		},
		fix:      systemFix("CURL_CA_BUNDLE", "SSL_CERT_FILE"),
		careless: `take "insecure" out of ~/.curlrc`,
	}}
}

// findOpenSSL asks the program, which is for the library that many others link
// with: it reads the same roots.
func findOpenSSL(context.Context) []client {
	return []client{{
		program: onPath("openssl"),
		command: func(address, dir string) (command, error) {
			u, err := url.Parse(address)
			if err != nil {
				return command{}, err
			}
			return command{
				args:  []string{"s_client", "-connect", u.Host, "-verify_return_error", "-quiet", "-ign_eof"},
				stdin: "GET " + u.Path + " HTTP/1.1\r\nHost: " + u.Host + "\r\nConnection: close\r\n\r\n",
			}, nil
		},
		telling: []string{"verify error"},
		fix:     fileFix("SSL_CERT_FILE"),
	}}
}

func findGo(context.Context) []client {
	self, err := os.Executable()
	if err != nil {
		self = os.Args[0]
	}
	return []client{{program: self, fetch: get, fix: systemFix("SSL_CERT_FILE")}}
}

// get fetches a URL as a Go program does that has no settings of its own for TLS,
// and by no proxy.
func get(ctx context.Context, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	transport := &http.Transport{DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	response, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the server said %s", response.Status)
	}
	return nil
}

// notHere keeps Python from importing what is in the current directory, which may be
// anybody's: with -c that comes first.
const notHere = `
import sys
sys.path[:] = [p for p in sys.path if p]
`

const pythonURLLib = notHere + `
import urllib.request
try:
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(sys.argv[1]).read()
except Exception as e:
    sys.exit("%s: %s" % (type(e).__name__, e))
`

const pythonRequests = notHere + `
try:
    import requests
except ImportError:
    sys.exit(69)
try:
    requests.get(sys.argv[1], proxies={"https": None, "all": None})
except Exception as e:
    reason = getattr(e.args[0], "reason", e) if e.args else e # without what was tried, and how often
    sys.exit("%s: %s" % (type(e).__name__, reason))
`

// findPython asks Python's own library, which has OpenSSL's roots, and the one that
// most programs use, which brings a list.
func findPython(ctx context.Context) []client {
	python := onPath("python3", "python")
	if runtime.GOOS == "darwin" && python == "/usr/bin/python3" && exec.CommandContext(ctx, "/usr/bin/xcode-select", "-p").Run() != nil {
		python = "" // what is there offers to install one
	}
	run := func(script string) func(url, dir string) (command, error) {
		return func(url, dir string) (command, error) {
			return command{args: []string{"-B", "-c", script, url}}, nil // -B writes no compiled modules
		}
	}
	clients := []client{{
		program: python,
		command: run(pythonURLLib),
		fix:     fileFix("SSL_CERT_FILE"),
	}}
	if python != "" {
		clients = append(clients, client{
			name:    "Python requests",
			program: python,
			command: run(pythonRequests),
			fix:     always(byEnv),
		})
	}
	return clients
}

const nodeHTTPS = `
console.log(process.version);
require("https").get(process.argv[1], {agent: false}, r => r.resume()).on("error", e => {
  console.error((e.code || e.name) + ": " + e.message);
  process.exit(1);
});
`

func findNode(context.Context) []client {
	return []client{{
		program: onPath("node", "nodejs"),
		command: func(url, dir string) (command, error) {
			return command{args: []string{"-e", nodeHTTPS, "--", url}}, nil
		},
		fix:      nodeFix,
		careless: "unset NODE_TLS_REJECT_UNAUTHORIZED",
	}}
}

// nodeFix knows which versions can read the system's roots, if they are told to by
// the environment: 22.19 and 24.6.
func nodeFix(version string) string {
	var major, minor int
	if _, err := fmt.Sscanf(strings.TrimSpace(version), "v%d.%d.", &major, &minor); err != nil {
		return byEnv
	}
	if major == 22 && minor >= 19 || major == 24 && minor >= 6 || major > 24 {
		return byEnv + ", or after " + systemFix()("") + ": export NODE_USE_SYSTEM_CA=1"
	}
	return byEnv
}

// askClass is java/Ask.java, compiled by "javac --release 8": a Java without a
// compiler cannot run a source file.
//
//go:embed java/Ask.class
var askClass []byte

func findJava(ctx context.Context) []client {
	first := onPath("java")
	if runtime.GOOS == "darwin" && first == "/usr/bin/java" { // which offers to install one
		first = ""
		if home, err := exec.CommandContext(ctx, "/usr/libexec/java_home").Output(); err == nil {
			first = filepath.Join(strings.TrimSpace(string(home)), "bin", "java")
		}
	}
	var clients []client
	if first != "" {
		clients = append(clients, java("Java", first))
	}
	if home := os.Getenv("JAVA_HOME"); home != "" {
		second, err := exec.LookPath(filepath.Join(home, "bin", "java"))
		if err == nil && !sameFile(first, second) {
			clients = append(clients, java("Java (JAVA_HOME)", second))
		}
	}
	return clients
}

func java(name, program string) client {
	return client{
		name:    name,
		program: program,
		command: func(url, dir string) (command, error) {
			if err := os.WriteFile(filepath.Join(dir, "Ask.class"), askClass, 0o600); err != nil {
				return command{}, err
			}
			return command{args: []string{
				"-XX:-UsePerfData", "-XX:ErrorFile=" + filepath.Join(dir, "crash"), // which are files elsewhere
				"-cp", dir, "Ask", url,
			}}, nil
		},
		fix: javaFix,
	}
}

// javaFix is told where Java is installed, by itself.
func javaFix(stdout string) string {
	home, _, _ := strings.Cut(stdout, "\n")
	home = strings.TrimSpace(home)
	if home == "" || strings.Contains(os.Getenv("JAVA_TOOL_OPTIONS"), "javax.net.ssl.trustStore") {
		return byEnvJava
	}
	for _, dir := range []string{home, filepath.Join(home, "jre")} {
		store := filepath.Join(dir, "lib", "security", "cacerts")
		if isSystems(store) {
			return forMachine
		}
		if f, err := os.OpenFile(store, os.O_WRONLY, 0); err == nil {
			f.Close()
			return forUser
		}
	}
	return byEnvJava
}

// sameFile reports whether two paths lead to the same file.
func sameFile(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}
