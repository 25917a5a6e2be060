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
	// patience is how long a name may take to resolve after it was claimed, and
	// how long a look-up is waited for.
	patience = 2 * time.Second
	// again is the first time between two look-ups of a name that does not
	// resolve yet; it doubles.
	again = 10 * time.Millisecond
	// lookMost bounds one look at all names, be they thousands, or silent.
	lookMost = 4 * patience
	// batchesAtOnce is how many processes look names up at the same time, and
	// singlesAtOnce is that where each has one name, and waits.
	batchesAtOnce = 4
	singlesAtOnce = 16
	// controlled is how long a control name is waited for.
	controlled = 6 * time.Second
)

// A verdict is what came of looking for names.
type verdict int

const (
	unknown verdict = iota // it was interrupted, or names cannot be looked up
	missing                // some do not lead where they must
	found
)

// lookAt looks whether names that are claimed resolve: those that are new, or were
// not found the last time, and some of the others in turn. If some do not, all is
// claimed anew, and all are looked at.
func (s *state) lookAt(ctx context.Context, want []osdns.Name, generation int) {
	known := s.Report().Names
	var due, old []osdns.Name
	all := s.allowed(want)
	for _, n := range all {
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
	if s.appear(ctx, due) != missing || !s.repair() {
		return
	}
	s.log().Warn("names that were claimed do not resolve any more: claiming them anew")
	err := s.claim(ctx, want, generation)
	if s.run.Err() == nil && s.noteClaim(err) {
		s.appear(ctx, s.allowed(want))
	}
}

// appear looks names up until all of them lead where they must, or for as long as
// that may take, and notes what was found.
func (s *state) appear(ctx context.Context, names []osdns.Name) verdict {
	began := time.Now()
	pause := time.NewTimer(0)
	defer pause.Stop()
	look := names
	for wait := again; ; wait *= 2 {
		seen, err := s.lookup(ctx, look)
		if ctx.Err() != nil {
			return unknown // what was found says nothing
		}
		last := time.Since(began)+wait > patience
		s.found(seen, last)
		if s.noteBlind(err); err != nil {
			return unknown
		}
		left := slices.DeleteFunc(slices.Clone(names), func(n osdns.Name) bool { return seen[n.Name].Right })
		wrong := slices.ContainsFunc(look, func(n osdns.Name) bool { r, looked := seen[n.Name]; return looked && !r.Right })
		switch {
		case len(left) == 0, !wrong && len(look) == len(names):
			return found // but for those for which there was no time
		case last:
			return missing
		}
		if look = left; len(left) == len(names) {
			look = left[:min(checkMost, len(left))] // none has come: some tell when that ends
		}
		names = left
		pause.Reset(wait)
		select {
		case <-ctx.Done():
			return unknown
		case <-pause.C:
		}
	}
}

// noteBlind reports that names cannot be looked up, or can again.
func (s *state) noteBlind(err error) {
	switch was := s.logBlind(err); {
	case err != nil:
		s.note(func(r *Report) { r.Problem = "names cannot be looked up: " + err.Error() })
	case was:
		s.note(func(r *Report) { r.Problem = "" })
	}
}

// logBlind logs it when names cannot be looked up any more, and reports whether
// that was so before.
func (s *state) logBlind(err error) (was bool) {
	was, s.blind = s.blind, err != nil
	if s.blind && !was {
		s.log().Warn("names cannot be looked up", "err", err)
	}
	return was
}

// lookAtUnclaimed looks which names resolve although we have not claimed them, as
// they may with an own entry in the hosts file: each once, since it may take
// seconds, and again when something may have changed.
func (s *state) lookAtUnclaimed(ctx context.Context, want []osdns.Name, recheck bool) {
	due := want
	if !recheck && !s.unseen {
		known := s.Report().Names
		due = slices.DeleteFunc(slices.Clone(want), func(n osdns.Name) bool { _, ok := known[n.Name]; return ok })
	}
	seen, err := s.lookup(ctx, due)
	if ctx.Err() != nil {
		return
	}
	s.logBlind(err)
	s.unseen = false
	s.found(seen, true)
}

// lookup looks names up, and judges what it finds. A name that was not looked up,
// because there was no time, or because of the error, is not in the result.
func (s *state) lookup(ctx context.Context, names []osdns.Name) (map[string]Resolution, error) {
	ctx, cancel := context.WithTimeout(ctx, lookMost)
	defer cancel()
	first, cancel := context.WithTimeout(ctx, lookMost/2) // the rest is for some, at least
	defer cancel()
	seen, late, err := s.lookupBatches(first, slices.Collect(slices.Chunk(names, checkMost)), batchesAtOnce)
	if err == nil && len(late) > 0 {
		// One name that nobody answers for holds up the others of its batch.
		var more map[string]Resolution
		more, _, err = s.lookupBatches(ctx, slices.Collect(slices.Chunk(late, 1)), singlesAtOnce)
		maps.Copy(seen, more)
	}
	return seen, err
}

// lookupBatches looks batches of names up, and returns the names of those that took
// too long. A name that did so alone does not resolve.
func (s *state) lookupBatches(ctx context.Context, batches [][]osdns.Name, atOnce int) (seen map[string]Resolution, late []osdns.Name, err error) {
	var (
		mu      sync.Mutex // guards what is returned
		looking sync.WaitGroup
		tickets = make(chan struct{}, atOnce)
	)
	seen = make(map[string]Resolution)
	for _, batch := range batches {
		if tickets <- struct{}{}; ctx.Err() != nil {
			break
		}
		looking.Go(func() {
			defer func() { <-tickets }()
			limited, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			some, failed := s.lookupOnce(limited, batch)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case failed == nil:
				maps.Copy(seen, some)
			case ctx.Err() != nil:
			case limited.Err() != nil && len(batch) == 1:
				seen[batch[0].Name] = Resolution{Took: patience}
			case limited.Err() != nil:
				late = append(late, batch...)
			default:
				err = failed
			}
		})
	}
	looking.Wait()
	return seen, late, err
}

