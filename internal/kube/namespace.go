package kube

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/tunneld/tunneld/internal/forward"
)

// A namespace holds the mirrors of one namespace in use. Each kind is followed
// from when a workload first needs it, so that no right is needed that is not
// used.
type namespace struct {
	services     *mirror[*corev1.Service]
	slices       *mirror[*discoveryv1.EndpointSlice]
	pods         *mirror[*corev1.Pod]
	deployments  *mirror[*appsv1.Deployment]
	statefulSets *mirror[*appsv1.StatefulSet]

	// changes counts what the mirrors have seen change, and views holds what was
	// made of it: each connection asks.
	changes atomic.Uint64
	mu      sync.Mutex // guards the following
	views   map[forward.Workload]viewAt

	following map[follower]bool // running now
	cancel    context.CancelFunc
	ctx       context.Context // of what is running; nil if nothing is
	running   sync.WaitGroup
}

// A follower is a mirror of any kind.
type follower interface {
	run(ctx context.Context)
	retry()
	complete() bool
	refusal() error
}

func newNamespace(name string, k *client, timing Timing, limit func() time.Duration, changed func()) *namespace {
	n := &namespace{views: make(map[forward.Workload]viewAt), following: make(map[follower]bool)}
	noted := func() {
		n.changes.Add(1)
		changed()
	}
	n.services = newMirror(timing, name, "services", k.core, &corev1.Service{}, nil, limit, noted)
	n.slices = newMirror(timing, name, "endpointslices", k.discovery, &discoveryv1.EndpointSlice{},
		func(s *discoveryv1.EndpointSlice) []string { return []string{s.Labels[discoveryv1.LabelServiceName]} }, limit, noted)
	n.pods = newMirror(timing, name, "pods", k.core, &corev1.Pod{}, podIPs, limit, noted)
	n.deployments = newMirror(timing, name, "deployments", k.apps, &appsv1.Deployment{}, nil, limit, noted)
	n.statefulSets = newMirror(timing, name, "statefulsets", k.apps, &appsv1.StatefulSet{}, nil, limit, noted)
	return n
}

// follow runs the mirrors that w needs and that do not run yet. It and stop
// must not be called concurrently.
func (n *namespace) follow(ctx context.Context, w forward.Workload) {
	if n.ctx == nil {
		n.ctx, n.cancel = context.WithCancel(ctx)
	}
	running := n.ctx
	for _, m := range n.needs(w) {
		if !n.following[m] {
			n.following[m] = true
			n.running.Go(func() { m.run(running) })
		}
	}
}

// stop ends the mirrors' runs, and waits for them.
func (n *namespace) stop() {
	if n.ctx == nil {
		return
	}
	n.cancel()
	n.running.Wait()
	n.ctx, n.cancel = nil, nil
	clear(n.following)
}

// all are the mirrors of every kind.
func (n *namespace) all() []follower {
	return []follower{n.services, n.slices, n.pods, n.deployments, n.statefulSets}
}

// retry has tried now what has failed.
func (n *namespace) retry() {
	for _, m := range n.all() {
		m.retry()
	}
}

// needs lists the mirrors from which the view of w is made.
func (n *namespace) needs(w forward.Workload) []follower {
	switch w.Kind {
	case forward.Service:
		if needsPods(n.slices.in(w.Name)) {
			return []follower{n.services, n.slices, n.pods}
		}
		return []follower{n.services, n.slices}
	case forward.Deployment:
		return []follower{n.deployments, n.pods}
	case forward.StatefulSet:
		return []follower{n.statefulSets, n.pods}
	default:
		return []follower{n.pods}
	}
}

// A viewAt is a view that was made after so many changes.
type viewAt struct {
	view
	changes uint64
}

// view joins what the mirrors hold about w. It must not be changed.
func (n *namespace) view(w forward.Workload) view {
	now := n.changes.Load()
	n.mu.Lock()
	v, ok := n.views[w]
	n.mu.Unlock()
	if ok && v.changes == now {
		return v.view
	}
	v = viewAt{n.join(w), now}
	n.mu.Lock()
	n.views[w] = v
	n.mu.Unlock()
	return v.view
}

// forget drops what was made for w, which is not configured any more.
func (n *namespace) forget(w forward.Workload) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.views, w)
}

func (n *namespace) join(w forward.Workload) view {
	switch w.Kind {
	case forward.Service:
		if svc, ok := n.services.get(w.Name); ok {
			return viewService(svc, n.slices.in(w.Name), n.podAt)
		}
	case forward.Deployment:
		if d, ok := n.deployments.get(w.Name); ok {
			return viewTemplate(d.Spec.Selector, d.Spec.Template.Spec, n.pods.all())
		}
	case forward.StatefulSet:
		if s, ok := n.statefulSets.get(w.Name); ok {
			return viewStatefulSet(s, n.pods.all())
		}
	case forward.Pod:
		if pod, ok := n.pods.get(w.Name); ok {
			return viewPod(pod)
		}
	}
	return view{}
}

// byHand reports whether w is a Service without a selector, and how many
// EndpointSlices it has.
func (n *namespace) byHand(w forward.Workload) (bool, int) {
	if w.Kind != forward.Service {
		return false, 0
	}
	svc, ok := n.services.get(w.Name)
	return ok && len(svc.Spec.Selector) == 0, len(n.slices.in(w.Name))
}

// podIPs are a pod's addresses, one for each family.
func podIPs(p *corev1.Pod) []string {
	ips := make([]string, len(p.Status.PodIPs))
	for i, ip := range p.Status.PodIPs {
		ips[i] = ip.IP
	}
	if len(ips) == 0 && p.Status.PodIP != "" {
		ips = append(ips, p.Status.PodIP)
	}
	return ips
}

// podAt finds a running pod by its IP. Pods on the host's network share one.
func (n *namespace) podAt(ip string) (*corev1.Pod, bool) {
	for _, pod := range n.pods.in(ip) {
		if !finished(pod) && !pod.Spec.HostNetwork {
			return pod, true
		}
	}
	return nil, false
}

// refusal is a 403, or nil if anything may be read.
func (n *namespace) refusal() error {
	var refused error
	for _, m := range n.all() {
		if m.complete() {
			return nil
		}
		if err := m.refusal(); err != nil {
			refused = err
		}
	}
	return refused
}
