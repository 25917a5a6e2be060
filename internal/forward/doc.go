// Package forward is the data plane: it listens on a forward's own loopback
// address and carries each accepted connection to a pod and back.
//
// It defines the waist of the program. North of [Backends] everything speaks
// connections and names; south of it everything speaks Kubernetes. This
// package knows nothing of Kubernetes, DNS, TLS or HTTP.
package forward
