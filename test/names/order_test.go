//go:build names

package names

import (
	"bufio"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"time"

	"github.com/tunneld/tunneld/internal/await"
	"github.com/tunneld/tunneld/internal/status"
)

const (
	// appears and vanishes are how long after its listener a name may come, and
	// how long after "tunnelctl rm" it may be there.
	appears, vanishes = 300 * time.Millisecond, time.Second
	// probeEvery is slow enough for look-ups that take five seconds each.
	probeEvery = 20 * time.Millisecond
)

// checkOrder removes the forward and adds it again. A name appears only when
// something listens behind it, and goes before that does.
func (m *machine) checkOrder(f status.Forward) {
	m.T.Helper()
	at := netip.AddrPortFrom(netip.MustParseAddr(f.Address), 80).String()
	m.checkVanishes(at)
	// The best of three: the machine that the test runs on may be busy.
	var took time.Duration
	for range 3 {
		if took = m.checkAppears(at); took < appears {
			m.T.Logf("a new name resolves %v after something listens there", took)
			return
		}
		m.Run(dev, "tunnelctl", "rm", service)
	}
	m.T.Errorf("a new name resolves %v after something listens there; want less than %v", took, appears)
}

// checkVanishes removes the forward.
func (m *machine) checkVanishes(at string) {
	m.T.Helper()
	p := m.probe(ourName, at)
	p.await("connected", time.Time{})
	m.Run(dev, "tunnelctl", "rm", service)
	removed := time.Now()
	p.await("closed", removed.Add(vanishes))
	for _, s := range p.stop() {
		switch after := s.began.Sub(removed); {
		case s.word == "dangling":
			m.T.Errorf("%v after the removal, the name leads to where nothing listens", after)
		case after > vanishes && s.word != "none" && s.word != "closed":
			m.T.Errorf("%v after the removal: %s", after, s.word)
		}
	}
}

// checkAppears adds the forward, and returns how long after its listener the name
// came.
func (m *machine) checkAppears(at string) time.Duration {
	m.T.Helper()
	p := m.probe(ourName, at)
	p.await("closed", time.Time{})
	m.Run(dev, "tunnelctl", "add", service, "--wait")
	p.await("connected", time.Time{})
	first := make(map[string]time.Time)
	for _, s := range p.stop() {
		if before, ok := first[s.word]; !ok || s.began.Before(before) {
			first[s.word] = s.began
		}
		if s.word == "refused" || s.word == "dangling" {
			m.T.Error("the name leads to where nothing listens yet")
		}
	}
	return first["connected"].Sub(first["listens"])
}

// A sighting is a line of the probe's.
type sighting struct {
	began time.Time
	word  string
}

// A probe runs in a machine, until it is stopped.
type probe struct {
	m     *machine
	stdin io.Closer
	ended chan error

	mu   sync.Mutex // guards the following
	seen []sighting
}

// probe starts one for the name, and for what shall listen behind it.
func (m *machine) probe(name, at string) *probe {
	m.T.Helper()
	cmd := m.Command(m.T.Context(), dev, "probe", name, at, probeEvery.String())
	cmd.Env = append(cmd.Env, "GODEBUG=netdns=cgo")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		m.T.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		m.T.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		m.T.Fatal(err)
	}
	p := &probe{m: m, stdin: stdin, ended: make(chan error, 1)}
	go func() {
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			var nanos int64
			var s sighting
			if _, err := fmt.Sscan(lines.Text(), &nanos, &s.word); err != nil {
				continue // stop finds that it has not ended well
			}
			s.began = time.Unix(0, nanos)
			p.mu.Lock()
			p.seen = append(p.seen, s)
			p.mu.Unlock()
		}
		p.ended <- cmd.Wait()
	}()
	return p
}

// await waits for that word of a try that began after a time.
func (p *probe) await(word string, after time.Time) {
	p.m.T.Helper()
	await.Until(p.m.T, "the probe to say "+word, func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, s := range p.seen {
			if s.word == word && s.began.After(after) {
				return true
			}
		}
		return false
	})
}

// stop ends it, and returns what it saw.
func (p *probe) stop() []sighting {
	p.m.T.Helper()
	p.stdin.Close()
	if err := <-p.ended; err != nil {
		p.m.T.Fatalf("probe: %v", err)
	}
	return p.seen
}
