// Package status says what the daemon reports about itself: its JSON tags are
// the wire format of the control API and of "tunnelctl status -o json".
//
// It is a leaf: any package may import it, and it imports nothing of ours. It
// holds values, not behaviour; who computes them says so where they do.
package status

import "time"

// A State is what a forward or a cluster can do right now, in one word. A
// forward's state is the first of the constants below, in their order, that
// holds.
type State string

const (
	// Failed: a local cause. No listener could be bound, the configuration is
	// bad, the disk is full.
	Failed State = "failed"
	// NeedsLogin: the API server said 401, or the credential plugin failed.
	NeedsLogin State = "needs-login"
	// Forbidden: the API server said 403. The cause names verb and resource.
	Forbidden State = "forbidden"
	// Offline: the API server has not answered for 10 s, or a dead link was
	// noticed.
	Offline State = "offline"
	// NotFound: the context, namespace, Service or port does not exist.
	NotFound State = "not-found"
	// NoEndpoints: the Service is there, but no pod of it is ready or serving.
	NoEndpoints State = "no-endpoints"
	// Degraded: it works, but a part does not.
	Degraded State = "degraded"
	// Connecting: an open is under way and none has succeeded yet.
	Connecting State = "connecting"
	// Ready: a lease is live, or an upgraded connection answered a ping in the
	// last 30 s. A byte would get through now.
	Ready State = "ready"
	// Idle: the facts are as good as Ready's but unproven lately, because
	// nobody uses the forward; the first connection opens an upstream.
	Idle State = "idle"
)

// States lists the states in the order in which they take precedence.
func States() []State {
	return []State{Failed, NeedsLogin, Forbidden, Offline, NotFound, NoEndpoints, Degraded, Connecting, Ready, Idle}
}

// DevOnly is said wherever somebody might take a forward for an entry point.
const DevOnly = "dev only: your machine, your credentials, no rate limit, gone when this laptop sleeps"

// Usable reports whether a new connection would be carried without waiting for
// somebody to mend something.
func (s State) Usable() bool {
	return s == Degraded || s == Ready || s == Idle
}

// A Condition is a state and why it holds.
type Condition struct {
	State State `json:"state"`
	// Cause is one sentence with the facts, lower case, without a full stop.
	// It is empty where the state needs no explanation.
	Cause string `json:"cause"`
	// Hint says what to do about it, as a command where one helps.
	Hint string `json:"hint"`
}

// Status is the whole report.
type Status struct {
	Version  string    `json:"version"`
	Config   Config    `json:"config"`
	Clusters []Cluster `json:"clusters"`
	Forwards []Forward `json:"forwards"`
	DNS      DNS       `json:"dns"`
	TLS      TLS       `json:"tls"`
	// Environment is there where the daemon runs as the installed service.
	Environment *Environment `json:"environment,omitempty"`
}

// Config tells which file is in force. Error is set while the file on disk is
// worse than the configuration in force, which is then the last good one.
type Config struct {
	Path  string `json:"path"`
	Error string `json:"error"`
	// Restart names what the file says that takes effect at the next start.
	Restart string `json:"restart,omitempty"`
	// Unwatched says why a saved file is not seen at once, if so.
	Unwatched string `json:"unwatched,omitempty"`
}

// A Cluster is a context of a kubeconfig file. Two files may name different
// clusters alike, so the pair is the identity. Its State is one of Connecting,
// Ready, NeedsLogin, Forbidden, Offline, Failed.
type Cluster struct {
	Kubeconfig string `json:"kubeconfig"`
	Context    string `json:"context"`
	Condition
}

// A Forward is one configured forward.
type Forward struct {
	Name      string   `json:"name"`
	Hostnames []string `json:"hostnames"`
	Address   string   `json:"address"`
	// URL is where a browser should go; empty for a forward without an HTTP
	// port.
	URL string `json:"url"`
	// URLs are all that lead to the HTTP port, URL first. Those under
	// .localhost need nobody's help to resolve.
	URLs []string `json:"urls,omitempty"`
	// Target is for people: "service/task-api in namespace task-api of context
	// lab".
	Target string `json:"target"`
	Condition
	// Since is when State was entered.
	Since     time.Time `json:"since"`
	Endpoints Endpoints `json:"endpoints"`
	Ports     []Port    `json:"ports"`
	// Pods are those with names of their own, which are among Hostnames, too.
	// One that is away keeps its name.
	Pods        []Pod       `json:"pods,omitempty"`
	Connections Connections `json:"connections"`
	Bytes       Bytes       `json:"bytes"`
	// LastError is the last thing that went wrong for a connection, with its
	// time in front; empty if nothing has.
	LastError string `json:"lastError"`
	// Unresolved are those of Hostnames that this system was seen not to resolve
	// to where they must lead.
	Unresolved []string `json:"unresolved,omitempty"`
	// Notes are facts a user should know that are no fault: a port that moved
	// up, a UDP port that is not carried, names that are not claimed.
	Notes []string `json:"notes,omitempty"`
}

// Endpoints counts the pods behind a forward.
type Endpoints struct {
	Ready int `json:"ready"`
	Total int `json:"total"`
}

