package claim

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tunneld/tunneld/internal/osdns"
)

const (
	// patience is how long a name may take to resolve after it was claimed.
	patience = 2 * time.Second
	// again is the first time between two look-ups of a name that does not
	// resolve yet; it doubles.
	again = 10 * time.Millisecond
	// atOnce is how many names are looked up at the same time where each may
	// take seconds.
	atOnce = 4
	// controlled is how long a control name is waited for.
	controlled = 6 * time.Second
)

// lookAt looks whether names that are claimed resolve: those that are new, or were
// not found the last time, and some of the others in turn. If some do not, all is
// claimed anew, and they are looked at once more.
func (s *state) lookAt(ctx context.Context, want []osdns.Name, generation int) {
	known := s.Report().Names
	var due, old []osdns.Name
	for _, n := range s.allowed(want) {
		if r, ok := known[n.Name]; ok && r.Right {
			old = append(old, n)
		} else {
			due = append(due, n)
		}
	}
	for range min(checkMost, len(old)) {
		due = append(due, old[s.turn%len(old)])
		s.turn++
	}
	ok := s.appear(ctx, due)
	if ok || ctx.Err() != nil {
		if ok && time.Since(s.repaired) > repairMost {
			s.repairs = 0
		}
		return
	}
	if !s.repair() {
		return
	}
	s.log().Warn("names that were claimed do not resolve any more: claiming them anew")
	if err := s.claim(ctx, want, generation); err != nil {
		s.note(func(r *Report) { r.Outcome, r.Problem = osdns.Outcome{}, err.Error() })
		return
	}
	s.appear(ctx, due)
}

// appear looks names up until all of them lead where they must, or for as long as
// that may take, and notes what was found. It reports whether they do.
func (s *state) appear(ctx context.Context, names []osdns.Name) bool {
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	pause := time.NewTimer(0)
	defer pause.Stop()
	for wait := again; ; wait *= 2 {
		found := s.lookup(limited, names)
		var missing []osdns.Name
		for _, n := range names {
			if !found[n.Name].Right {
				missing = append(missing, n)
			}
		}
		if ctx.Err() != nil {
			return false // interrupted: what was found says nothing
		}
		s.found(found)
		if len(missing) == 0 {
			return true
		}
		names = missing
		pause.Reset(wait)
		select {
		case <-limited.Done():
			return false
		case <-pause.C:
		}
	}
}

// lookAtUnclaimed looks which names resolve although we have not claimed them, as
// they may with an own entry in the hosts file: once, and when something may have
// changed, since each may take seconds.
func (s *state) lookAtUnclaimed(ctx context.Context, want []osdns.Name, generation int, recheck bool) {
	s.mu.Lock()
	done := s.checked >= generation && !recheck
	s.mu.Unlock()
	if done {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, controlled)
	defer cancel()
	var looking sync.WaitGroup
	tickets := make(chan struct{}, atOnce)
	for _, n := range want {
		tickets <- struct{}{}
		looking.Go(func() {
			defer func() { <-tickets }()
			limited, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			s.found(s.lookup(limited, []osdns.Name{n}))
		})
	}
	looking.Wait()
}

// LookUp looks one name up, which must lead to addrs. It notes nothing, and may be
// called concurrently.
func (c *Claimant) LookUp(ctx context.Context, name string, addrs []netip.Addr) Resolution {
	return c.lookup(ctx, []osdns.Name{{Name: name, Addrs: addrs}})[name]
}

// lookup looks names up, and judges what it finds.
func (c *Claimant) lookup(ctx context.Context, names []osdns.Name) map[string]Resolution {
	if len(names) == 0 {
		return nil
	}
	asked := make([]string, len(names))
	for i, n := range names {
		asked[i] = n.Name
	}
	began := time.Now()
	addrs, err := c.Lookup(ctx, asked...)
	took := time.Since(began)
	if err != nil && ctx.Err() == nil {
		c.log().Warn("names cannot be looked up", "err", err)
	}
	found := make(map[string]Resolution, len(names))
	for _, n := range names {
		got := addrs[n.Name]
		found[n.Name] = Resolution{Addrs: got, Right: leads(got, n), Took: took / time.Duration(len(names))}
	}
	return found
}

// leads reports whether addresses are where the name must lead. Systems have
// their own mind about .localhost, and are right about it (RFC 6761).
func leads(got []netip.Addr, n osdns.Name) bool {
	return len(got) > 0 && !slices.ContainsFunc(got, func(addr netip.Addr) bool {
		addr = addr.Unmap().WithZone("")
		if strings.HasSuffix(n.Name, ".localhost") {
			return !addr.IsLoopback()
		}
		return !slices.Contains(n.Addrs, addr)
	})
}

// found notes resolutions, and forgets those of names that are not wanted.
func (s *state) found(found map[string]Resolution) {
	s.note(func(r *Report) {
		names := make(map[string]Resolution, len(s.want))
		for _, n := range s.want {
			if old, ok := r.Names[n.Name]; ok {
				names[n.Name] = old
			}
			if now, ok := found[n.Name]; ok {
				names[n.Name] = now
			}
		}
		if maps.EqualFunc(r.Names, names, same) {
			return
		}
		r.Names = names
	})
}

// same reports whether two resolutions are alike but for the time that they took.
func same(a, b Resolution) bool { return a.Right == b.Right && slices.Equal(a.Addrs, b.Addrs) }

// control looks up names that are not ours, and that nobody has in a cache: none
// may reach us. It does not wait for them, since they may take long where there
// is no network.
func (s *state) control(run context.Context) {
	s.uncontrolled = false
	names := []string{madeUp("example.com"), madeUp(domainOf(s.Canary.Name))}
	s.mu.Lock()
	if s.asked == nil {
		s.asked = make(map[string]string)
	}
	for _, name := range names {
		s.asked[name] = s.proven
	}
	s.mu.Unlock()
	for _, name := range names {
		s.controls.Go(func() {
			ctx, cancel := context.WithTimeout(run, controlled)
			defer cancel()
			s.Lookup(ctx, name)
		})
	}
}

func domainOf(name string) string {
	_, domain, _ := strings.Cut(name, ".")
	return domain
}
