package node

import (
	"fmt"
	"sync"

	"k8s.io/apimachinery/pkg/types"
)

// Refuse makes a container port of a pod refuse connections, until undo.
func (n *Node) Refuse(namespace, name string, port uint16) (undo func(), err error) {
	p, err := n.running(namespace, name)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refused[port]++
	return sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.refused[port]--
	}), nil
}

// Stall makes a pod's program read no more from its connections, until undo.
func (n *Node) Stall(namespace, name string) (undo func(), err error) {
	p, err := n.running(namespace, name)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stalls == 0 {
		p.flowing = make(chan struct{})
	}
	p.stalls++
	return sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.stalls--
		if p.stalls == 0 {
			close(p.flowing)
		}
	}), nil
}

// Abandon makes the end of a pod unheard of by its connections.
func (n *Node) Abandon(namespace, name string) error {
	p, err := n.running(namespace, name)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.abandoned = true
	return nil
}

// Dials returns how often port-forwards have dialled a container port of a
// pod, refused attempts included; of all pods of the namespace if name is
// empty. Pods that are gone count.
func (n *Node) Dials(namespace, name string, port uint16) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	count := 0
	for d, times := range n.dials {
		if d.port == port && d.pod.Namespace == namespace && (name == "" || d.pod.Name == name) {
			count += times
		}
	}
	return count
}

// running finds a pod that runs something.
func (n *Node) running(namespace, name string) (*pod, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.pods {
		if p.key == (types.NamespacedName{Namespace: namespace, Name: name}) {
			return p, nil
		}
	}
	return nil, fmt.Errorf("no pod %s/%s runs", namespace, name)
}
