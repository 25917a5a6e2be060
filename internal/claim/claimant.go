package claim

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tunneld/tunneld/internal/osdns"
	"github.com/tunneld/tunneld/internal/rootapi"
)

const (
	// checkEvery is how often it is looked whether names still resolve: a
	// forward's state must not be older than that.
	checkEvery = 10 * time.Second
	// checkMost is how many of the names that resolve are looked at then, in
	// turn: one short-lived process does it.
	checkMost = 32
	// claimTimeout bounds one claim: a resolver may have to be started again.
	claimTimeout = 15 * time.Second
	// releaseTimeout bounds the release at the end.
	releaseTimeout = 2 * time.Second
)

// A Helper is what the privileged helper does for a Claimant: *rootapi.Client is
// one, whose errors it returns.
type Helper interface {
	Claim(ctx context.Context, server netip.AddrPort, names []osdns.Name, skip []string) (osdns.Outcome, error)
	Release(ctx context.Context) error
}

// A Claimant keeps claimed what was last Set. Its fields may not change after
// Run.
type Claimant struct {
	Helper Helper
	// Lookup resolves names as the programs of this system do: lookup.Names.
	Lookup func(ctx context.Context, names ...string) (map[string][]netip.Addr, error)
	// Server is where our names are answered.
	Server netip.AddrPort
	// Canary is a name that nobody asks for but to see whether a claim works:
	// see NewCanary. Whoever answers at Server must know it.
	Canary osdns.Name
	// Changed is called when the Report has changed. It should not block.
	Changed func()
	Log     *slog.Logger // nil: none

	controls sync.WaitGroup

	mu        sync.Mutex // guards the following
	want      []osdns.Name
	wanted    int // how many times want was set
	applied   int // that of the want that is in force, or for which that failed
	checked   int // ... that it was looked up for
	ended     bool
	leaving   bool // Run leaves claimed what is
	recheck   bool
	interrupt context.CancelFunc // ends the look-ups in progress
	kick      chan struct{}      // cap 1
	progress  chan struct{}      // closed when applied or checked grow, and at the end
	report    Report
	leaking   string // the rung by which a control name came

	// asked are the last control names. Queries that are none of ours look at
	// them, as many and as often as they like.
	asked atomic.Pointer[controlNames]
}

// controlNames are names that must not reach us while a rung is in force.
type controlNames struct {
	rung  string
	names []string
}

// A Report tells what the claim has come to.
type Report struct {
	// Asked says that the helper has been asked, and has answered or is not
	// there: before that, nothing is known.
	Asked bool
	// Installed says that there is a helper.
	Installed bool
	// Outcome is how the names are claimed; its Rung is empty if they are not.
	Outcome osdns.Outcome
	// Problem is why they are not, though there is a helper, or why it is not
	// known whether they resolve.
	Problem string
	// Refused are the names that no claim may have, and why: they are wanted by
	// somebody else.
	Refused map[string]string
	// Names are the names that were looked up, and what came of it last.
	Names map[string]Resolution
}

// A Resolution is what the system makes of a name.
type Resolution struct {
	Addrs []netip.Addr // none: it does not resolve
	Right bool         // they are where the name must lead
	Took  time.Duration
}

// NewCanary makes up a name under the domain, which no cache has.
func NewCanary(domain string, at netip.Addr) osdns.Name {
	return osdns.Name{Name: madeUp(domain), Addrs: []netip.Addr{at}}
}

func madeUp(domain string) string {
	var b [6]byte
	rand.Read(b[:])
	return "tunneld-" + hex.EncodeToString(b[:]) + "." + domain
}

// Set replaces the names that are wanted. It does not wait: see Applied and
// Checked.
func (c *Claimant) Set(names []osdns.Name) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.init()
	if c.wanted > 0 && equal(c.want, names) {
		return
	}
	c.want = slices.Clone(names)
	c.wanted++
	c.interruptRound()
	c.wake()
}

