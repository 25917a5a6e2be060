//go:build linux

package debian

import (
	"os"
	"regexp"
	"strings"
)

// Trace has strace watch a service that is not running, and all that it starts, from
// its next start on. The command is what its unit runs; its sandbox opens no less for
// that, but for where the trace goes.
func (m *Machine) Trace(unit, command string) {
	m.T.Helper()
	// -D: the command is the service's main process, whom its sockets are for.
	m.Write("/run/systemd/system/"+unit+".d/trace.conf", `[Service]
ExecStart=
ExecStart=strace -D -f -A -o `+traceFile+` -e trace=%%file `+command+`
ReadWritePaths=/run
SystemCallFilter=
`)
	m.Script("systemctl daemon-reload")
}

const traceFile = "/run/trace"

var tracedPath = regexp.MustCompile(`"([^"]*)"`)

// Traced are the paths that the traced service has named to the system. One of them
// must be known, or the trace is worth nothing. It must have ended.
func (m *Machine) Traced(known string) (paths []string) {
	m.T.Helper()
	trace, err := os.ReadFile(m.Path(traceFile))
	if err != nil {
		m.T.Fatal(err)
	}
	if !strings.Contains(string(trace), `"`+known+`"`) {
		m.T.Fatalf("the trace does not even show %s:\n%s", known, Tail(trace))
	}
	for _, match := range tracedPath.FindAllStringSubmatch(string(trace), -1) {
		paths = append(paths, match[1])
	}
	return paths
}
