package tunneld_test

import (
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/tunneld/tunneld"

// mayImport says which of our packages each of them may import. A package that
// is not listed may import none, and be imported by no other.
var mayImport = map[string][]string{
	// Leaves: they know nothing of ours, so anybody may know them.
	"internal/status":     {},
	"internal/netwatch":   {},
	"internal/nearest":    {},
	"internal/atomicfile": {},
	"internal/invoker":    {},
	"internal/suffix":     {},
	"internal/lockfile":   {},
	"internal/sockdiag":   {},
	"internal/systemd":    {},
	"internal/handover":   {"dns", "systemd"},
	"internal/terminal":   {},
	"internal/version":    {"status"},
	"internal/usage":      {"nearest"},
	"internal/logring":    {"status"},
	"internal/statedir":   {"atomicfile", "lockfile"},
	"internal/environ":    {"atomicfile"},

	// The waist: north of forward.Backends everything speaks connections and
	// names, south of it everything speaks Kubernetes.
	"internal/forward":       {"sockdiag", "status"},
	"internal/portforward":   {},
	"internal/kube":          {"forward", "nearest", "portforward", "status"},
	"internal/gateway":       {"forward", "status", "tls"},
	"internal/dns":           {},
	"internal/osdns":         {"osdns/dnsmasqconf", "osdns/hostsfile", "osdns/machine", "osdns/survey"},
	"internal/lookup":        {"osdns/machine"},
	"internal/rootapi":       {"osdns"},
	"internal/claim":         {"rootapi", "osdns"},
	"internal/tls":           {"suffix"},
	"internal/tls/verifiers": {},
	"internal/tls/caenv":     {"atomicfile"},
	"internal/config":        {"atomicfile", "forward", "nearest", "suffix"},
	"internal/localapi":      {"lockfile", "status"},

	// What osdns is made of. None of it knows what a claim is.
	"internal/osdns/machine":     {},
	"internal/osdns/hostsfile":   {},
	"internal/osdns/dnsmasqconf": {"osdns/machine"},
	"internal/osdns/survey":      {"osdns/dnsmasqconf", "osdns/machine"},

	// What puts certificates into trust stores. Whoever has that done knows the first only, and whoever asks
	// whether one is there held only. A kind of store knows nothing of plans, receipts, or other kinds.
	"internal/tls/truststore":           {"atomicfile", "lockfile", "tls/truststore/java", "tls/truststore/keychain", "tls/truststore/nss", "tls/truststore/place", "tls/truststore/program", "tls/truststore/rootstore", "tls/truststore/system"},
	"internal/tls/truststore/place":     {},
	"internal/tls/truststore/program":   {"lockfile"},
	"internal/tls/truststore/held":      {},
	"internal/tls/truststore/system":    {"atomicfile", "tls/truststore/held", "tls/truststore/place", "tls/truststore/program"},
	"internal/tls/truststore/nss":       {"tls/truststore/place", "tls/truststore/program"},
	"internal/tls/truststore/java":      {"atomicfile", "tls/truststore/place", "tls/truststore/program"},
	"internal/tls/truststore/keychain":  {"tls/truststore/place", "tls/truststore/program"},
	"internal/tls/truststore/rootstore": {"tls/truststore/place"},

	// How it comes into a machine. The plan for a kind of machine knows what a change is; the engine that makes
	// changes knows no kind of machine.
	"internal/setup":         {"atomicfile"},
	"internal/setup/systemd": {"setup"},
	"packaging/systemd":      {},
	// A shell that is run for its environment knows on whose behalf.
	"internal/setup/loginshell": {"invoker", "terminal"},
	// They run programs of the system in the way that those for trust stores are.
	"internal/setup/launchd":   {"setup", "tls/truststore/program"},
	"internal/setup/logontask": {"setup", "tls/truststore/program"},

	// Only the daemon knows them all.
	"internal/daemon": {"claim", "config", "dns", "environ", "forward", "gateway", "handover", "kube", "localapi", "lockfile", "logring", "lookup", "nearest", "netwatch", "osdns", "osdns/survey", "rootapi", "sockdiag", "statedir", "status", "systemd", "tls", "tls/truststore/held"},

	"internal/demo": {}, // but for what is inside of it

	"cmd/tunneld-helper": {"rootapi", "osdns", "osdns/machine", "version"},
	"cmd/tunneld":        {"config", "daemon", "demo", "environ", "invoker", "localapi", "lockfile", "rootapi", "setup", "setup/launchd", "setup/loginshell", "setup/logontask", "setup/systemd", "statedir", "status", "systemd", "terminal", "tls/truststore/program", "usage", "version"},
	"cmd/tunnelctl":      {"environ", "invoker", "localapi", "status", "terminal", "tls", "tls/caenv", "tls/truststore", "tls/truststore/held", "tls/verifiers", "usage", "version"},

	// For tests only.
	"internal/await":                    {},
	"internal/isolate":                  {},
	"internal/leakcheck":                {},
	"internal/proxytest":                {},
	"internal/setup/setuptest":          {"setup"},
	"internal/manpages":                 {},
	"internal/tls/truststore/storetest": {"tls/truststore/place"},
}

// mustNotReach says what a package must not depend on, however indirectly, and
// why.
var mustNotReach = []struct{ pkg, prefix, why string }{
	{"cmd/tunnelctl", "k8s.io/", "what needs the cluster runs in the daemon: the client starts at once, and needs no credentials"},
	{"cmd/tunnelctl", "github.com/miekg/dns", "it resolves nothing itself"},
	{"cmd/tunneld-helper", "k8s.io/", "what runs as root is small, and knows nothing of clusters"},
	{"cmd/tunneld-helper", "github.com/miekg/dns", "what runs as root is small, and answers no DNS"},
	{"cmd/tunneld-helper", "github.com/spf13/", "what runs as root is small, and has a handful of flags"},
	{"cmd/tunneld-helper", "github.com/kardianos/", "what runs as root is small, and systemd starts it"},
	{"internal/daemon", "github.com/kardianos/", "who starts and stops the daemon is the command's business"},
	{"cmd/tunneld-helper", "net/http", "what runs as root is small, and speaks to one socket"},
	{"cmd/tunneld-helper", module + "/internal/lookup", "what runs as root asks nobody for names: whether they resolve is found out as the user"},
	{"internal/daemon", module + "/internal/tls/truststore/program", "the daemon asks whether the CA is trusted; nothing of it changes a trust store"},
	{"internal/tls/truststore/held", module + "/internal/", "the daemon asks again and again: no program is run, and nothing changed"},
	{"internal/forward", "k8s.io/", "the data plane knows nothing of Kubernetes"},
	{"internal/gateway", "k8s.io/", "the proxy reaches pods through forward.Backends"},
	{"internal/config", "k8s.io/", "the file is not the cluster's"},
	{"internal/portforward", module + "/internal/", "the protocol's client stands alone"},
	{"internal/kube", "k8s.io/client-go/kubernetes", "the generated clientset's scheme holds hundreds of kinds; we need five"},
	{"internal/status", "k8s.io/", "the wire format is ours"},
	{"cmd/tunneld", "github.com/spf13/cobra/doc", "manual pages are written by tests, and come with the packages"},
	{"cmd/tunnelctl", "github.com/spf13/cobra/doc", "manual pages are written by tests, and come with the packages"},
}

// list runs "go list" for an operating system and splits its lines into fields.
func list(t *testing.T, goos string, args ...string) [][]string {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list"}, args...)...)
	cmd.Env = append(os.Environ(), "GOOS="+goos, "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		if exit, ok := err.(*exec.ExitError); ok {
			err = &listError{err, exit.Stderr}
		}
		t.Fatal(err)
	}
	var lines [][]string
	for line := range strings.Lines(string(out)) {
		lines = append(lines, strings.Fields(line))
	}
	return lines
}

