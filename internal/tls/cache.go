package tls

import (
	"container/list"
	"context"
	"crypto/tls"
	"sync"
	"time"
)

// maxLeaves bounds the cache: behind a wildcard there is no end of names.
const maxLeaves = 4096

// A cache keeps the leaves that were used last. The zero value is ready.
type cache struct {
	mu      sync.Mutex               // guards all that follows; nothing is minted under it
	byName  map[string]*list.Element // of recent
	recent  list.List                // of *cached, the last used one in front
	minting map[string]*minting
}

type cached struct {
	name string
	cert *tls.Certificate
}

// A minting is under way until done is closed; then it has one of the two.
type minting struct {
	done chan struct{}
	cert *tls.Certificate
	err  error
}

// get returns the leaf of that name. Where there is none, or it should be
// renewed, one caller mints; the others get the old one while that is valid,
// and else wait.
func (c *cache) get(ctx context.Context, name string, mint func() (*tls.Certificate, error)) (*tls.Certificate, error) {
	now := time.Now()
	c.mu.Lock()
	old := c.usedLocked(name)
	if old != nil && !due(old, now) {
		c.mu.Unlock()
		return old, nil
	}
	usable := old != nil && valid(old, now)
	m, other := c.minting[name]
	if !other {
		m = &minting{done: make(chan struct{})}
		if c.minting == nil {
			c.minting = make(map[string]*minting)
		}
		c.minting[name] = m
	}
	c.mu.Unlock()

	if other && usable {
		return old, nil
	}
	if other {
		select {
		case <-m.done:
			return m.cert, m.err
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	m.cert, m.err = mint()
	c.mu.Lock()
	delete(c.minting, name)
	if m.err == nil {
		c.addLocked(name, m.cert)
	}
	c.mu.Unlock()
	close(m.done)
	if m.err != nil && usable {
		return old, nil // the next caller tries again
	}
	return m.cert, m.err
}

func (c *cache) usedLocked(name string) *tls.Certificate {
	e := c.byName[name]
	if e == nil {
		return nil
	}
	c.recent.MoveToFront(e)
	return e.Value.(*cached).cert
}

func (c *cache) addLocked(name string, cert *tls.Certificate) {
	if e := c.byName[name]; e != nil {
		e.Value.(*cached).cert = cert
		return
	}
	if c.byName == nil {
		c.byName = make(map[string]*list.Element)
	}
	c.byName[name] = c.recent.PushFront(&cached{name: name, cert: cert})
	if c.recent.Len() > maxLeaves {
		last := c.recent.Back()
		c.recent.Remove(last)
		delete(c.byName, last.Value.(*cached).name)
	}
}

// The times in a certificate have no monotonic part, so these compare by the
// wall clock, as clients do: it goes on while the machine sleeps.

func valid(cert *tls.Certificate, now time.Time) bool {
	return !now.Before(cert.Leaf.NotBefore) && !now.After(cert.Leaf.NotAfter)
}

// due reports whether two thirds of the certificate's life are over, or it is
// not valid yet because the clock was set back.
func due(cert *tls.Certificate, now time.Time) bool {
	start, end := cert.Leaf.NotBefore, cert.Leaf.NotAfter
	return !valid(cert, now) || now.After(start.Add(end.Sub(start)/3*2))
}
