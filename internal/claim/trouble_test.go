package claim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tunneld/tunneld/internal/rootapi"
)

// watched has a machine's changes seen a while after they are made, as those of
// files are.
func watched(m *machine, c *Claimant, change func()) {
	m.do(func() {
		m.onClaim = func() {
			time.AfterFunc(100*time.Millisecond, func() {
				if change != nil {
					m.do(change)
				}
				c.Recheck()
			})
		}
	})
}

// inAnHour is how many claims are made in an hour.
func inAnHour(m *machine) int {
	before := read(m, &m.claims)
	time.Sleep(time.Hour)
	return read(m, &m.claims) - before
}

func TestOwnChangesAreNoReasonToTryAgain(t *testing.T) {
	for name, m := range map[string]*machine{
		"no rung works":  {broken: map[string]bool{"resolver": true, "hosts": true}},
		"all rungs leak": {leaks: map[string]bool{"resolver": true, "hosts": true}},
		"it fails":       {fails: errors.New("played to fail")},
		"the last works": {unfit: map[string]bool{"resolver": true}},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, m, func(t *testing.T, c *Claimant, stop func()) {
				watched(m, c, nil)
				c.Set(names("a.local"))
				if n := inAnHour(m); n > 200 {
					t.Errorf("claimed %d times", n)
				}
			})
		})
	}
}

func TestWhoTramplesAtOnceIsNotFought(t *testing.T) {
	m := &machine{unfit: map[string]bool{"resolver": true}}
	play(t, m, func(t *testing.T, c *Claimant, stop func()) {
		c.Set(names("a.local"))
		c.Checked(t.Context())
		watched(m, c, func() { m.claimed = nil })
		m.do(func() { m.claimed = nil })
		c.Recheck()
		if n := inAnHour(m); n > 80 {
			t.Errorf("claimed %d times", n)
		}
		m.do(func() { m.onClaim = nil })
		time.Sleep(2 * paceMost)
		if !c.Report().Names["a.local"].Right {
			t.Error("not mended when nobody tramples on it any more")
		}
	})
}

func TestAProblemEnds(t *testing.T) {
	tests := []struct {
		name  string
		set   []string
		begin func(m *machine)
	}{
		{"names could not be taken back", nil, func(m *machine) { m.fails = errors.New("played to fail") }},
		{"others could not be claimed", []string{"b.local"}, func(m *machine) { m.fails = errors.New("played to fail") }},
		{"all were refused", []string{"b.local"}, func(m *machine) { m.refuses = map[string]bool{"b.local": true, canary.Name: true} }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := &machine{}
			play(t, m, func(t *testing.T, c *Claimant, stop func()) {
				c.Set(names("a.local"))
				c.Checked(t.Context())
				m.do(func() { tt.begin(m) })
				c.Set(names(tt.set...))
				c.Applied(t.Context())
				synctest.Wait()
				if c.Report().Problem == "" {
					t.Error("that is no problem")
				}
				m.do(func() { m.fails, m.refuses = nil, nil })
				c.Set(names("a.local"))
				c.Checked(t.Context())
				if r := c.Report(); r.Problem != "" || r.Outcome.Rung != "resolver" || len(r.Refused) > 0 {
					t.Errorf("%+v", r)
				}
			})
		})
	}
}

func TestAProblemEndsWhenNothingIsWanted(t *testing.T) {
	m := &machine{refuses: map[string]bool{"a.local": true, canary.Name: true}}
	play(t, m, func(t *testing.T, c *Claimant, stop func()) {
		c.Set(nil)
		c.Checked(t.Context())
		c.Set(names("a.local"))
		c.Checked(t.Context())
		if c.Report().Problem == "" {
			t.Error("that all is refused is no problem")
		}
		c.Set(nil)
		c.Checked(t.Context())
		if r := c.Report(); r.Problem != "" {
			t.Errorf("%+v", r)
		}
	})
}

