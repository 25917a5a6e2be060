// Package kube knows the clusters: it follows Services and EndpointSlices by
// watch, picks a ready pod for each connection, opens it through
// internal/portforward, and tells for each workload and each cluster what
// works, or why not. [Clusters] implements forward.Backends.
//
// It reads: get, list and watch, and create on pods/portforward, are the only
// verbs it uses, in the namespaces in use only. It binds no listener and knows
// no local name.
package kube
