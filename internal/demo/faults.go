package demo

import (
	"time"

	"github.com/tunneld/tunneld/internal/demo/internal/apiserver"
	"github.com/tunneld/tunneld/internal/demo/internal/node"
)

// Faults may be driven at any time. Those that return undo last until it is
// called; undo is idempotent, and the same fault may be in force more than
// once.

// StopAPI ends the API server as kill -9 would: its port is closed, and so are
// all connections, upgraded ones too. What is stored stays. It waits until no
// request is served any more.
func (c *Cluster) StopAPI() { c.api.Stop() }

// StartAPI starts the API server on the port it had before. It does nothing if
// it is running.
func (c *Cluster) StartAPI() error { return c.api.Start() }

// RestartAPI stops the API server and starts it on the same port.
func (c *Cluster) RestartAPI() error {
	c.api.Stop()
	return c.api.Start()
}

// SetUpgrades changes what Options.Upgrades said, for new connections.
func (c *Cluster) SetUpgrades(u Upgrades) { c.upgrades.Store(int32(u)) }

// DropPackets makes the network between clients and API server swallow
// everything, both ways. Connections stay and go silent; new ones are accepted
// by the kernel, but nothing answers. Afterwards all go on, as TCP would, and
// what ended meanwhile is seen to end.
func (c *Cluster) DropPackets() (undo func()) { return c.network.Drop() }

// Connections counts the connections that clients have to the API server.
func (c *Cluster) Connections() int { return c.network.Len() }

// Delay gives the network between clients and API server a latency in each
// direction, for what is sent from now on. 0 takes it away.
func (c *Cluster) Delay(oneWay time.Duration) { c.network.SetDelay(oneWay) }

// CutWatches breaks off all watch requests.
func (c *Cluster) CutWatches() { c.api.CutWatches() }

// ForgetHistory makes all resource versions but the current one too old to
// watch from, as etcd's compaction does: 410.
func (c *Cluster) ForgetHistory() { c.store.Forget() }

// DefaultUser is whom the cluster's first token belongs to.
const DefaultUser = apiserver.DefaultUser

// Token returns the token that was issued last. It may have expired.
func (c *Cluster) Token() string { return c.api.Token() }

// IssueToken returns a new token for a user.
func (c *Cluster) IssueToken(user string) string { return c.api.IssueToken(user) }

// ExpireTokens makes all tokens issued so far worthless: requests get 401.
// Watches and upgraded connections live on, as they do in real clusters.
func (c *Cluster) ExpireTokens() { c.api.ExpireTokens() }

// A Rule names requests: Verb, Resource, Subresource and Namespace. "*" stands
// for anything; an empty Namespace for every namespace and the cluster scope,
// an empty Subresource for the resource itself.
type Rule = apiserver.Rule

// Forbid has requests that the rule covers refused with 403, until undo.
// SelfSubjectAccessReviews answer accordingly.
func (c *Cluster) Forbid(r Rule) (undo func()) { return c.api.Forbid(r) }

// A Request is what a client asked of the API server, in the terms in which
// RBAC judges it: User, Verb, Group, Resource, Subresource, Namespace, Name;
// and Path, and the protocol to Upgrade to.
type Request = apiserver.Request

// Requests returns what was asked of the API server, oldest first: the last
// ten thousand requests at least.
func (c *Cluster) Requests() []Request { return c.api.Requests() }

// ForgetRequests empties what Requests returns.
func (c *Cluster) ForgetRequests() { c.api.ForgetRequests() }

// StopKubelet takes the node's kubelet away: upgraded connections break, and
// new port-forwards get 500. The pods run on.
func (c *Cluster) StopKubelet() (undo func()) { return c.node.Down() }

// An Upgrade is one open upgraded connection to a pod: Namespace, Pod, UID, and
// the Protocol, "SPDY" or "WebSocket".
type Upgrade = node.Upgrade

// Upgrades returns the upgraded connections that are open.
func (c *Cluster) Upgrades() []Upgrade { return c.node.Upgrades() }

// KillUpgrades breaks the upgraded connections to a pod, or to all pods if
// both names are empty, and returns how many there were.
func (c *Cluster) KillUpgrades(namespace, name string) int {
	return c.node.Kill(func(u Upgrade) bool {
		return (namespace == "" && name == "") || (u.Namespace == namespace && u.Pod == name)
	})
}

// RefusePort makes a container port of a pod refuse connections, as if nothing
// listened there. Connections it has live on.
func (c *Cluster) RefusePort(namespace, name string, port uint16) (undo func(), err error) {
	return c.node.Refuse(namespace, name, port)
}

// StallPod makes a pod's program read no more from its connections. It still
// accepts and writes; senders block once buffers are full.
func (c *Cluster) StallPod(namespace, name string) (undo func(), err error) {
	return c.node.Stall(namespace, name)
}

// AbandonPod has a pod's connections hear nothing of its end: they stay open,
// and nothing comes any more. It happens where a node takes the pod's network
// away before the program has got rid of what it had to say.
func (c *Cluster) AbandonPod(namespace, name string) error {
	return c.node.Abandon(namespace, name)
}

// Dials returns how often port-forwards have dialled a container port of a
// pod, refused attempts included; of all pods of the namespace if name is
// empty. Pods that are gone count.
func (c *Cluster) Dials(namespace, name string, port uint16) int {
	return c.node.Dials(namespace, name, port)
}