func TestWhatIsGivenUpDoesNotResolve(t *testing.T) {
	m := &machine{leaks: map[string]bool{"resolver": true, "hosts": true}}
	play(t, m, func(t *testing.T, c *Claimant, stop func()) {
		c.Set(names("a.local"))
		c.Checked(t.Context())
		time.Sleep(patience + time.Second)
		r := c.Report()
		if !strings.Contains(r.Problem, "asks us for other names") || len(m.has()) > 0 {
			t.Fatalf("%+v", r)
		}
		if r.Names["a.local"].Right {
			t.Error("said to resolve after all rungs were given up")
		}
	})
}

func TestANameThatNobodyAnswersForHarmsNoOther(t *testing.T) {
	m := &machine{}
	play(t, m, func(t *testing.T, c *Claimant, stop func()) {
		var all []string
		for i := range 2 * checkMost {
			all = append(all, fmt.Sprintf("%d.local", i))
		}
		c.Set(names(all...))
		c.Checked(t.Context())
		m.do(func() { m.silent = map[string]bool{"3.local": true} })
		var wrong []string
		for range 6 { // all have had their turn
			time.Sleep(checkEvery)
			for name, r := range c.Report().Names {
				if !r.Right && !slices.Contains(wrong, name) {
					wrong = append(wrong, name)
				}
			}
		}
		if !slices.Equal(wrong, []string{"3.local"}) {
			t.Errorf("%q are said not to resolve", wrong)
		}
	})
}

func TestThousandsOfNames(t *testing.T) {
	var all []string
	for i := range 4096 {
		all = append(all, fmt.Sprintf("%d.local", i))
	}
	tests := []struct {
		name string
		m    *machine
		want verdict
		most int // look-ups
	}{
		{"all resolve", &machine{}, found, 4096 / checkMost},
		{"there is no time for all", &machine{slow: patience - 1}, found, 3 * batchesAtOnce},
		{"nobody answers", &machine{slow: time.Minute}, missing, 4096},
		{"none resolves", &machine{broken: map[string]bool{"": true}}, missing, 4096/checkMost + 10},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			play(t, tt.m, func(t *testing.T, c *Claimant, stop func()) {
				stop()
				tt.m.do(func() {
					tt.m.claimed = make(map[string][]netip.Addr)
					for _, n := range names(all...) {
						tt.m.claimed[n.Name] = n.Addrs
					}
				})
				s := &state{Claimant: c, run: t.Context()}
				c.Set(names(all...))
				began := time.Now()
				v := s.appear(t.Context(), names(all...))
				if took := time.Since(began); v != tt.want || took > lookMost {
					t.Errorf("verdict %v after %v", v, took)
				}
				if n := read(tt.m, &tt.m.lookups); n > tt.most {
					t.Errorf("%d look-ups", n)
				}
			})
		})
	}
}

func TestAllThatDoNotResolveAreTold(t *testing.T) {
	m := &machine{gone: make(map[string]bool)}
	play(t, m, func(t *testing.T, c *Claimant, stop func()) {
		var all []string
		for i := range 4 * checkMost {
			all = append(all, fmt.Sprintf("%d.local", i))
		}
		c.Set(names(all...))
		c.Checked(t.Context())
		m.do(func() {
			for _, name := range all {
				m.gone[name] = true
			}
		})
		time.Sleep(checkEvery + 2*patience)
		for name, r := range c.Report().Names {
			if r.Right {
				t.Fatalf("%s is said to resolve", name)
			}
		}
	})
}

func TestNamesThatCannotBeLookedUpAreLeftClaimed(t *testing.T) {
	m := &machine{}
	play(t, m, func(t *testing.T, c *Claimant, stop func()) {
		c.Set(names("a.local"))
		c.Checked(t.Context())
		claims := read(m, &m.claims)
		m.do(func() { m.blind = errors.New("played to fail") })
		time.Sleep(time.Hour)
		if n := read(m, &m.claims) - claims; n > 0 || len(m.has()) == 0 {
			t.Errorf("claimed %d times, and now %v", n, m.has())
		}
		if r := c.Report(); r.Problem != "names cannot be looked up: played to fail" || r.Outcome.Rung != "resolver" || !r.Names["a.local"].Right {
			t.Errorf("%+v", r)
		}
		m.do(func() { m.blind = nil })
		time.Sleep(checkEvery)
		synctest.Wait()
		if r := c.Report(); r.Problem != "" {
			t.Errorf("%+v", r)
		}
	})
}

