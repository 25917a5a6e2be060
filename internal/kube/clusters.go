package kube

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/tunneld/tunneld/internal/forward"
	"github.com/tunneld/tunneld/internal/status"
)

// Clusters follows any number of clusters and implements forward.Backends. The
// zero value is ready; the fields may not change after the first call. Close
// it when done. Its methods may be called concurrently.
type Clusters struct {
	// UserAgent is what the API servers see; they write it into audit logs.
	UserAgent string
	// Changed, if set, is called without locks after anything that Report or
	// Clusters returns may have changed. It must not block.
	Changed func()
	Timing  Timing
	Log     *slog.Logger // nil: none

	// applying makes Use and Reload one at a time.
	applying sync.Mutex

	mu        sync.Mutex // guards the following
	clusters  map[ID]*cluster
	closed    bool
	reloading map[*cluster]bool // a reload of it is about to begin
	formers   map[*former]struct{}

	running sync.WaitGroup // what reloadSoon and retain start
}

// A Report is what is known about one workload.
type Report struct {
	status.Condition
	// Seen says that the workload exists, and can be carried.
	Seen bool
	// Whole says that its pods have been seen, too, if it has any.
	Whole bool
	// Ports are the TCP ports that it declares.
	Ports []Port
	// Notes name what is not carried, and why.
	Notes []string
	// Nowhere are the ports that no pod has although pods are ready.
	Nowhere map[uint16]status.Condition
	// Ready and Total count pods.
	Ready, Total int
	// Pods are those that have a name in cluster DNS, sorted by it.
	Pods []Pod
	// Subdomain is the Service under which cluster DNS has these names; empty
	// if there is none.
	Subdomain string
}

// A Pod is one that keeps its name when it is replaced.
type Pod struct {
	Hostname string
	Ready    bool
}

func idOf(w forward.Workload) ID { return ID{w.Kubeconfig, w.Context} }

// Use says which workloads are configured. Their namespaces are followed from
// now on, and no others; clusters that are no longer needed are left.
func (cs *Clusters) Use(ws []forward.Workload) {
	cs.applying.Lock()
	defer cs.applying.Unlock()
	wanted := make(map[ID]map[forward.Workload]bool)
	for _, w := range ws {
		id := idOf(w)
		if wanted[id] == nil {
			wanted[id] = make(map[forward.Workload]bool)
		}
		wanted[id][w] = true
	}
	var left []*cluster
	cs.mu.Lock()
	for id, c := range cs.clusters {
		if wanted[id] == nil {
			left = append(left, c)
			delete(cs.clusters, id)
		}
	}
	have := make(map[ID]bool, len(cs.clusters))
	for id := range cs.clusters {
		have[id] = true
	}
	cs.mu.Unlock()

	made := make(map[ID]*cluster)
	for id := range wanted {
		if !have[id] {
			made[id] = cs.newCluster(id)
		}
	}
	left = append(left, cs.install(made)...)
	for id, ws := range wanted {
		if c := cs.cluster(id); c != nil {
			c.use(ws)
		}
	}
	for _, c := range left {
		c.close()
	}
	cs.endFormers(func(f *former) bool { return wanted[f.id] != nil })
}

// install puts clusters in place, and returns those that they replace, or that
// came too late.
func (cs *Clusters) install(made map[ID]*cluster) (replaced []*cluster) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.clusters == nil {
		cs.clusters = make(map[ID]*cluster)
	}
	for id, c := range made {
		if cs.closed {
			replaced = append(replaced, c)
			continue
		}
		if old := cs.clusters[id]; old != nil {
			replaced = append(replaced, old)
		}
		cs.clusters[id] = c
	}
	return replaced
}

// Reload reads the kubeconfigs again, and looks at the environment of this process.
// Clusters of which they say something new are connected to anew, which ends their
// connections if it is another API server; the others are checked at once, even where
// the last check was refused. A file that cannot be read, perhaps since it is being
// written, changes nothing for a cluster that works.
func (cs *Clusters) Reload() { cs.reload(cs.all()) } // none after Close

// ReloadFor is Reload for the cluster of a workload.
func (cs *Clusters) ReloadFor(w forward.Workload) {
	if c := cs.cluster(idOf(w)); c != nil {
		cs.reload([]*cluster{c})
	}
}

func (cs *Clusters) reload(some []*cluster) {
	cs.applying.Lock()
	defer cs.applying.Unlock()
	made := make(map[ID]*cluster)
	for _, c := range some {
		if cs.cluster(c.id) != c {
			continue // it was replaced meanwhile
		}
		if c.upToDate() {
			c.hurry()
			continue
		}
		fresh := cs.newCluster(c.id)
		fresh.inherit(c)
		made[c.id] = fresh
	}
	for _, old := range cs.install(made) {
		if made[old.id] == old { // it came too late
			old.close()
			continue
		}
		cs.retain(old)
	}
	cs.endFormers(func(f *former) bool { return made[f.id] == nil || f.isOf(made[f.id]) })
}

