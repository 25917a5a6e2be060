//go:build verifiers

// Package verifiers_test has TLS clients of others judge the local CA: whoever
// steals its key can sign for the permitted names and for nothing else, whoever
// is asked, but for a few holes of theirs. docs/verifiers.md has the result. A client that is not installed is a
// failure, so that nothing is passed over in silence.
package verifiers_test

import (
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/tunneld/tunneld/internal/await"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A cell is one of the matrix: a client and an attempt.
type cell struct{ row, column string }

// holes are what clients accept of the stolen key in spite of the constraints,
// each for a mistake of theirs. docs/verifiers.md says more. What is here must
// occur.
var holes = map[cell]string{
	{singleLabelCN, "OpenSSL"}: noDot,
	{singleLabelCN, "curl"}:    noDot,
	{singleLabelCN, "Python"}:  noDot,
	{singleLabelCN, "Node"}:    noDot,
	{cnBesideIP, "NSS"}:        "it looks for the host in the common name if there is no DNS name, but compares that with the constraints only if there is no address, either",
	{"a client", "NSS"}:        "it takes an intermediate for servers for one for clients, too",
	{"a client", "Java"}:       "it looks for a certificate's uses in the last one of a chain only",
}

const noDot = "OpenSSL compares a common name with the constraints only if it has a dot"

// TestMatrix shows each chain to each client. With our CA, nothing outside of the
// permitted names is accepted, and everything inside is; with a CA without
// constraints, the same clients accept the same names, which shows that they can.
func TestMatrix(t *testing.T) {
	tables := []struct {
		name      string
		authority func(*testing.T) *authority
		want      func(attempt) wish
	}{
		{"local", func(t *testing.T) *authority { return ours(t, "local") }, func(a attempt) wish {
			if a.want == configured {
				return refused
			}
			return a.want
		}},
		{domain, func(t *testing.T) *authority { return ours(t, domain) }, func(a attempt) wish {
			if a.want == configured {
				return accepted
			}
			return a.want
		}},
		{"unconstrained", unconstrained, func(a attempt) wish { return a.without }},
	}
	for _, table := range tables {
		t.Run(table.name, func(t *testing.T) {
			a := table.authority(t)
			got := matrix(t, a, table.want)
			var rows [][]string
			for _, row := range attempts() {
				rows = append(rows, []string{row.name, row.host})
			}
			var columns []string
			for _, c := range clients() {
				columns = append(columns, c.name)
			}
			if len(got) < len(rows)*len(columns) {
				t.Log("not all were asked, so the table is not compared")
				return
			}
			checkTable(t, table.name, markdown([]string{"certificate", "asked as"}, rows, columns, got, a.own != nil))
		})
	}
}

// TestVersions prints who is asked.
func TestVersions(t *testing.T) {
	var lines []string
	for _, c := range clients() {
		lines = append(lines, "- "+c.name+": "+c.version(t)+"\n")
	}
	text := strings.Join(lines, "")
	t.Log("\n" + text)
	if *update {
		replaceBlock(t, "versions", text)
	}
}

// matrix asks every client about every attempt.
func matrix(t *testing.T, a *authority, want func(attempt) wish) map[cell]said {
	rows := attempts()
	servers := make([]*server, len(rows))
	asks := make([]ask, len(rows))
	for i, row := range rows {
		servers[i] = serve(t, row.chain(t, a))
		asks[i] = ask{servers[i].port, row.host}
	}
	got := make(map[cell]said)
	for _, c := range clients() {
		t.Run(c.name, func(t *testing.T) {
			for _, s := range servers {
				s.greeted.Store(0)
				s.completed.Store(0)
			}
			answers := c.judge(t, a.rootPEM(), asks)
			for i, row := range rows {
				answer := answers[asks[i].port]
				got[cell{row.name, c.name}] = answer
				if answer.verdict == refuses {
					t.Logf("%s: %s", row.name, strings.ReplaceAll(answer.why, "\x00", `\0`))
				}
				wish := want(row)
				if a.own != nil && holes[cell{row.name, c.name}] != "" {
					wish = accepted
				}
				checkAnswer(t, row.name, answer, servers[i], wish)
			}
		})
	}
	return got
}

// checkAnswer checks that the server has seen what the client says, and that it
// is what it must be.
func checkAnswer(t *testing.T, row string, answer said, s *server, want wish) {
	t.Helper()
	if answer.verdict == accepts {
		// A client may end before its last message is read.
		await.Until(t, row+": a handshake of whoever accepts is completed", func() bool { return s.completed.Load() > 0 })
	}
	switch {
	case answer.verdict == "":
		t.Errorf("%s: no answer", row)
	case s.greeted.Load() == 0:
		t.Errorf("%s: it %s, but has not asked for the certificate", row, answer.verdict)
	case want == accepted && answer.verdict != accepts:
		t.Errorf("%s: it refuses what it must accept: %s", row, answer.why)
	case want == refused && answer.verdict != refuses:
		t.Errorf("%s: it accepts what nobody may", row)
	}
}