// A Pod is one pod to which its own names lead, and nowhere else.
type Pod struct {
	// Name is its hostname in cluster DNS.
	Name      string   `json:"name"`
	Hostnames []string `json:"hostnames"`
	Address   string   `json:"address"`
	// URL is as a Forward's.
	URL   string `json:"url,omitempty"`
	Ports []Port `json:"ports"`
	// Ready says that the pod is there, and that the cluster takes it for ready.
	Ready bool `json:"ready"`
}

// A Port is one TCP port of the forward's target.
type Port struct {
	// Name is the port's name in the Service; empty if it has none.
	Name string `json:"name"`
	// Listen is the local ADDRESS:PORT; empty if none could be bound.
	Listen string `json:"listen"`
	// Port is the Service's port number (for a workload, the container's).
	Port uint16 `json:"port"`
	// ServedBy is "gateway" where Listen is the HTTP gateway, else "forward".
	ServedBy string `json:"servedBy"`
	// Error says why Listen is empty.
	Error string `json:"error,omitempty"`
}

// Connections counts local connections. Failed ones are part of Total.
type Connections struct {
	Active int64 `json:"active"`
	Total  int64 `json:"total"`
	Failed int64 `json:"failed"`
}

// Bytes counts payload: In from pods to local clients, Out from them to pods.
type Bytes struct {
	In  int64 `json:"in"`
	Out int64 `json:"out"`
}

// DNS tells about the responder.
type DNS struct {
	// Listen is where it answers, UDP and TCP; empty while it does not.
	Listen string `json:"listen"`
	// Wanted is the configured address where Listen had to differ from it.
	Wanted string `json:"wanted,omitempty"`
	Error  string `json:"error,omitempty"`
	// Names counts the names it is authoritative for.
	Names int `json:"names"`
	// Rung is the way by which this system is made to ask here; empty while it
	// is not. Why says what was found that made it the one.
	Rung string `json:"rung"`
	Why  string `json:"why,omitempty"`
	// Passed are other ways, and why they were not taken.
	Passed []Passed `json:"passed,omitempty"`
	// Problem is why the system cannot be made to ask here, if so.
	Problem string `json:"problem,omitempty"`
	// Hint says how to use names that this system does not ask for here.
	Hint string `json:"hint"`
}

// Passed is a way to make this system ask for names that was not taken.
type Passed struct {
	Rung string `json:"rung"`
	Why  string `json:"why"`
}

// A Result is what came of a Check.
type Result string

const (
	OK   Result = "ok"
	Warn Result = "warn" // it works, but not all of it, or not for everybody
	Fail Result = "fail"
)

// A Check is one thing that "tunnelctl doctor" looks at.
type Check struct {
	// Name is what was looked at, in a word: "dns", or a host name.
	Name   string `json:"name"`
	Result Result `json:"result"`
	// Evidence is what was found, in one sentence, whatever the result.
	Evidence string `json:"evidence"`
	// Fix says what to do about it, as a command where one helps.
	Fix string `json:"fix,omitempty"`
}

// TLS tells about the local certificate authority.
type TLS struct {
	// Fingerprint is the SHA-256 of the root certificate, in hex.
	Fingerprint string    `json:"fingerprint"`
	NotAfter    time.Time `json:"notAfter"`
	// Permitted are the domains the CA can sign for, whoever holds its key.
	Permitted []string `json:"permitted"`
	// Renewed says why this run of the daemon has put another CA in the place
	// of the one that there was, if so: clients have to trust it anew.
	Renewed string `json:"renewed,omitempty"`
	// Expiring says that the CA will expire soon, and what to do: from 60 days ahead.
	Expiring string `json:"expiring,omitempty"`
	// Trusted says whether the system's trust store holds the root certificate. Browsers
	// and Java may have stores of their own.
	Trusted bool `json:"trusted"`
	// Hint says what to do about Error, or else where the system does not trust the CA.
	// It is empty where it does, and where that cannot be told.
	Hint string `json:"hint,omitempty"`
	// Dir is the directory that holds the CA: the state directory.
	Dir string `json:"dir,omitempty"`
	// Error says why there is no CA, or why the one that there is, is of no use.
	Error string `json:"error,omitempty"`
}

// Environment tells about what was captured of the environment of the user's shell,
// for the service to run with.
type Environment struct {
	// Path is the file that has it.
	Path string `json:"path"`
	// Captured is when; zero if nothing has been.
	Captured time.Time `json:"captured,omitzero"`
	// Problem says why it is not what plugins need, if so, and Hint what to do.
	Problem string `json:"problem,omitempty"`
	Hint    string `json:"hint,omitempty"`
}

// A LogRecord is one line of what the daemon did.
type LogRecord struct {
	Time  time.Time `json:"time"`
	Level string    `json:"level"`
	Msg   string    `json:"msg"`
	// Forward is the forward that it concerns; empty for the daemon itself.
	Forward string `json:"forward,omitempty"`
	// Attrs are the rest, in order, as key and value.
	Attrs [][2]string `json:"attrs,omitempty"`
}

// A Version says which program this is.
type Version struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	OS      string `json:"os"` // GOOS/GOARCH
}
