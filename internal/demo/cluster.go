// Package demo is an embedded Kubernetes cluster: an API server on loopback,
// controllers for Deployments, StatefulSets and EndpointSlices, a kubelet, and
// pods that are real listeners. It needs no root, no network and no kubeconfig.
//
// "tunneld demo" shows the product on it, and tests use it as the cluster,
// driving its faults (faults.go). It answers as a real cluster does where
// tunneld can see the difference: the port-forward path runs the ecosystem's
// own server code, errors carry the texts of the API server, the kubelet and
// containerd. It is no conformant API server: it stores only what was given to
// it, speaks only JSON, and its clients may change little.
//
// All methods may be called concurrently. Handlers of an App must not call
// back into the cluster's mutating methods.
package demo

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tunneld/tunneld/internal/demo/internal/apiserver"
	"github.com/tunneld/tunneld/internal/demo/internal/node"
	"github.com/tunneld/tunneld/internal/demo/internal/wire"
)

// Upgrades says which kinds of upgraded connections the cluster offers for
// port-forward.
type Upgrades int32

const (
	// BothUpgrades offers WebSocket (KEP-4006) and SPDY.
	BothUpgrades Upgrades = iota
	// WebSocketOnly is a cluster behind a gateway that strips SPDY's upgrade
	// header: the API server answers 400 "Upgrade request required".
	WebSocketOnly
	// SPDYOnly is a cluster older than 1.30, whose kubelet answers the
	// WebSocket with 400, for it expects the protocol that came before.
	SPDYOnly
)

// Options configure a cluster. The zero value is a current server with nothing
// in it but the namespace "default".
type Options struct {
	// Log receives pods' comings and goings at Info; nil discards.
	Log *slog.Logger
	// OldServer refuses watches that begin with a list (sendInitialEvents) with
	// 422, and asks only for "get" when a port-forward comes by WebSocket, as
	// servers before 1.35 do.
	OldServer bool
	Upgrades  Upgrades
	// History is how many events are kept for watches to resume from; 0 means
	// 1000.
	History int
	// Linger is how long the container runtime waits for the other direction of
	// a forwarded connection after one has ended; 0 means containerd's second,
	// by which every connection that a pod closes is seen to end late.
	Linger time.Duration
	// Bookmarks is how often a watch that allows bookmarks gets one; 0 means
	// a minute, as real servers do.
	Bookmarks time.Duration
}

// ErrClosed is returned by what needs a cluster that was closed.
var ErrClosed = apiserver.ErrClosed

// A Cluster is a running cluster.
type Cluster struct {
	log      *slog.Logger
	network  *wire.Network
	node     *node.Node
	api      *apiserver.Server
	store    *apiserver.Store // the API server's
	control  *control
	upgrades atomic.Int32 // an Upgrades
}

// Start runs a cluster.
func Start(o Options) (*Cluster, error) {
	c := &Cluster{log: o.Log, network: wire.New()}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	c.SetUpgrades(o.Upgrades)
	offers := func(u Upgrades) func() bool {
		return func() bool { return Upgrades(c.upgrades.Load()) == u }
	}
	var err error
	if c.node, err = node.Start(node.Options{NoTunnel: offers(SPDYOnly), Linger: o.Linger}); err != nil {
		return nil, fmt.Errorf("start the demo cluster's node: %w", err)
	}
	c.control = newControl(c)
	c.api, err = apiserver.New(apiserver.Options{
		OldServer:      o.OldServer,
		History:        cmp.Or(o.History, 1000),
		Bookmarks:      cmp.Or(o.Bookmarks, time.Minute),
		NoSPDY:         offers(WebSocketOnly),
		Network:        c.network,
		Kubelet:        c.node.Transport(),
		KubeletAddress: node.Address,
		Controllers:    c.control,
	})
	if err != nil {
		c.node.Close()
		return nil, err
	}
	c.store = c.api.Store
	c.control.start()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: metav1.NamespaceDefault}}
	if err := errors.Join(c.Apply(namespace), c.api.Start()); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Close ends everything and waits for it. It is idempotent.
func (c *Cluster) Close() error {
	c.control.stop()
	c.network.Close()
	c.node.Close()
	c.api.Close()
	return nil
}

// URL is where the API server answers, or did until it was stopped.
func (c *Cluster) URL() string { return c.api.URL() }
