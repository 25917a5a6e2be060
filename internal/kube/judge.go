package kube

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/tunneld/tunneld/internal/forward"
	"github.com/tunneld/tunneld/internal/status"
)

// proofAge is for how long an answer to a ping proves a forward.
const proofAge = 30 * time.Second

// facts are what a workload's state follows from.
type facts struct {
	workload forward.Workload
	now      time.Time

	cluster  status.Condition // of the link, or why there is none
	refusal  error            // a 403 for a list, a watch or an upgrade; or nil
	complete bool             // all that view is made of has been seen
	view     view
	byHand   bool // the Service has no selector
	slices   int  // how many EndpointSlices the Service has

	fault   string // what the last open or the last upgrade failed with; or ""
	opening bool   // an open or a probe is under way
	leases  int    // connections in progress
	proven  time.Time
}

// judge returns the first state that holds, in the order of status.States.
// Failed for local reasons is not this package's to tell, except for a
// kubeconfig that cannot be used.
func judge(f facts) status.Condition {
	w := f.workload
	ready, serving, total := f.view.count()
	switch {
	case f.cluster.State == status.Failed || f.cluster.State == status.NeedsLogin:
		return f.cluster
	case f.refusal != nil:
		return status.Condition{
			State: status.Forbidden,
			Cause: fmt.Sprintf("the API server refuses it to the user of context %s: %v", w.Context, f.refusal),
			Hint:  fmt.Sprintf("ask for a Role in namespace %s that allows it (get, list and watch on %s; create and get on pods/portforward)", w.Namespace, readFor(w.Kind)),
		}
	case f.cluster.State == status.Offline || f.cluster.State == status.NotFound:
		return f.cluster
	case !f.complete:
		return status.Condition{State: status.Connecting, Cause: "reading " + w.String()}
	case !f.view.exists:
		return status.Condition{
			State: status.NotFound,
			Cause: fmt.Sprintf("there is no %s in namespace %s of context %s", w.Ref(), w.Namespace, w.Context),
			Hint:  w.Kubectl("get " + string(w.Kind) + "s"),
		}
	case f.view.obstacle != "":
		return status.Condition{State: status.NoEndpoints, Cause: f.view.obstacle, Hint: instead(w)}
	case ready == 0 && serving == 0:
		return noEndpoints(f, total)
	case f.fault != "":
		return status.Condition{State: status.Degraded, Cause: f.fault, Hint: w.Kubectl("get pods")}
	case f.leases > 0 || f.now.Sub(f.proven) <= proofAge:
		return status.Condition{State: status.Ready}
	case f.opening:
		return status.Condition{State: status.Connecting, Cause: "opening a connection to " + w.Ref()}
	}
	return status.Condition{State: status.Idle}
}

// instead says what to do about a workload that can never be carried.
func instead(w forward.Workload) string {
	if w.Kind == forward.Service {
		return "forward one that has pods and a TCP port instead: " + w.Kubectl("get services")
	}
	return w.Kubectl("describe " + w.Ref())
}

// readFor names what is read for a workload of the kind.
func readFor(kind forward.Kind) string {
	switch kind {
	case forward.Service:
		return "services, endpointslices and pods"
	case forward.Pod:
		return "pods"
	}
	return string(kind) + "s and pods"
}

func noEndpoints(f facts, total int) status.Condition {
	v, w := f.view, f.workload
	c := status.Condition{State: status.NoEndpoints, Hint: w.Kubectl("get pods")}
	switch {
	case len(v.nowhere) > 0:
		return leadsNowhere(w, v.nowhere[slices.Min(slices.Collect(maps.Keys(v.nowhere)))])
	case len(v.strays) > 0:
		c.Cause = fmt.Sprintf("the endpoints of %s are no pods (%s), and port-forward goes to pods only", w.Ref(), strings.Join(v.strays, ", "))
		c.Hint = endpointSlices(w)
	case total == 0 && f.byHand:
		c.Cause = fmt.Sprintf("%s in namespace %s has no selector, so Kubernetes does not fill its EndpointSlices, and ", w.Ref(), w.Namespace)
		if f.slices == 0 {
			c.Cause += "there are none"
		} else {
			c.Cause += "no endpoint is in them"
		}
		c.Hint = endpointSlices(w)
	case total == 0 && w.Kind == forward.Service:
		c.Cause = fmt.Sprintf("no pod is selected by %s in namespace %s", w.Ref(), w.Namespace)
	case total == 0:
		c.Cause = fmt.Sprintf("%s in namespace %s has no pods", w.Ref(), w.Namespace)
	default:
		c.Cause = fmt.Sprintf("none of the %d pods of %s is ready", total, w.Ref())
	}
	return c
}

func endpointSlices(w forward.Workload) string {
	return w.Kubectl("get endpointslices -l " + discoveryv1.LabelServiceName + "=" + w.Name)
}

// leadsNowhere is the condition of a port that no pod has.
func leadsNowhere(w forward.Workload, cause string) status.Condition {
	return status.Condition{State: status.NoEndpoints, Cause: cause, Hint: w.Kubectl("describe " + w.Ref())}
}

// away is why the pod that the target names takes nothing, if that is so.
func (v view) away(t forward.Target) status.Condition {
	c := status.Condition{State: status.NoEndpoints, Hint: t.Kubectl("get pods")}
	there, stays, up := false, false, false
	for _, b := range v.backends {
		if b.hostname != t.Pod {
			continue
		}
		there = true
		stays = stays || !b.terminating
		up = up || !b.terminating && (b.ready || b.serving)
		if b.takes(t) && (b.ready || b.serving) {
			return status.Condition{}
		}
	}
	switch {
	case !there:
		c.Cause = fmt.Sprintf("%s in namespace %s has no pod %s now", t.Ref(), t.Namespace, t.Pod)
	case !stays:
		c.Cause = fmt.Sprintf("pod %s of %s is going away, and there is no other of that name yet", t.Pod, t.Ref())
	case !up:
		c.Cause = fmt.Sprintf("pod %s of %s is not ready", t.Pod, t.Ref())
	default:
		c.Cause = fmt.Sprintf("pod %s of %s has nothing for port %d", t.Pod, t.Ref(), t.Port)
	}
	return c
}

// count returns how many pods are ready, how many serve though they are
// terminating or not ready, and how many there are. A pod that has none of the
// workload's ports is not ready for it.
func (v view) count() (ready, serving, total int) {
	for _, b := range v.backends {
		total++
		switch {
		case !b.carries():
		case b.ready:
			ready++
		case b.serving:
			serving++
		}
	}
	return ready, serving, total
}
