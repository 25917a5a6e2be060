// Package gateway serves HTTP and HTTPS on the forwards' addresses: a routing
// table from host, path and the rest of a request to back ends, a proxy that
// picks a pod for each request, and pages that say why there is none.
//
// The table is made for many rows of one host, sorted by the precedence of
// Gateway API; a forward is one row. The proxy knows nothing of Kubernetes: it
// reaches pods through forward.Backends.
package gateway