// ProbeNow says that connections may have died without a word, because the
// machine has slept, or its network is another. Everything is asked for a sign
// of life now, and not when its turn comes, and what has failed is tried again.
// It does not wait for the outcome.
func (cs *Clusters) ProbeNow() {
	for _, c := range cs.all() {
		c.probeNow()
	}
	cs.mu.Lock()
	formers := slices.Collect(maps.Keys(cs.formers))
	cs.mu.Unlock()
	for _, f := range formers {
		f.pool.PingAll()
	}
}

// reloadSoon reloads a cluster in the background. The cluster itself asks for
// it, which a reload may have to wait for.
func (cs *Clusters) reloadSoon(c *cluster) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.closed || cs.reloading[c] {
		return
	}
	if cs.reloading == nil {
		cs.reloading = make(map[*cluster]bool)
	}
	cs.reloading[c] = true
	cs.running.Go(func() {
		cs.mu.Lock()
		delete(cs.reloading, c)
		cs.mu.Unlock()
		cs.reload([]*cluster{c})
	})
}

func (cs *Clusters) newCluster(id ID) *cluster {
	log := cs.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	changed := cs.Changed
	if changed == nil {
		changed = func() {}
	}
	return newCluster(id, cs.UserAgent, cs.Timing, log, changed, cs.reloadSoon)
}

func (cs *Clusters) cluster(id ID) *cluster {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return cs.clusters[id]
}

// all returns the clusters in a stable order.
func (cs *Clusters) all() []*cluster {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	all := make([]*cluster, 0, len(cs.clusters))
	for _, c := range cs.clusters {
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b *cluster) int {
		if n := strings.Compare(a.id.Context, b.id.Context); n != 0 {
			return n
		}
		return strings.Compare(a.id.Kubeconfig, b.id.Kubeconfig)
	})
	return all
}

// Report tells about a workload that is in use.
func (cs *Clusters) Report(w forward.Workload) Report {
	c := cs.cluster(idOf(w))
	if c == nil {
		return Report{Condition: status.Condition{State: status.Connecting}}
	}
	return c.report(w)
}

// Clusters tells about the clusters in use.
func (cs *Clusters) Clusters() []status.Cluster {
	out := []status.Cluster{}
	for _, c := range cs.all() {
		out = append(out, status.Cluster{Kubeconfig: cmp.Or(c.id.Kubeconfig, DefaultKubeconfig()), Context: c.id.Context, Condition: c.condition()})
	}
	return out
}

// Pick implements forward.Backends. A Pick that waits moves on to the cluster
// that replaces its own.
func (cs *Clusters) Pick(ctx context.Context, t forward.Target) (forward.Endpoint, error) {
	for {
		c := cs.cluster(idOf(t.Workload))
		if c == nil {
			return forward.Endpoint{}, unconfigured(t.Workload)
		}
		e, err := c.await(ctx, t)
		if err != errReplaced {
			return e, err
		}
	}
}

// Dial implements forward.Backends.
func (cs *Clusters) Dial(ctx context.Context, e forward.Endpoint) (forward.Conn, error) {
	c, err := cs.usable(e.Target.Workload)
	if err != nil {
		return nil, err
	}
	return c.dial(ctx, e)
}

// Probe proves that a pod of the workload, which must be in use, can be
// reached: it upgrades a connection, or uses an idle one, and waits for the
// answer to a ping. It never connects to the app.
func (cs *Clusters) Probe(ctx context.Context, w forward.Workload) error {
	c, err := cs.usable(w)
	if err != nil {
		return err
	}
	return c.probe(ctx, w, false)
}

// usable returns the cluster of a workload, if it can be used.
func (cs *Clusters) usable(w forward.Workload) (*cluster, error) {
	c := cs.cluster(idOf(w))
	switch {
	case c == nil:
		return nil, unconfigured(w)
	case c.err != nil:
		return nil, c.err
	}
	return c, nil
}

func unconfigured(w forward.Workload) error {
	return &forward.Error{Kind: forward.ErrUnavailable, Condition: status.Condition{
		State: status.Failed, Cause: w.String() + " is not forwarded any more",
	}}
}

// Close ends every connection, and waits for all that runs.
func (cs *Clusters) Close() error {
	cs.mu.Lock()
	cs.closed = true
	all := cs.clusters
	cs.clusters = nil
	for f := range cs.formers {
		f.end()
	}
	cs.mu.Unlock()
	cs.running.Wait()
	for _, c := range all {
		c.close()
	}
	return nil
}
