package daemon

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/tunneld/tunneld/internal/config"
	"github.com/tunneld/tunneld/internal/forward"
	"github.com/tunneld/tunneld/internal/statedir"
)

// maxPods is how many pods of a forward get names: each takes an address and
// listeners.
const maxPods = 64

// podNames are the hostnames of a forward's pods that get names.
type podNames struct {
	names []string
	// more is how many pods there are besides.
	more int
}

// podKey is the name by which a pod's address is assigned. No forward has a
// slash in its name.
func podKey(forward, pod string) string { return forward + "/" + pod }

// choosePods chooses which pods get names: what has one keeps it, whether the
// pod is there or not, but makes room for one that is.
func choosePods(known []statedir.Pod, seen []string) podNames {
	const present, fresh, away = 0, 1, 2
	rank := make(map[string]int, len(known)+len(seen))
	for _, pod := range known {
		rank[pod.Name] = away
	}
	for _, name := range seen {
		switch _, had := rank[name]; {
		case config.CheckName(name) != "": // no cluster has such a one
		case had:
			rank[name] = present
		default:
			rank[name] = fresh
		}
	}
	var p podNames
	for name := range rank {
		p.names = append(p.names, name)
	}
	slices.SortFunc(p.names, func(a, b string) int { return cmp.Or(rank[a]-rank[b], byOrdinal(a, b)) })
	if len(p.names) > maxPods {
		for _, name := range p.names[maxPods:] {
			if rank[name] != away {
				p.more++
			}
		}
		p.names = p.names[:maxPods]
	}
	slices.SortFunc(p.names, byOrdinal)
	return p
}

// byOrdinal sorts db-2 before db-10, as a StatefulSet numbers its pods.
func byOrdinal(a, b string) int {
	stem := func(s string) (string, int) {
		i := strings.LastIndexByte(s, '-')
		n, err := strconv.Atoi(s[i+1:])
		if err != nil {
			return s, -1
		}
		return s[:i+1], n
	}
	stemA, a0 := stem(a)
	stemB, b0 := stem(b)
	return cmp.Or(strings.Compare(stemA, stemB), a0-b0, strings.Compare(a, b))
}

// planPods plans the places of a forward's pods, but for what listens there.
func planPods(cfg *config.Config, f config.Forward, one *planned, pods podNames, subdomain string, addrs map[string]netip.Addr, claimed claims) {
	below := []string{f.Name + "." + cfg.Domain}
	if cfg.Domain != "localhost" {
		below = append(below, f.Name+".localhost")
	}
	if f.Workload.Kind == forward.Service {
		subdomain = f.Workload.Name // whether it has pods or not
	}
	if subdomain != "" {
		// All names in it are one forward's: another one's pods may be those of
		// another cluster.
		domain := clusterName(subdomain, f.Workload.Namespace)
		if first, ok := claimed.claim("*."+domain, f.Name); ok {
			below = append(below, domain)
		} else if len(pods.names) > 0 {
			one.notes = append(one.notes, fmt.Sprintf("the names of its pods below %s belong to the forward %s, which comes first in the configuration", domain, first))
		}
	}
	for _, pod := range pods.names {
		at := &place{pod: pod, address: addrs[podKey(f.Name, pod)]}
		if !at.address.IsValid() {
			pods.more++
			continue
		}
		for _, parent := range below {
			host := pod + "." + parent
			if _, ok := claimed.claim(host, f.Name); ok {
				at.hostnames = append(at.hostnames, host)
			}
		}
		one.pods = append(one.pods, at)
	}
	if pods.more > 0 {
		one.notes = append(one.notes, fmt.Sprintf("%d of its pods have no names of their own: a forward has room for %d, if %v has", pods.more, maxPods, cfg.Addresses))
	}
}
