package kube

import (
	"context"
	"reflect"
	"time"

	"github.com/tunneld/tunneld/internal/forward"
)

// A former cluster was replaced, because the kubeconfig says something new about
// who we are, and has connections that live. They are not the new one's, but
// nothing is wrong with them: credentials count when a connection is opened.
type former struct {
	*cluster
	end   context.CancelFunc
	ended chan struct{}
}

// isOf reports whether a cluster may be the same as the former one.
func (f *former) isOf(c *cluster) bool {
	return f.id == c.id && (c.err != nil || reflect.DeepEqual(f.said.cluster, c.said.cluster))
}

// retain lets the connections of a cluster that was replaced live on.
func (cs *Clusters) retain(c *cluster) {
	if c.pool == nil {
		c.close()
		return
	}
	c.halt()
	ctx, end := context.WithCancel(context.Background())
	f := &former{c, end, make(chan struct{})}
	cs.mu.Lock()
	if cs.closed {
		cs.mu.Unlock()
		end()
		c.close()
		return
	}
	defer cs.mu.Unlock()
	if cs.formers == nil {
		cs.formers = make(map[*former]struct{})
	}
	cs.formers[f] = struct{}{}
	cs.running.Go(func() {
		defer end()
		c.outlive(ctx, func() *cluster { return cs.cluster(c.id) })
		c.close()
		cs.mu.Lock()
		delete(cs.formers, f)
		cs.mu.Unlock()
		close(f.ended)
	})
}

// endFormers ends the former clusters that are not to be kept, and waits.
func (cs *Clusters) endFormers(keep func(*former) bool) {
	var left []*former
	cs.mu.Lock()
	for f := range cs.formers {
		if !keep(f) {
			left = append(left, f)
		}
	}
	cs.mu.Unlock()
	for _, f := range left {
		f.end()
		<-f.ended
	}
}

// outlive waits until the cluster, which was halted, has no connection any more.
// Whoever took its place, if anybody did, is asked what became of the pods, and
// is told that its workloads are in use.
func (c *cluster) outlive(ctx context.Context, successor func() *cluster) {
	for ctx.Err() == nil {
		next := c.next()
		now := successor()
		live := false
		for _, pod := range c.pool.Pods() {
			c.pool.SetRetiring(pod, true) // what is idle is of no use any more
			if c.pool.Usage(pod).Leases == 0 {
				continue
			}
			live = true
			if now != nil && now.err == nil && pod.UID != "" {
				c.askAfter(ctx, now.client, pod)
			}
		}
		if !live {
			return
		}
		for _, w := range c.active() {
			if now != nil {
				now.touch(w)
			}
		}
		until(ctx, next, time.Now().Add(c.timing.Ping))
	}
}

// active returns the workloads that have connections.
func (c *cluster) active() (ws []forward.Workload) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for w, u := range c.uses {
		if u.active > 0 {
			ws = append(ws, w)
		}
	}
	return ws
}
