// Package portforward speaks the client's side of the Kubernetes port-forward
// protocol: an HTTP upgrade of pods/portforward (SPDY/3.1, bare or inside a
// WebSocket as in KEP-4006), then one pair of streams for each connection to a
// port of the pod.
//
// It differs from client-go's PortForwarder on purpose. SPDY as the ecosystem
// speaks it has no flow control, so streams that share an upgraded connection
// block each other, and PortForwarder ends the whole connection on one
// stream's error. Here a [Lease] has an upgraded connection to itself while it
// lives: back-pressure is TCP's own, end to end, and a refused port hurts
// nobody else. A [Pool] keeps upgraded connections for the next lease, and has
// leases share them only where there are as many as there may be, with bounds
// that keep them apart.
//
// The package owns no listener, watches no object and retries nothing: it
// tells what happened in errors that can be told apart, and the caller decides.
package portforward
