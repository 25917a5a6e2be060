package claim

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/tunneld/tunneld/internal/osdns"
	"github.com/tunneld/tunneld/internal/rootapi"
)

// forgiven is after what time a rung that did not work is tried again when something
// has changed: perhaps only the machine was busy. To try may take the names away for
// as long as the canary is waited for.
const forgiven = 10 * time.Minute

// A state is what Run knows of the claim, and nobody else.
type state struct {
	*Claimant
	// run is Run's context. What the helper is asked for is not ended by the next
	// Set, as a look-up is.
	run     context.Context
	inForce []osdns.Name // with the canary; nil: nothing is known to be claimed
	outcome osdns.Outcome
	proven  string // the rung by which the canary was found
	// uncontrolled says that no control name has been looked up since then.
	uncontrolled bool
	skip         []string // rungs that do not work here
	failed       []osdns.Passed
	passed       time.Time         // when the last of them failed
	clear        bool              // nothing is claimed for sure
	refused      map[string]string // names, and why no claim may have them

	tried   int   // the generation that was claimed last
	problem error // why that failed; nil: it did not
	better  bool  // a better rung may fit now
	unseen  bool  // what was claimed has gone since names were looked up
	blind   bool  // names cannot be looked up
	turn    int   // of the names to be looked at next

	retries, repairs, climbs pace
}

// round brings in force what is wanted, and looks whether it works.
func (s *state) round() {
	ctx, cancel := context.WithCancel(s.run)
	defer cancel()
	s.mu.Lock()
	want, generation, recheck, leaking := s.want, s.wanted, s.recheck, s.leaking
	s.recheck, s.leaking, s.interrupt = false, "", cancel
	s.mu.Unlock()
	if generation == 0 {
		return // nobody has said yet what is wanted
	}
	if leaking != "" && leaking == s.outcome.Rung {
		s.pass("the system asks us for other names, too")
	}
	s.climb(recheck)
	err := s.claim(ctx, want, generation)
	if s.run.Err() != nil {
		return
	}
	if s.uncontrolled {
		s.control()
	}
	if s.noteClaim(err) {
		s.lookAt(ctx, want, generation)
	} else {
		s.lookAtUnclaimed(ctx, want, recheck)
	}
	if ctx.Err() == nil {
		s.reach(&s.checked, generation)
	}
}

// climb forgets what is in force if a better rung may fit now, so that it is taken.
// What has changed may be what we have claimed, by our own hand or by somebody's
// who does not want it there, so this is not done whenever something has changed.
func (s *state) climb(recheck bool) {
	s.better = s.better || recheck
	switch {
	case len(s.outcome.Passed) == 0:
		s.better = false
	case s.better && s.climbs.due():
		s.climbs.did()
		s.better, s.inForce = false, nil
		s.tried = 0 // the rules may be others now, too
		if time.Since(s.passed) > forgiven {
			s.skip, s.failed = nil, nil
		}
	}
}

// noteClaim reports what came of a claim, and whether names are claimed.
func (s *state) noteClaim(err error) bool {
	switch {
	case errors.Is(err, rootapi.ErrNotInstalled):
		s.note(func(r *Report) { *r = Report{Asked: true, Names: r.Names} })
	case err != nil:
		s.note(func(r *Report) {
			r.Asked, r.Installed, r.Outcome, r.Problem = true, true, osdns.Outcome{}, err.Error()
		})
	}
	return err == nil
}

// claim has the names claimed, unless they are, by the first rung that works, but
// for those that no claim may have. It returns early if ctx is done.
func (s *state) claim(ctx context.Context, want []osdns.Name, generation int) error {
	if generation != s.tried {
		s.refused = nil // the rules may be others now
	} else if s.problem != nil && !s.retries.due() {
		return s.problem
	}
	s.tried, s.problem = generation, nil
	for ctx.Err() == nil {
		all := s.allowed(want)
		if len(all) == 0 {
			err := s.claimNothing()
			s.reach(&s.applied, generation)
			return s.failing(err)
		}
		all = append(all, s.Canary)
		if !equal(s.inForce, all) {
			err := s.claimOnce(all)
			if s.refuse(err) {
				continue // without those
			}
			if err != nil {
				s.reach(&s.applied, generation)
				return s.failing(err)
			}
		}
		s.reach(&s.applied, generation)
		if s.outcome.Rung == s.proven {
			return nil
		}
		switch s.appear(ctx, []osdns.Name{s.Canary}) {
		case found:
			s.proven, s.uncontrolled = s.outcome.Rung, true
			s.log().Info("the system asks us for our names", "by", s.outcome.Rung, "why", s.outcome.Why)
			return nil
		case missing:
			s.pass("a name that was claimed did not resolve")
		case unknown:
			return nil
		}
	}
	return nil
}

