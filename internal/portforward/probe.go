package portforward

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Probe proves that the pod can be reached, up to and including its node's
// container runtime, and leaves an idle upgraded connection behind. It opens
// no connection to the app. If there is none that is idle, it upgrades another
// even beyond the caps, and then keeps none.
func (p *Pool) Probe(ctx context.Context, pod Pod) error {
	p.mu.Lock()
	pc := p.connsOf(pod)
	s, spent := pc.takeIdle()
	p.mu.Unlock()
	end(spent)
	if s == nil {
		return p.ProbeUpgrade(ctx, pod)
	}
	return p.prove(ctx, pc, s)
}

// ProbeUpgrade is Probe with an upgraded connection of its own: it proves that
// upgrades are allowed, too.
func (p *Pool) ProbeUpgrade(ctx context.Context, pod Pod) error {
	p.mu.Lock()
	pc := p.connsOf(pod)
	pc.dialing++
	p.mu.Unlock()
	s, err := p.dial(ctx, pc, p.Dial)
	if err != nil {
		return err
	}
	return p.prove(ctx, pc, s)
}

func (p *Pool) prove(ctx context.Context, pc *podConns, s *session) error {
	v, err := s.ping(ctx, p.pingTimeout())
	if v != alive && ctx.Err() != nil {
		p.keep(pc, s) // nothing new is known about it
		return context.Cause(ctx)
	}
	if v == unclear { // with no lease, nothing excuses that
		err = errNoAnswer
	}
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrLinkDead, err)
		s.fail(err)
		return err
	}
	if v == alive {
		p.proved(pc)
	}
	p.keep(pc, s)
	p.changed()
	return nil
}

// A question is asked once by whoever asks first, and answered to all.
type question struct {
	answered chan struct{}
	yes      bool // once answered
}

// reachable finds out by another upgraded connection whether a pod can be
// reached to which one is silent.
func (p *Pool) reachable(ctx context.Context, pc *podConns) bool {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return true
	}
	q := pc.question
	if q == nil {
		q = &question{answered: make(chan struct{})}
		pc.question = q
		p.running.Go(func() {
			yes := p.canReach(pc.pod)
			p.mu.Lock()
			q.yes, pc.question = yes, nil
			p.mu.Unlock()
			close(q.answered)
		})
	}
	p.mu.Unlock()
	select {
	case <-q.answered:
		return q.yes
	case <-ctx.Done():
		return true // nobody wants to know any more
	}
}

func (p *Pool) canReach(pod Pod) bool {
	limited, cancel := context.WithTimeout(p.lifetime(), p.pingTimeout())
	defer cancel()
	err := p.ProbeUpgrade(limited, pod)
	return err == nil || errors.Is(err, ErrClosed) ||
		// Whoever refuses the upgrade to us says nothing about the pod.
		apierrors.IsUnauthorized(err) || apierrors.IsForbidden(err) || apierrors.IsTooManyRequests(err)
}