func TestThatNamesCannotBeLookedUpIsLoggedOnce(t *testing.T) {
	for name, m := range map[string]*machine{"claimed": {}, "no helper": {absent: true}} {
		t.Run(name, func(t *testing.T) {
			m.blind = errors.New("played to fail")
			var logged bytes.Buffer
			play(t, m, func(t *testing.T, c *Claimant, stop func()) {
				c.Log = slog.New(slog.NewTextHandler(&logged, nil))
				c.Set(names("a.local"))
				time.Sleep(time.Hour)
				stop()
				if n := strings.Count(logged.String(), "names cannot be looked up"); n != 1 {
					t.Errorf("logged %d times", n)
				}
			})
		})
	}
}

func TestAHelperThatHangs(t *testing.T) {
	m := &machine{hangs: true}
	play(t, m, func(t *testing.T, c *Claimant, stop func()) {
		c.Set(names("a.local"))
		synctest.Wait()
		if c.Report().Asked {
			t.Error("said to have been asked before there was an answer")
		}
		time.Sleep(claimTimeout + patience)
		if r := c.Report(); r.Problem != "tunneld-helper has not answered for 15s" || !r.Asked || !r.Installed {
			t.Errorf("%+v", r)
		}
		c.Set(names("b.local"))
		synctest.Wait()
		began := time.Now()
		stop()
		if took := time.Since(began); took > releaseTimeout {
			t.Errorf("the end took %v", took)
		}
	})
}

func TestANewNameIsNotSaidToBeMissingAtOnce(t *testing.T) {
	m := &machine{}
	play(t, m, func(t *testing.T, c *Claimant, stop func()) {
		c.Set(names("a.local"))
		c.Checked(t.Context())
		c.Changed = func() {
			if r, ok := c.Report().Names["b.local"]; ok && !r.Right {
				t.Error("said to be missing")
			}
		}
		m.do(func() { m.late = 2 })
		c.Set(names("a.local", "b.local"))
		c.Checked(t.Context())
		if !c.Report().Names["b.local"].Right {
			t.Errorf("%+v", c.Report())
		}
	})
}

func TestMuchThatChangesKeepsNothingFromBeingSeen(t *testing.T) {
	m := &machine{slow: 200 * time.Millisecond}
	play(t, m, func(t *testing.T, c *Claimant, stop func()) {
		c.Set(names("a.local"))
		for range 50 {
			c.Recheck()
			time.Sleep(100 * time.Millisecond)
		}
		if !c.Report().Names["a.local"].Right {
			t.Errorf("%+v", c.Report())
		}
	})
}

func TestAnInterruptedLookSaysNothing(t *testing.T) {
	m := &machine{absent: true, claimed: map[string][]netip.Addr{"a.local": {at}}}
	play(t, m, func(t *testing.T, c *Claimant, stop func()) {
		c.Set(names("a.local"))
		c.Checked(t.Context())
		c.Changed = func() {
			if !c.Report().Names["a.local"].Right {
				t.Error("said not to resolve")
			}
		}
		m.do(func() { m.slow = time.Second })
		c.Recheck()
		time.Sleep(100 * time.Millisecond)
		c.Set(names("a.local", "b.local"))
		c.Checked(t.Context())
	})
}

func TestTheHelperIsTakenAway(t *testing.T) {
	m := &machine{}
	play(t, m, func(t *testing.T, c *Claimant, stop func()) {
		c.Set(names("a.local"))
		c.Checked(t.Context())
		m.do(func() { m.absent, m.claimed = true, nil })
		c.Recheck()
		time.Sleep(2 * patience)
		if r := c.Report(); r.Installed || r.Problem != "" || r.Names["a.local"].Right {
			t.Errorf("%+v", r)
		}
	})
}

