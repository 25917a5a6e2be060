package kube

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/tunneld/tunneld/internal/forward"
	"github.com/tunneld/tunneld/internal/status"
)

// view is what the cluster is known to say about w.
func (c *cluster) view(w forward.Workload) view {
	c.mu.Lock()
	n := c.namespaces[w.Namespace]
	c.mu.Unlock()
	if n == nil {
		return view{}
	}
	return n.view(w)
}

// report judges a workload.
func (c *cluster) report(w forward.Workload) Report {
	if c.err != nil {
		return Report{Condition: c.err.Condition}
	}
	c.mu.Lock()
	n := c.namespaces[w.Namespace]
	f := facts{workload: w, now: time.Now()}
	u := c.uses[w]
	if u != nil {
		f.opening = u.opening > 0
		f.refusal = u.denied
	}
	c.mu.Unlock()

	f.cluster = c.link.condition()
	if f.cluster.State == status.Offline {
		f.refusal = nil // who is not there refuses nothing
	}
	if n != nil {
		f.complete = true
		for _, m := range n.needs(w) {
			f.complete = f.complete && m.complete()
			if err := m.refusal(); err != nil && f.cluster.State != status.Offline {
				f.refusal = err
			}
		}
		f.view = n.view(w)
		f.byHand, f.slices = n.byHand(w)
	}
	for _, b := range f.view.backends {
		usage := c.pool.Usage(podOf(w, b))
		f.leases += usage.Leases
		if usage.Waiting > 0 {
			f.fault = crowded(podOf(w, b), usage)
		}
		if usage.Proven.After(f.proven) {
			f.proven = usage.Proven
		}
	}
	if u != nil {
		c.mu.Lock()
		f.fault = cmp.Or(u.fault(f.view, u.lately(c.timing.InUse)), f.fault)
		c.mu.Unlock()
	}
	r := Report{Condition: judge(f), Seen: f.view.exists && f.view.obstacle == "", Ports: f.view.ports, Notes: f.view.notes()}
	r.Whole = r.Seen && f.complete
	r.Ready, _, r.Total = f.view.count()
	if r.Pods = f.view.named(); len(r.Pods) > 0 {
		r.Subdomain = f.view.subdomain
	}
	for port, cause := range f.view.nowhere {
		if r.Nowhere == nil {
			r.Nowhere = make(map[uint16]status.Condition)
		}
		r.Nowhere[port] = leadsNowhere(w, cause)
	}
	return r
}

// condition is the cluster's own state.
func (c *cluster) condition() status.Condition {
	if c.err != nil {
		s := c.err.Condition
		s.State = status.Failed // for a cluster, there is no "not-found"
		return s
	}
	cond := c.link.condition()
	if cond.State == status.Ready {
		if err := c.refusedEverywhere(); err != nil {
			return status.Condition{State: status.Forbidden, Cause: err.Error(), Hint: "ask for a Role that allows it"}
		}
	}
	return cond
}

// refusedEverywhere returns the API server's 403 if nothing may be read in any
// namespace in use.
func (c *cluster) refusedEverywhere() error {
	c.mu.Lock()
	all := slices.Collect(maps.Values(c.namespaces))
	c.mu.Unlock()
	var refusal error
	for _, n := range all {
		err := n.refusal()
		if err == nil {
			return nil
		}
		refusal = err
	}
	return refusal
}

// named lists the pods that have names, once for each name: pods may share one.
func (v view) named() []Pod {
	ready := make(map[string]bool)
	for _, b := range v.backends {
		if b.hostname != "" {
			ready[b.hostname] = ready[b.hostname] || b.ready && !b.terminating && b.carries()
		}
	}
	var pods []Pod
	for _, hostname := range slices.Sorted(maps.Keys(ready)) {
		pods = append(pods, Pod{hostname, ready[hostname]})
	}
	return pods
}
