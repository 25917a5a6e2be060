package osdns

import (
	"errors"
	"fmt"
	"strings"

	"github.com/tunneld/tunneld/internal/osdns/hostsfile"
)

// check refuses what would take more than our own names, or could be read as
// something else than a name by those whose files it is written to.
func (c Claim) check() error {
	if !hostsfile.IsOwner(c.Owner) {
		return fmt.Errorf("owner %q is not a user's id", c.Owner)
	}
	if !c.Server.Addr().IsLoopback() || c.Server.Port() == 0 {
		return fmt.Errorf("the server %v is not on this machine", c.Server)
	}
	for _, n := range c.Names {
		if err := n.check(); err != nil {
			return fmt.Errorf("name %q: %w", n.Name, err)
		}
	}
	return nil
}

func (n Name) check() error {
	labels := strings.Split(n.Name, ".")
	switch {
	case len(n.Name) > 253:
		return errors.New("longer than 253 bytes")
	case len(labels) < 2:
		return errors.New("a whole domain")
	case len(n.Addrs) == 0:
		return errors.New("no address")
	}
	for _, label := range labels {
		if !isLabel(label) {
			return fmt.Errorf("%q is not a label in lower case", label)
		}
	}
	// What is in a cluster's domain is somebody's, unless it is one Service, or a
	// pod of it: SERVICE.NAMESPACE.svc.cluster.local.
	if (n.Name == clusterDomain || strings.HasSuffix(n.Name, "."+clusterDomain)) && len(labels) < 5 {
		return fmt.Errorf("more than one Service of %s", clusterDomain)
	}
	for _, a := range n.Addrs {
		if !a.IsLoopback() || a.Zone() != "" {
			return fmt.Errorf("%v is not a loopback address", a)
		}
	}
	return nil
}

const clusterDomain = "cluster.local"

func isLabel(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-_") == ""
}

// routes are the domains by which a resolver that routes whole domains is given the
// names: each of them, but for those below another.
func routes(names []Name) []string {
	claimed := make(map[string]bool, len(names))
	for _, n := range names {
		claimed[n.Name] = true
	}
	var domains []string
	for _, n := range names {
		if claimed[n.Name] && !hasParent(n.Name, claimed) {
			domains = append(domains, n.Name)
			claimed[n.Name] = false // taken, should it come twice
		}
	}
	return domains
}

func hasParent(name string, claimed map[string]bool) bool {
	for {
		_, parent, ok := strings.Cut(name, ".")
		if !ok {
			return false
		}
		if _, ok := claimed[parent]; ok {
			return true
		}
		name = parent
	}
}

// bare are the names alone.
func bare(names []Name) []string {
	all := make([]string, len(names))
	for i, n := range names {
		all[i] = n.Name
	}
	return all
}