type listError struct {
	error
	stderr []byte
}

func (e *listError) Error() string { return e.error.Error() + ": " + string(e.stderr) }

// systems are those that files are written for.
var systems = []string{"linux", "darwin", "windows"}

func TestImports(t *testing.T) {
	for _, goos := range systems {
		t.Run(goos, func(t *testing.T) { checkImports(t, goos) })
	}
}

func checkImports(t *testing.T, goos string) {
	for _, fields := range list(t, goos, "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./...") {
		pkg := strings.TrimPrefix(fields[0], module+"/")
		if pkg == module || strings.HasPrefix(pkg, "internal/demo/internal/") || strings.HasPrefix(pkg, "test/") {
			continue
		}
		allowed, known := mayImport[pkg]
		if !known {
			t.Errorf("%s has no rule: say in deps_test.go what it may import", pkg)
		}
		for _, imported := range fields[1:] {
			ours, ok := strings.CutPrefix(imported, module+"/internal/")
			if !ok || strings.HasPrefix(ours, path.Base(pkg)+"/internal/") {
				continue
			}
			if !slices.Contains(allowed, ours) {
				t.Errorf("%s must not import internal/%s", pkg, ours)
			}
		}
	}
}

func TestReach(t *testing.T) {
	for _, rule := range mustNotReach {
		for _, goos := range systems {
			t.Run(rule.pkg+" and "+rule.prefix+" on "+goos, func(t *testing.T) {
				for _, dep := range list(t, goos, "-deps", "./"+rule.pkg) {
					if dep[0] != module+"/"+rule.pkg && strings.HasPrefix(dep[0], rule.prefix) {
						t.Errorf("%s reaches %s: %s", rule.pkg, dep[0], rule.why)
					}
				}
			})
		}
	}
}
