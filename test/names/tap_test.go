//go:build names

package names

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/tunneld/tunneld/internal/await"
)

// A query is one that has left a program of the machine.
type query struct {
	to   netip.AddrPort
	name string
	kind string // the record type
}

func (q query) String() string { return fmt.Sprintf("%s %s to %v", q.name, q.kind, q.to) }

// queries returns those since it was last asked. None that was sent before is
// missing.
func (m *machine) queries() []query {
	m.T.Helper()
	m.marks++
	mark := fmt.Sprintf("mark-%d.invalid", m.marks)
	m.Run(root, "dig", "+tries=1", "+short", "@"+upstreamDNS, mark)
	var text []byte
	await.Until(m.T, "the tap to have seen a query", func() bool {
		var err error
		if text, err = os.ReadFile(m.Path("/run/tap")); err != nil {
			m.T.Fatal(err)
		}
		return bytes.Contains(text[m.tapped:], []byte(mark)) && bytes.HasSuffix(text, []byte("\n"))
	})
	var list []query
	for line := range strings.Lines(string(text[m.tapped:])) {
		fields := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if to, err := netip.ParseAddrPort(fields[0]); err != nil || len(fields) != 3 {
			m.T.Fatalf("the tap printed %q", line)
		} else if fields[1] != mark {
			list = append(list, query{to, fields[1], fields[2]})
		}
	}
	m.tapped = len(text)
	return list
}

// toUs are the queries that our DNS server got.
func toUs(list []query) (ours []query) {
	return slices.DeleteFunc(slices.Clone(list), func(q query) bool { return q.to.Port() != ourDNSPort })
}

// abroad are the queries that left the machine, whoever sent them on.
func abroad(list []query) []query {
	return slices.DeleteFunc(slices.Clone(list), func(q query) bool { return q.to.Addr().IsLoopback() })
}