func TestOtherRulesAreSeen(t *testing.T) {
	m := &machine{refuses: map[string]bool{"vm.local": true}, broken: map[string]bool{"resolver": true}}
	play(t, m, func(t *testing.T, c *Claimant, stop func()) {
		c.Set(names("a.local", "vm.local"))
		c.Checked(t.Context())
		claims := read(m, &m.claims)
		c.Set(names("b.local", "vm.local"))
		c.Checked(t.Context())
		if n := read(m, &m.claims) - claims; n != 2 || rung(c) != "hosts" {
			t.Errorf("%d claims, by %s: a refusal says nothing about a rung", n, rung(c))
		}
		m.do(func() { m.refuses = nil })
		c.Set(names("a.local", "b.local", "vm.local"))
		c.Checked(t.Context())
		if r := c.Report(); len(r.Refused) > 0 || !r.Names["vm.local"].Right {
			t.Errorf("%+v", r)
		}
	})
}

func TestOtherRulesAreSeenWhenNothingIsSet(t *testing.T) {
	for name, m := range map[string]*machine{
		"a repair":            {},
		"a look for a better": {unfit: map[string]bool{"resolver": true}},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, m, func(t *testing.T, c *Claimant, stop func()) {
				m.do(func() { m.refuses = map[string]bool{"vm.local": true} })
				c.Set(names("a.local", "vm.local"))
				c.Checked(t.Context())
				if len(c.Report().Refused) == 0 {
					t.Error("nothing is refused")
				}
				m.do(func() { m.refuses, m.claimed = nil, nil })
				c.Recheck()
				time.Sleep(2 * patience)
				if r := c.Report(); len(r.Refused) > 0 || !r.Names["vm.local"].Right {
					t.Errorf("%+v", r)
				}
			})
		})
	}
}

func TestARungThatFailedOnceIsForgiven(t *testing.T) {
	m := &machine{broken: map[string]bool{"resolver": true}}
	play(t, m, func(t *testing.T, c *Claimant, stop func()) {
		c.Set(names("a.local"))
		c.Checked(t.Context())
		m.do(func() { m.broken = nil })
		c.Recheck()
		synctest.Wait()
		if rung(c) != "hosts" {
			t.Errorf("claimed by %s at once: one that does not work would be tried at each change", rung(c))
		}
		time.Sleep(forgiven + 1)
		c.Recheck()
		synctest.Wait()
		if r := c.Report(); r.Outcome.Rung != "resolver" || len(r.Outcome.Passed) > 0 || !r.Names["a.local"].Right {
			t.Errorf("%+v", r)
		}
	})
}

func TestNobodyWaitsForWhatHasEnded(t *testing.T) {
	play(t, &machine{}, func(t *testing.T, c *Claimant, stop func()) {
		stop()
		c.Set(names("a.local"))
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		c.Applied(ctx)
		if took := time.Since(began); took > 0 {
			t.Errorf("waited for %v", took)
		}
	})
}

func TestControlNamesDoNotPileUp(t *testing.T) {
	m := &machine{}
	play(t, m, func(t *testing.T, c *Claimant, stop func()) {
		for range 50 {
			c.Set(names("a.local"))
			c.Checked(t.Context())
			c.Set(nil)
			c.Checked(t.Context())
		}
		if n := len(c.asked.Load().names); n != 2 {
			t.Errorf("%d control names", n)
		}
		// One of them is enough, and is heard once.
		c.Set(names("a.local"))
		c.Checked(t.Context())
		c.Saw(strings.ToUpper(c.asked.Load().names[1]) + ".")
		synctest.Wait()
		if rung(c) != "hosts" {
			t.Errorf("claimed by %q", rung(c))
		}
	})
}

var _ Helper = (*rootapi.Client)(nil)
