package claim

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tunneld/tunneld/internal/helper"
	"github.com/tunneld/tunneld/internal/osdns"
)

const (
	// checkEvery is how often it is looked whether names still resolve: a
	// forward's state must not be older than that.
	checkEvery = 10 * time.Second
	// checkMost is how many names are looked at then, besides the canary, in
	// turn: one short-lived process does it.
	checkMost = 32
	// repairsAtOnce is how many repairs in a row are made without waiting.
	repairsAtOnce = 3
	// repairMost is the longest time between two repairs of what does not hold.
	repairMost = 2 * time.Minute
	// claimTimeout bounds one claim: a resolver may have to be started again.
	claimTimeout = 15 * time.Second
	// releaseTimeout bounds the release at the end.
	releaseTimeout = 2 * time.Second
)

// A Helper is what the privileged helper does for a Claimant: *helper.Client is
// one, whose errors it returns.
type Helper interface {
	Claim(ctx context.Context, server netip.AddrPort, names []osdns.Name, skip []string) (osdns.Outcome, error)
	Release(ctx context.Context) error
}

// A Claimant keeps claimed what was last Set. Its fields may not change after
// Run.
type Claimant struct {
	Helper Helper
	// Lookup resolves names as the programs of this system do: osdns.Lookup.
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
	recheck   bool
	interrupt context.CancelFunc // ends the look-ups in progress
	kick      chan struct{}      // cap 1
	progress  chan struct{}      // closed when applied or checked grow
	report    Report
	asked     map[string]string // control names, and the rung that they control
	leaking   string            // the rung by which a control name came
}

// A Report tells what the claim has come to.
type Report struct {
	// Installed says that there is a helper.
	Installed bool
	// Outcome is how the names are claimed; its Rung is empty if they are not.
	Outcome osdns.Outcome
	// Problem is why they are not, though there is a helper.
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
	if c.wanted > 0 && reflect.DeepEqual(c.want, names) {
		return
	}
	c.want = slices.Clone(names)
	c.wanted++
	c.wake()
}

// Recheck has what is claimed looked at now, since something may have changed it.
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
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.asked) == 0 {
		return
	}
	if rung, ok := c.asked[strings.ToLower(strings.TrimSuffix(name, "."))]; ok {
		c.leaking = rung
		c.wake()
	}
}

// Applied waits until what was last Set is in force, or cannot be.
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
	for goal := c.wanted; reached() < goal; {
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

// wake has Run look at what is to be done; mu is held.
func (c *Claimant) wake() {
	c.init()
	if c.interrupt != nil {
		c.interrupt()
	}
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

// Run claims what is Set until ctx is done, which is no error, and then takes all
// claims back. What an earlier run has left is replaced, or taken back, too.
func (c *Claimant) Run(ctx context.Context) error {
	c.mu.Lock()
	c.init()
	c.mu.Unlock()
	s := &state{Claimant: c}
	tick := time.NewTimer(checkEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			c.controls.Wait()
			return s.release()
		case <-c.kick:
		case <-tick.C:
		}
		s.round(ctx)
		tick.Reset(s.next())
	}
}

// release takes all claims back at the end.
func (s *state) release() error {
	ctx, cancel := context.WithTimeout(context.Background(), releaseTimeout)
	defer cancel()
	err := s.Helper.Release(ctx)
	if errors.Is(err, helper.ErrNotInstalled) {
		return nil
	}
	if err != nil {
		s.log().Error("names are still claimed of the system", "err", err)
	}
	return nil
}

func (c *Claimant) log() *slog.Logger {
	if c.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return c.Log
}
