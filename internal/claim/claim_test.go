package claim

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tunneld/tunneld/internal/osdns"
	"github.com/tunneld/tunneld/internal/rootapi"
)

// A machine plays the helper and the system's resolver.
type machine struct {
	t     *testing.T
	rungs []string // in their order

	mu       sync.Mutex // guards the following
	absent   bool       // the helper
	fails    error
	refuses  map[string]bool
	broken   map[string]bool // rungs that do not work, though they can be taken
	unfit    map[string]bool // rungs that cannot be taken
	leaks    map[string]bool // rungs by which every name comes to us
	rung     string
	claimed  map[string][]netip.Addr
	late     int // look-ups until a claim is seen
	slow     time.Duration
	claims   int
	releases int
	lookups  int
	saw      func(string)
	silent   map[string]bool // names that nobody answers for
	gone     map[string]bool // names that somebody else keeps from resolving
	blind    error           // why nothing can be looked up
	hangs    bool            // the helper
	onClaim  func()          // called when a claim was made, or could not be
}

func (m *machine) Claim(ctx context.Context, server netip.AddrPort, names []osdns.Name, skip []string) (osdns.Outcome, error) {
	if read(m, &m.hangs) {
		<-ctx.Done()
		return osdns.Outcome{}, ctx.Err()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.absent {
		return osdns.Outcome{}, rootapi.ErrNotInstalled
	}
	m.claims++
	if m.onClaim != nil {
		m.onClaim()
	}
	if m.fails != nil {
		return osdns.Outcome{}, m.fails
	}
	var refused []string
	for _, n := range names {
		if m.refuses[n.Name] {
			refused = append(refused, n.Name)
		}
	}
	if len(refused) > 0 {
		return osdns.Outcome{}, &rootapi.Refusal{Reason: "it is the machine's own", Names: refused}
	}
	if server != serverAt {
		m.t.Errorf("claimed for %v", server)
	}
	var passed []osdns.Passed
	for _, rung := range m.rungs {
		if slices.Contains(skip, rung) {
			continue
		}
		if m.unfit[rung] {
			passed = append(passed, osdns.Passed{Rung: rung, Why: "it does not run"})
			continue
		}
		m.rung = rung
		m.claimed = make(map[string][]netip.Addr)
		for _, n := range names {
			m.claimed[n.Name] = n.Addrs
		}
		return osdns.Outcome{Rung: rung, Why: "it is played", Passed: passed}, nil
	}
	m.rung, m.claimed = "", nil
	return osdns.Outcome{}, errors.New("no rung is left")
}

func (m *machine) Release(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.absent {
		return rootapi.ErrNotInstalled
	}
	m.releases++
	if m.fails == nil {
		m.rung, m.claimed = "", nil
	}
	return m.fails
}

func (m *machine) Lookup(ctx context.Context, names ...string) (map[string][]netip.Addr, error) {
	m.mu.Lock()
	m.lookups++
	slow, blind := m.slow, m.blind
	if slices.ContainsFunc(names, func(name string) bool { return m.silent[name] }) {
		slow = 5 * time.Second
	}
	m.mu.Unlock()
	if blind != nil {
		return nil, blind
	}
	if slow > 0 {
		select {
		case <-time.After(slow):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.leaks[m.rung] {
		for _, name := range names {
			if m.claimed[name] == nil {
				m.saw(name + ".")
			}
		}
	}
	if m.broken[m.rung] {
		return nil, nil
	}
	if m.late > 0 {
		m.late--
		return nil, nil
	}
	found := make(map[string][]netip.Addr)
	for _, name := range names {
		if addrs := m.claimed[name]; addrs != nil && !m.gone[name] {
			found[name] = addrs
		}
	}
	return found, nil
}

// do changes what the machine plays.
func (m *machine) do(change func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change()
}

// read reads one of the machine's fields.
func read[T any](m *machine, field *T) T {
	m.mu.Lock()
	defer m.mu.Unlock()
	return *field
}

// has are the names that are claimed, without the canary.
func (m *machine) has() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.DeleteFunc(slices.Sorted(maps.Keys(m.claimed)), func(name string) bool { return name == canary.Name })
}

var (
	serverAt = netip.MustParseAddrPort("127.0.0.1:15353")
	at       = netip.MustParseAddr("127.77.31.4")
	canary   = NewCanary("local", netip.MustParseAddr("127.77.255.254"))
)

func names(all ...string) []osdns.Name {
	var out []osdns.Name
	for _, name := range all {
		out = append(out, osdns.Name{Name: name, Addrs: []netip.Addr{at}})
	}
	return out
}

// play runs a Claimant on a machine in a bubble; stop ends it.
func play(t *testing.T, m *machine, test func(t *testing.T, c *Claimant, stop func())) {
	synctest.Test(t, func(t *testing.T) {
		m.t = t
		if m.rungs == nil {
			m.rungs = []string{"resolver", "hosts"}
		}
		c := &Claimant{Helper: m, Lookup: m.Lookup, Server: serverAt, Canary: canary}
		m.saw = c.Saw
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx) }()
		stop := sync.OnceFunc(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
		defer stop()
		test(t, c, stop)
	})
}

func rung(c *Claimant) string { return c.Report().Outcome.Rung }

func TestNamesAreClaimedAndTakenBack(t *testing.T) {
	m := &machine{late: 3}
	play(t, m, func(t *testing.T, c *Claimant, stop func()) {
		c.Set(names("a.local", "b.local"))
		began := time.Now()
		c.Checked(t.Context())
		if took := time.Since(began); took > 100*time.Millisecond {
			t.Errorf("took %v", took)
		}
		want := Report{
			Asked:     true,
			Installed: true,
			Outcome:   osdns.Outcome{Rung: "resolver", Why: "it is played"},
			Names: map[string]Resolution{
				"a.local": {Addrs: []netip.Addr{at}, Right: true},
				"b.local": {Addrs: []netip.Addr{at}, Right: true},
			},
		}
		if diff := cmp.Diff(want, c.Report(), cmpopts.IgnoreFields(Resolution{}, "Took"), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Error(diff)
		}
		if read(m, &m.claimed)[canary.Name] == nil {
			t.Error("the canary is not claimed")
		}
		c.Set(names("b.local"))
		c.Applied(t.Context())
		if diff := cmp.Diff([]string{"b.local"}, m.has()); diff != "" {
			t.Error(diff)
		}
		c.Set(nil)
		c.Applied(t.Context())
		if read(m, &m.rung) != "" || rung(c) != "" {
			t.Error("something is claimed where nothing is wanted")
		}
		c.Set(names("b.local"))
		c.Checked(t.Context())
		stop()
		if read(m, &m.rung) != "" {
			t.Error("something is claimed after the end")
		}
	})
}

func TestLeave(t *testing.T) {
	m := new(machine)
	play(t, m, func(t *testing.T, c *Claimant, stop func()) {
		c.Set(names("a.local"))
		c.Checked(t.Context())
		c.Leave()
		stop()
		if diff := cmp.Diff([]string{"a.local"}, m.has()); diff != "" {
			t.Error("what was to be left:", diff)
		}
	})
}

func TestWhatAnEarlierRunLeftIsTakenBack(t *testing.T) {
	m := &machine{rung: "hosts", claimed: map[string][]netip.Addr{"old.local": {at}}}
	play(t, m, func(t *testing.T, c *Claimant, stop func()) {
		time.Sleep(time.Hour)
		if len(m.has()) == 0 {
			t.Error("released before anybody said what is wanted: a restart would take names away")
		}
		c.Set(nil)
		c.Applied(t.Context())
		if len(m.has()) != 0 {
			t.Error("still claimed")
		}
		time.Sleep(time.Hour)
		if read(m, &m.releases) != 1 {
			t.Errorf("released %d times", read(m, &m.releases))
		}
	})
}

func TestTheNextRungIsTakenWhereOneDoesNotWork(t *testing.T) {
	m := &machine{broken: map[string]bool{"resolver": true}}
	play(t, m, func(t *testing.T, c *Claimant, stop func()) {
		c.Set(names("a.local"))
		c.Checked(t.Context())
		r := c.Report()
		want := []osdns.Passed{{Rung: "resolver", Why: "a name that was claimed did not resolve"}}
		if diff := cmp.Diff(want, r.Outcome.Passed); diff != "" || r.Outcome.Rung != "hosts" || !r.Names["a.local"].Right {
			t.Errorf("%+v\n%s", r, diff)
		}
		claims := read(m, &m.claims)
		c.Set(names("a.local", "b.local"))
		c.Checked(t.Context())
		if read(m, &m.claims) != claims+1 || rung(c) != "hosts" {
			t.Errorf("%d more claims, by %s: the rung that does not work was tried again", read(m, &m.claims)-claims, rung(c))
		}
	})
}

func TestABetterRungIsTakenWhenItComes(t *testing.T) {
	m := &machine{unfit: map[string]bool{"resolver": true}}
	play(t, m, func(t *testing.T, c *Claimant, stop func()) {
		c.Set(names("a.local"))
		c.Checked(t.Context())
		if rung(c) != "hosts" {
			t.Fatalf("claimed by %s", rung(c))
		}
		c.Recheck()
		synctest.Wait()
		if rung(c) != "hosts" {
			t.Fatalf("claimed by %s", rung(c))
		}
		m.do(func() { m.unfit = nil })
		c.Recheck()
		synctest.Wait()
		if rung(c) != "resolver" || !c.Report().Names["a.local"].Right {
			t.Errorf("%+v", c.Report())
		}
	})
}

func TestNoRungWorks(t *testing.T) {
	m := &machine{broken: map[string]bool{"resolver": true, "hosts": true}}
	play(t, m, func(t *testing.T, c *Claimant, stop func()) {
		c.Set(names("a.local"))
		c.Checked(t.Context())
		r := c.Report()
		if want := "no rung is left (hosts: a name that was claimed did not resolve)"; r.Problem != want || !r.Installed || r.Outcome.Rung != "" {
			t.Errorf("%+v; want the problem %q", r, want)
		}
		if r.Names["a.local"].Right {
			t.Error("a name resolves by nothing")
		}
		claims := read(m, &m.claims)
		time.Sleep(time.Hour)
		if tries := read(m, &m.claims) - claims; tries < 3 || tries > 200 {
			t.Errorf("tried %d more times in an hour", tries)
		}
		m.do(func() { m.broken = nil })
		time.Sleep(2 * paceMost)
		if r := c.Report(); r.Outcome.Rung != "resolver" || r.Problem != "" {
			t.Errorf("it works again, but %+v", r)
		}
	})
}

func TestOtherNamesMustNotReachUs(t *testing.T) {
	m := &machine{leaks: map[string]bool{"resolver": true}}
	play(t, m, func(t *testing.T, c *Claimant, stop func()) {
		c.Set(names("a.local"))
		c.Checked(t.Context())
		synctest.Wait()
		c.Set(names("a.local", "b.local"))
		c.Checked(t.Context())
		r := c.Report()
		want := []osdns.Passed{{Rung: "resolver", Why: "the system asks us for other names, too"}}
		if diff := cmp.Diff(want, r.Outcome.Passed); diff != "" || r.Outcome.Rung != "hosts" {
			t.Errorf("%+v\n%s", r, diff)
		}
	})
}

func TestStrangeNamesAreNoLeak(t *testing.T) {
	m := &machine{}
	play(t, m, func(t *testing.T, c *Claimant, stop func()) {
		c.Set(names("a.local"))
		c.Checked(t.Context())
		c.Saw("www.example.com.") // whoever asks us directly
		time.Sleep(time.Minute)
		if rung(c) != "resolver" {
			t.Errorf("claimed by %s", rung(c))
		}
	})
}

func TestWhatWasTrampledIsMended(t *testing.T) {
	m := &machine{}
	play(t, m, func(t *testing.T, c *Claimant, stop func()) {
		c.Set(names("a.local"))
		c.Checked(t.Context())
		for range 3 {
			m.do(func() { m.claimed = nil })
			c.Recheck()
			time.Sleep(patience + time.Second)
			if len(m.has()) == 0 {
				t.Fatal("not claimed anew after it was said that something has changed")
			}
			time.Sleep(2 * paceMost)
		}
		m.do(func() { m.claimed = nil })
		time.Sleep(checkEvery + patience + time.Second)
		if len(m.has()) == 0 || !c.Report().Names["a.local"].Right {
			t.Error("not claimed anew after a while")
		}
	})
}

func TestWhoTramplesOnAndOnIsNotFought(t *testing.T) {
	m := &machine{}
	play(t, m, func(t *testing.T, c *Claimant, stop func()) {
		c.Set(names("a.local"))
		c.Checked(t.Context())
		claims := read(m, &m.claims)
		for range 360 {
			m.do(func() { m.claimed = nil })
			c.Recheck()
			time.Sleep(10 * time.Second)
		}
		if n := read(m, &m.claims) - claims; n > 80 {
			t.Errorf("claimed %d times in an hour", n)
		}
		if c.Report().Names["a.local"].Right {
			t.Error("said to resolve while it does not")
		}
	})
}

func TestNoHelper(t *testing.T) {
	m := &machine{absent: true, claimed: map[string][]netip.Addr{"b.local": {at}, "c.local": {netip.MustParseAddr("192.0.2.1")}}}
	play(t, m, func(t *testing.T, c *Claimant, stop func()) {
		c.Set(names("a.local", "b.local", "c.local"))
		c.Checked(t.Context())
		r := c.Report()
		if r.Installed || r.Problem != "" || r.Outcome.Rung != "" {
			t.Errorf("%+v", r)
		}
		if r.Names["a.local"].Right || !r.Names["b.local"].Right || r.Names["c.local"].Right {
			t.Errorf("%+v: want b.local to be right, which somebody else took care of", r.Names)
		}
		lookups := read(m, &m.lookups)
		time.Sleep(time.Hour)
		if read(m, &m.lookups) != lookups {
			t.Errorf("%d more look-ups, though nothing has changed", read(m, &m.lookups)-lookups)
		}
		m.do(func() { m.absent, m.claimed = false, nil })
		time.Sleep(checkEvery + time.Second)
		if rung(c) != "resolver" || !c.Report().Names["a.local"].Right {
			t.Errorf("%+v after the helper was installed", c.Report())
		}
	})
}

func TestTheHelperFails(t *testing.T) {
	m := &machine{fails: fmt.Errorf("%w: not below a suffix", rootapi.ErrRefused)}
	play(t, m, func(t *testing.T, c *Claimant, stop func()) {
		c.Set(names("a.local"))
		c.Checked(t.Context())
		if r := c.Report(); r.Problem != read(m, &m.fails).Error() || !r.Installed {
			t.Errorf("%+v", r)
		}
		m.do(func() { m.fails = nil })
		time.Sleep(2 * paceMost)
		if r := c.Report(); r.Problem != "" || r.Outcome.Rung != "resolver" {
			t.Errorf("%+v", r)
		}
	})
}

func TestNamesThatAreRefusedAreLeftOut(t *testing.T) {
	m := &machine{refuses: map[string]bool{"vm.local": true}}
	play(t, m, func(t *testing.T, c *Claimant, stop func()) {
		c.Set(names("a.local", "vm.local"))
		c.Checked(t.Context())
		r := c.Report()
		if diff := cmp.Diff(map[string]string{"vm.local": "it is the machine's own"}, r.Refused); diff != "" || r.Outcome.Rung != "resolver" || r.Problem != "" {
			t.Errorf("%+v\n%s", r, diff)
		}
		if diff := cmp.Diff([]string{"a.local"}, m.has()); diff != "" {
			t.Error(diff)
		}
		claims := read(m, &m.claims)
		time.Sleep(time.Hour)
		if n := read(m, &m.claims) - claims; n > 0 {
			t.Errorf("claimed %d more times for a name that is refused", n)
		}
		c.Set(names("vm.local"))
		c.Checked(t.Context())
		if len(m.has()) > 0 || rung(c) != "" {
			t.Errorf("%v are claimed by %q", m.has(), rung(c))
		}
	})
}

func TestTheCanaryIsRefused(t *testing.T) {
	m := &machine{refuses: map[string]bool{"a.local": true, canary.Name: true}}
	play(t, m, func(t *testing.T, c *Claimant, stop func()) {
		c.Set(names("a.local", "b.local"))
		c.Checked(t.Context())
		if r := c.Report(); r.Problem != "refused by tunneld-helper: it is the machine's own" {
			t.Errorf("%+v", r)
		}
	})
}

func TestASlowLookUpHoldsUpNothing(t *testing.T) {
	m := &machine{}
	play(t, m, func(t *testing.T, c *Claimant, stop func()) {
		c.Set(names("a.local"))
		c.Checked(t.Context())
		m.do(func() { m.slow = time.Minute })
		c.Recheck()
		time.Sleep(100 * time.Millisecond)
		began := time.Now()
		c.Set(names("b.local"))
		c.Applied(t.Context())
		if took := time.Since(began); took > 0 {
			t.Errorf("took %v", took)
		}
		began = time.Now()
		stop()
		if took := time.Since(began); took > 0 {
			t.Errorf("the end took %v", took)
		}
	})
}

func TestWaitingEnds(t *testing.T) {
	m := &machine{slow: time.Hour}
	play(t, m, func(t *testing.T, c *Claimant, stop func()) {
		c.Set(names("a.local"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		c.Checked(ctx)
		if ctx.Err() == nil {
			t.Error("a look-up that takes an hour is done")
		}
	})
}

func TestLeads(t *testing.T) {
	tests := []struct {
		name  string
		got   []string
		right bool
	}{
		{"a.local", []string{"127.77.31.4"}, true},
		{"a.local", []string{"::ffff:127.77.31.4", "127.77.31.4"}, true},
		{"a.local", nil, false},
		{"a.local", []string{"127.0.0.1"}, false},
		{"a.local", []string{"127.77.31.4", "192.0.2.1"}, false},
		{"a.localhost", []string{"::1", "127.0.0.1"}, true},
		{"a.localhost", []string{"192.0.2.1"}, false},
		{"a.localhost", nil, false},
	}
	for _, tt := range tests {
		var got []netip.Addr
		for _, addr := range tt.got {
			got = append(got, netip.MustParseAddr(addr))
		}
		if right := leads(got, names(tt.name)[0]); right != tt.right {
			t.Errorf("%s at %v: %v; want %v", tt.name, tt.got, right, tt.right)
		}
	}
}