// LookUp looks one name up, which must lead to addrs. It notes nothing, and may be
// called concurrently. The error is why that could not be done.
func (c *Claimant) LookUp(ctx context.Context, name string, addrs []netip.Addr) (Resolution, error) {
	seen, err := c.lookupOnce(ctx, []osdns.Name{{Name: name, Addrs: addrs}})
	return seen[name], err
}

// lookupOnce looks names up together, and judges what it finds.
func (c *Claimant) lookupOnce(ctx context.Context, names []osdns.Name) (map[string]Resolution, error) {
	asked := make([]string, len(names))
	for i, n := range names {
		asked[i] = n.Name
	}
	began := time.Now()
	addrs, err := c.Lookup(ctx, asked...)
	took := time.Since(began)
	if err != nil {
		return nil, err
	}
	seen := make(map[string]Resolution, len(names))
	for _, n := range names {
		got := addrs[n.Name]
		seen[n.Name] = Resolution{Addrs: got, Right: leads(got, n), Took: took / time.Duration(len(names))}
	}
	return seen, nil
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

// found notes resolutions, and forgets those of names that are not wanted. That a
// name which was never seen is not there yet is noted last.
func (s *state) found(seen map[string]Resolution, last bool) {
	s.note(func(r *Report) {
		names := make(map[string]Resolution, len(s.want))
		for _, n := range s.want {
			old, known := r.Names[n.Name]
			if known {
				names[n.Name] = old
			}
			if now, ok := seen[n.Name]; ok && (known || now.Right || last) {
				names[n.Name] = now
			}
		}
		if !maps.EqualFunc(r.Names, names, same) {
			r.Names = names
		}
	})
}

// same reports whether two resolutions are alike but for the time that they took.
func same(a, b Resolution) bool { return a.Right == b.Right && slices.Equal(a.Addrs, b.Addrs) }

// control looks up names that are not ours, and that nobody has in a cache: none
// may reach us. It does not wait for them, since they may take long where there
// is no network.
func (s *state) control() {
	s.uncontrolled = false
	names := []string{madeUp("example.com"), madeUp(domainOf(s.Canary.Name))}
	s.asked.Store(&controlNames{rung: s.proven, names: names})
	for _, name := range names {
		s.controls.Go(func() {
			ctx, cancel := context.WithTimeout(s.run, controlled)
			defer cancel()
			s.Lookup(ctx, name)
		})
	}
}

func domainOf(name string) string {
	_, domain, _ := strings.Cut(name, ".")
	return domain
}