// failing notes why a claim failed, such that it is tried again when it is due.
// Where there is no helper, to ask for one costs nothing.
func (s *state) failing(err error) error {
	if err != nil && !errors.Is(err, rootapi.ErrNotInstalled) {
		s.problem = err
		s.retries.did()
	}
	return err
}

// allowed are the names that were not refused.
func (s *state) allowed(want []osdns.Name) []osdns.Name {
	var all []osdns.Name
	for _, n := range want {
		if s.refused[n.Name] == "" {
			all = append(all, n)
		}
	}
	return all
}

// refuse notes which names are refused, if that is the error, and reports whether
// the others may be claimed.
func (s *state) refuse(err error) bool {
	r, ok := errors.AsType[*rootapi.Refusal](err)
	if !ok || len(r.Names) == 0 || slices.Contains(r.Names, s.Canary.Name) {
		return false
	}
	refused := maps.Clone(s.refused) // the report has the old one
	if refused == nil {
		refused = make(map[string]string)
	}
	for _, name := range r.Names {
		if refused[name] != "" {
			return false // it was not among those that were asked for
		}
		refused[name] = r.Reason
		if s.Report().Refused[name] != r.Reason {
			s.log().Warn("a name cannot be claimed", "name", name, "why", r.Reason)
		}
	}
	s.refused = refused
	s.note(func(report *Report) { report.Refused = refused })
	return true
}

// claimOnce has the names claimed by the first rung that is not known to fail.
func (s *state) claimOnce(all []osdns.Name) error {
	limited, cancel := context.WithTimeout(s.run, claimTimeout)
	defer cancel()
	outcome, err := s.Helper.Claim(limited, s.Server, all, s.skip)
	if errors.Is(err, rootapi.ErrRefused) { // before anything was done
		s.inForce, s.clear = nil, false
		return err
	}
	if err != nil {
		s.unseen = s.unseen || s.outcome.Rung != ""
		s.inForce, s.outcome, s.proven, s.clear = nil, osdns.Outcome{}, "", false
		if len(s.failed) > 0 && !errors.Is(err, rootapi.ErrNotInstalled) {
			err = fmt.Errorf("%w (%s: %s)", err, s.failed[len(s.failed)-1].Rung, s.failed[len(s.failed)-1].Why)
		}
		s.skip, s.failed = nil, nil // what failed may work the next time
		return inTime(limited, err, claimTimeout)
	}
	outcome.Passed = append(outcome.Passed, s.failed...)
	s.inForce, s.outcome, s.clear = all, outcome, false
	s.note(func(r *Report) {
		r.Asked, r.Installed, r.Outcome, r.Problem, r.Refused = true, true, outcome, "", s.refused
	})
	return nil
}

// inTime says for how long the helper has not answered, if that is the error.
func inTime(limited context.Context, err error, timeout time.Duration) error {
	if errors.Is(err, context.DeadlineExceeded) && limited.Err() != nil {
		return fmt.Errorf("tunneld-helper has not answered for %v", timeout)
	}
	return err
}

// claimNothing takes back what is claimed; at the start, what an earlier run has
// left.
func (s *state) claimNothing() error {
	if s.clear {
		return nil
	}
	limited, cancel := context.WithTimeout(s.run, claimTimeout)
	defer cancel()
	s.inForce, s.outcome, s.proven = nil, osdns.Outcome{}, ""
	if err := s.Helper.Release(limited); err != nil {
		return inTime(limited, err, claimTimeout)
	}
	s.clear = true
	s.note(func(r *Report) { *r = Report{Asked: true, Installed: true, Refused: s.refused} })
	return nil
}

// pass gives up the rung that is in force.
func (s *state) pass(why string) {
	rung := s.outcome.Rung
	s.log().Warn("a way to make the system ask us does not work", "rung", rung, "why", why)
	s.skip = append(s.skip, rung)
	s.failed = append(s.failed, osdns.Passed{Rung: rung, Why: why})
	s.inForce, s.proven, s.passed = nil, "", time.Now()
}

// repair forgets what is believed to be in force, so that the next claim is made
// as if for the first time. It reports whether it is time for that.
func (s *state) repair() bool {
	if !s.repairs.due() {
		return false
	}
	s.repairs.did()
	s.inForce, s.proven, s.skip, s.failed = nil, "", nil, nil
	s.tried = 0 // the rules may be others now, too
	return true
}

// reach notes how far a generation has come, and tells who waits for it.
func (s *state) reach(mark *int, generation int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if *mark < generation {
		*mark = generation
		s.tellWaiting()
	}
}

// note changes the report, and tells that it has changed.
func (s *state) note(change func(*Report)) {
	s.mu.Lock()
	before := s.report
	change(&s.report)
	changed := !reflect.DeepEqual(before, s.report)
	s.mu.Unlock()
	if changed && s.Changed != nil {
		s.Changed()
	}
}
