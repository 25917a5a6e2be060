package claim

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/tunneld/tunneld/internal/helper"
	"github.com/tunneld/tunneld/internal/osdns"
)

// A state is what Run knows of the claim, and nobody else.
type state struct {
	*Claimant
	inForce []osdns.Name // with the canary; nil: nothing is known to be claimed
	outcome osdns.Outcome
	proven  string // the rung by which the canary was found
	// uncontrolled says that no control name has been looked up since then.
	uncontrolled bool
	skip         []string // rungs that do not work here
	failed       []osdns.Passed
	clear        bool              // nothing is claimed for sure
	errors       int               // in a row
	refused      map[string]string // names, and why no claim may have them

	repairs  int // in a row, that did not help
	repaired time.Time
	turn     int // of the names to be looked at next
}

// next is after what time there is something to do although nothing happens.
func (s *state) next() time.Duration {
	return min(checkEvery<<min(max(s.errors-1, 0), 8), repairMost)
}

// round brings in force what is wanted, and looks whether it works.
func (s *state) round(run context.Context) {
	ctx, cancel := context.WithCancel(run)
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
	if recheck && len(s.outcome.Passed) > 0 {
		s.inForce = nil // a better way may fit now
	}
	err := s.claim(ctx, want, generation)
	if s.errors++; err == nil || errors.Is(err, helper.ErrNotInstalled) {
		s.errors = 0
	}
	if s.uncontrolled {
		s.control(run)
	}
	switch {
	case errors.Is(err, helper.ErrNotInstalled):
		s.note(func(r *Report) { *r = Report{Names: r.Names} })
		s.lookAtUnclaimed(ctx, want, generation, recheck)
	case err != nil:
		s.note(func(r *Report) { r.Installed, r.Outcome, r.Problem = true, osdns.Outcome{}, err.Error() })
		s.lookAtUnclaimed(ctx, want, generation, recheck)
	default:
		s.lookAt(ctx, want, generation)
	}
	if ctx.Err() == nil {
		s.reach(&s.checked, generation)
	}
}

// claim has the names claimed, unless they are, by the first rung that works, but
// for those that no claim may have. It returns early if ctx is done.
func (s *state) claim(ctx context.Context, want []osdns.Name, generation int) error {
	for ctx.Err() == nil {
		all := s.allowed(want)
		if len(all) == 0 {
			err := s.claimNothing()
			s.reach(&s.applied, generation)
			return err
		}
		all = append(all, s.Canary)
		if !reflect.DeepEqual(s.inForce, all) {
			err := s.claimOnce(all)
			if s.refuse(err) {
				continue // without those
			}
			s.reach(&s.applied, generation)
			if err != nil {
				return err
			}
		}
		s.reach(&s.applied, generation)
		if s.outcome.Rung == s.proven {
			return nil
		}
		if s.appear(ctx, []osdns.Name{s.Canary}) {
			s.proven, s.uncontrolled = s.outcome.Rung, true
			s.log().Info("the system asks us for our names", "by", s.outcome.Rung, "why", s.outcome.Why)
			return nil
		}
		if ctx.Err() == nil {
			s.pass("a name that was claimed did not resolve")
		}
	}
	return nil
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
	r, ok := errors.AsType[*helper.Refusal](err)
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
		s.log().Warn("a name cannot be claimed", "name", name, "why", r.Reason)
	}
	s.refused = refused
	s.note(func(report *Report) { report.Refused = refused })
	return true
}

// claimOnce has the names claimed by the first rung that is not known to fail.
func (s *state) claimOnce(all []osdns.Name) error {
	limited, cancel := context.WithTimeout(context.Background(), claimTimeout)
	defer cancel()
	outcome, err := s.Helper.Claim(limited, s.Server, all, s.skip)
	if err != nil {
		s.inForce, s.proven, s.clear = nil, "", false
		if len(s.failed) > 0 && !errors.Is(err, helper.ErrNotInstalled) {
			err = fmt.Errorf("%w (%s: %s)", err, s.failed[len(s.failed)-1].Rung, s.failed[len(s.failed)-1].Why)
		}
		s.skip, s.failed = nil, nil // what failed may work the next time
		return err
	}
	outcome.Passed = append(outcome.Passed, s.failed...)
	s.inForce, s.outcome, s.clear = all, outcome, false
	s.note(func(r *Report) { r.Installed, r.Outcome, r.Problem = true, outcome, "" })
	return nil
}

// claimNothing takes back what is claimed; at the start, what an earlier run has
// left.
func (s *state) claimNothing() error {
	if s.clear {
		return nil
	}
	limited, cancel := context.WithTimeout(context.Background(), claimTimeout)
	defer cancel()
	if err := s.Helper.Release(limited); err != nil {
		return err
	}
	s.inForce, s.outcome, s.proven, s.clear = nil, osdns.Outcome{}, "", true
	s.note(func(r *Report) { *r = Report{Installed: true, Refused: s.refused} })
	return nil
}

// pass gives up the rung that is in force.
func (s *state) pass(why string) {
	rung := s.outcome.Rung
	s.log().Warn("a way to make the system ask us does not work", "rung", rung, "why", why)
	s.skip = append(s.skip, rung)
	s.failed = append(s.failed, osdns.Passed{Rung: rung, Why: why})
	s.inForce, s.proven = nil, ""
}

// repair forgets what is believed to be in force, so that the next claim is made
// as if for the first time. Where repairs do not help, they become rare: whoever
// breaks it does so again.
func (s *state) repair() bool {
	if n := s.repairs - repairsAtOnce; n >= 0 && time.Since(s.repaired) < min(checkEvery<<min(n+1, 8), repairMost) {
		return false
	}
	s.repairs++
	s.repaired = time.Now()
	s.inForce, s.proven, s.skip, s.failed = nil, "", nil, nil
	s.refused = nil // the rules may be others now
	return true
}

// reach notes how far a generation has come, and tells who waits for it.
func (s *state) reach(mark *int, generation int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if *mark < generation {
		*mark = generation
		close(s.progress)
		s.progress = make(chan struct{})
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
