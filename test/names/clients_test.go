//go:build names

package names

import (
	"bufio"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A client is one way in which programs look names up.
type client struct {
	name    string
	program string
	env     string
}

var (
	glibc = client{name: "glibc", program: "lookup-glibc"}
	// pureGo asks files and DNS, whatever else the system asks: so it says at once
	// that there is no such name.
	pureGo  = client{name: "Go without cgo", program: "lookup-go"}
	clients = []client{
		glibc,
		{name: "musl", program: "lookup-musl"},
		{name: "Go with cgo", program: "lookup-cgo", env: "GODEBUG=netdns=cgo"},
		pureGo,
	}
)

// A lookup is what came of one.
type lookup struct {
	name string
	took time.Duration
	// answer holds addresses, sorted, or for an address its name; "!none" if
	// there is no such name, "!" and a text if it could not be found out.
	answer string
}

// lookUp has a client look up all names so many times, one after the other, as
// the user dev. Addresses are looked up, too.
func (m *machine) lookUp(c client, rounds int, names ...string) []lookup {
	m.T.Helper()
	cmd := m.Command(m.T.Context(), dev, c.program, append([]string{strconv.Itoa(rounds)}, names...)...)
	cmd.Env = append(cmd.Env, c.env)
	out, err := cmd.Output()
	if err != nil {
		m.T.Fatalf("%s: %v", c.program, err)
	}
	var lookups []lookup
	lines := bufio.NewScanner(strings.NewReader(string(out)))
	for lines.Scan() {
		fields := strings.Split(lines.Text(), "\t")
		if len(fields) != 3 {
			m.T.Fatalf("%s printed %q", c.program, lines.Text())
		}
		us, err := strconv.Atoi(fields[1])
		if err != nil {
			m.T.Fatalf("%s printed %q", c.program, lines.Text())
		}
		lookups = append(lookups, lookup{fields[0], time.Duration(us) * time.Microsecond, fields[2]})
	}
	if len(lookups) != rounds*len(names) {
		m.T.Fatalf("%s printed %d look-ups; want %d", c.program, len(lookups), rounds*len(names))
	}
	return lookups
}

// percentile is the time within which p of 100 look-ups were done.
func percentile(lookups []lookup, p int) time.Duration {
	took := make([]time.Duration, len(lookups))
	for i, l := range lookups {
		took[i] = l.took
	}
	slices.Sort(took)
	return took[(len(took)*p+99)/100-1]
}