func equal(a, b []osdns.Name) bool {
	return slices.EqualFunc(a, b, func(a, b osdns.Name) bool {
		return a.Name == b.Name && a.Wildcard == b.Wildcard && slices.Equal(a.Addrs, b.Addrs)
	})
}

// Recheck has what is claimed looked at now, since something may have changed it.
// What is being looked at is looked at to its end: whoever calls often would else
// keep all from being seen.
func (c *Claimant) Recheck() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.init()
	c.recheck = true
	c.wake()
}

// Saw tells which name we were asked for that is none of ours. It may be called
// concurrently, does not block, and costs little.
func (c *Claimant) Saw(name string) {
	asked := c.asked.Load()
	if asked == nil {
		return
	}
	name = strings.TrimSuffix(name, ".")
	if !slices.ContainsFunc(asked.names, func(control string) bool { return strings.EqualFold(control, name) }) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.leaking != asked.rung { // who asks us does so more than once
		c.leaking = asked.rung
		c.interruptRound()
		c.wake()
	}
}

// Applied waits until what was last Set is in force, or cannot be, or Run has
// ended.
func (c *Claimant) Applied(ctx context.Context) {
	c.await(ctx, func() int { return c.applied })
}

// Checked waits until what was last Set has been looked up, too.
func (c *Claimant) Checked(ctx context.Context) {
	c.await(ctx, func() int { return c.checked })
}

func (c *Claimant) await(ctx context.Context, reached func() int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.init()
	for goal := c.wanted; reached() < goal && !c.ended; {
		progress := c.progress
		c.mu.Unlock()
		select {
		case <-progress:
		case <-ctx.Done():
		}
		c.mu.Lock()
		if ctx.Err() != nil {
			return
		}
	}
}

// Report tells how things are. What it holds must not be changed.
func (c *Claimant) Report() Report {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.report
}

// init makes the channels; mu is held.
func (c *Claimant) init() {
	if c.kick == nil {
		c.kick, c.progress = make(chan struct{}, 1), make(chan struct{})
	}
}

// interruptRound ends the look-ups in progress, of which nobody wants to know any
// more; mu is held.
func (c *Claimant) interruptRound() {
	if c.interrupt != nil {
		c.interrupt()
	}
}

// wake has Run look at what is to be done; mu is held.
func (c *Claimant) wake() {
	c.init()
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

// Leave has Run leave claimed at its end what is claimed then, for the next one:
// whoever asks meanwhile must be kept waiting at Server.
func (c *Claimant) Leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leaving = true
}

// Run claims what is Set until ctx is done, which is no error, and then takes all
// claims back, unless it shall Leave them. What an earlier run has left is replaced,
// or taken back, too.
func (c *Claimant) Run(ctx context.Context) error {
	c.mu.Lock()
	c.init()
	c.mu.Unlock()
	defer c.end()
	s := &state{Claimant: c, run: ctx}
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			c.controls.Wait()
			s.release()
			return nil
		case <-c.kick:
		case <-tick.C:
		}
		s.round()
	}
}

// end lets nobody wait any more.
func (c *Claimant) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	c.tellWaiting()
}

// tellWaiting tells who waits that something has been reached; mu is held.
func (c *Claimant) tellWaiting() {
	close(c.progress)
	c.progress = make(chan struct{})
}

// release takes all claims back at the end.
func (s *state) release() {
	s.mu.Lock()
	leaving := s.leaving
	s.mu.Unlock()
	if leaving {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), releaseTimeout)
	defer cancel()
	if err := s.Helper.Release(ctx); err != nil && !errors.Is(err, rootapi.ErrNotInstalled) {
		s.log().Error("names are still claimed of the system", "err", inTime(ctx, err, releaseTimeout))
	}
}

func (c *Claimant) log() *slog.Logger {
	if c.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return c.Log
}
