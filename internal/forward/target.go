package forward

import (
	"context"
	"fmt"
	"net"
	"strings"
)

// A Kind is a kind of object that can be forwarded to.
type Kind string

// The kinds, spelt as they are written in the configuration and in messages.
const (
	Service     Kind = "service"
	Deployment  Kind = "deployment"
	StatefulSet Kind = "statefulset"
	Pod         Kind = "pod"
)

// A Workload is the object whose pods answer. It is comparable.
type Workload struct {
	// Kubeconfig is a path, or several joined by the OS's list separator and
	// merged as kubectl does; empty means the default files.
	Kubeconfig string
	Context    string
	Namespace  string
	Kind       Kind
	Name       string
}

// Ref is the kubectl spelling: "service/task-api".
func (w Workload) Ref() string { return string(w.Kind) + "/" + w.Name }

// String names the workload for people.
func (w Workload) String() string {
	return fmt.Sprintf("%s in namespace %s of context %s", w.Ref(), w.Namespace, w.Context)
}

// A Target is one TCP port of a workload: the Service's port number, or the
// container's for the other kinds. It is comparable.
type Target struct {
	Workload
	// Pod, if set, is the hostname of the one pod that is meant, as cluster DNS
	// has it. Whoever has that name after it is the same target.
	Pod  string
	Port uint16
}

// An Endpoint is a pod that can take the bytes of a target. It is comparable:
// equal Endpoints are the same port of the same pod, and a pod that was
// recreated under its old name is another Endpoint.
type Endpoint struct {
	Target Target
	Pod    string
	UID    string
	// Port is the pod's port, resolved from the Service's targetPort.
	Port uint16
}

// Backends finds where a target's bytes can go, and goes there. Both methods
// may be called concurrently. This is the line between what speaks connections
// and names, and what speaks Kubernetes.
type Backends interface {
	// Pick waits until a pod can take a connection, bounded by ctx, and
	// balances over those that can. Its error Is ErrUnavailable.
	Pick(ctx context.Context, t Target) (Endpoint, error)
	// Dial opens one byte stream to e. The caller owns the Conn. An error that
	// Is ErrNotDelivered means that another Pick may help.
	Dial(ctx context.Context, e Endpoint) (Conn, error)
}

// A Conn is a byte stream to a pod. Read and Write return errors that Is
// ErrRefused when the pod's port turned the connection away, which the
// protocol tells only after Dial has returned.
type Conn interface {
	net.Conn
	// CloseWrite tells the pod that no more bytes will come.
	CloseWrite() error
	// Retiring is closed when the pod is going away. The stream still works;
	// it should not be kept for later.
	Retiring() <-chan struct{}
	// SetIdle says whether the stream is only kept for later. Such a one does
	// not count when pods are balanced.
	SetIdle(idle bool)
}

// kinds maps what kubectl accepts before the slash to our kinds.
func kindOf(word string) (Kind, bool) {
	switch strings.ToLower(word) {
	case "service", "services", "svc":
		return Service, true
	case "deployment", "deployments", "deploy", "deployment.apps", "deployments.apps":
		return Deployment, true
	case "statefulset", "statefulsets", "sts", "statefulset.apps", "statefulsets.apps":
		return StatefulSet, true
	case "pod", "pods", "po":
		return Pod, true
	}
	return "", false
}

// ParseRef parses NAME or KIND/NAME as kubectl writes them; NAME alone is a
// Service.
func ParseRef(ref string) (Kind, string, error) {
	word, name, ok := strings.Cut(ref, "/")
	if !ok {
		word, name = string(Service), ref
	}
	kind, known := kindOf(word)
	switch {
	case !known:
		return "", "", fmt.Errorf("%q is not a kind that can be forwarded to: use service, deployment, statefulset or pod", word)
	case name == "" || strings.Contains(name, "/"):
		return "", "", fmt.Errorf("%q names no %s: write %s/NAME", ref, kind, kind)
	}
	return kind, name, nil
}
