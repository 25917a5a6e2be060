// Package apiserver is the demo cluster's API server: it stores objects, and
// serves them on loopback as a real one would to clients that read, watch and
// forward ports. What clients may change it leaves to the controllers.
package apiserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"

	"k8s.io/klog/v2"

	"github.com/tunneld/tunneld/internal/demo/internal/inflight"
	"github.com/tunneld/tunneld/internal/demo/internal/wire"
)

// Controllers make the changes that clients ask for, and what follows from
// them.
type Controllers interface {
	// Update replaces an object by what edit makes of it.
	Update(resource, namespace, name string, edit func(Object) (Object, error)) error
	// DeletePod deletes a pod, with its own grace if that is negative, and
	// returns it as it is after that, or was at its end.
	DeletePod(namespace, name string, grace time.Duration) (Object, error)
}

// Options configure a server. All fields but OldServer are needed.
type Options struct {
	OldServer      bool          // no WatchList, and only "get" for a WebSocket
	History        int           // events kept
	Bookmarks      time.Duration // between those of a watch
	NoSPDY         func() bool   // reports whether SPDY's upgrade header is lost on the way
	Network        *wire.Network
	Kubelet        http.RoundTripper // reaches KubeletAddress
	KubeletAddress string
	Controllers    Controllers
}

// A Server is an API server. It keeps its objects, tokens and address while it
// is stopped.
type Server struct {
	Store    *Store
	options  Options
	kinds    []*kind
	auth     *auth
	cuts     inflight.Signal // ends watches
	identity *identity

	lifecycle sync.Mutex // held while it starts and stops
	closed    bool
	address   string
	run       *run // nil while stopped
}

// ErrClosed is returned by Start after Close.
var ErrClosed = errors.New("the demo cluster is closed")

// New returns a server that is not yet started.
func New(o Options) (*Server, error) {
	id, err := newIdentity()
	if err != nil {
		return nil, fmt.Errorf("make the demo cluster's certificate: %w", err)
	}
	return &Server{
		Store:    newStore(o.History),
		options:  o,
		kinds:    kinds(),
		auth:     newAuth(),
		identity: id,
		address:  "127.0.0.1:0",
	}, nil
}

// CA returns the certificate, in PEM, that clients verify the server with.
func (s *Server) CA() []byte { return s.identity.ca }

// URL is where the server answers, or did until it was stopped.
func (s *Server) URL() string {
	s.lifecycle.Lock()
	defer s.lifecycle.Unlock()
	return "https://" + s.address
}

// CutWatches breaks off all watch requests.
func (s *Server) CutWatches() { s.cuts.Fire() }

// A run is the time from a start to a stop.
type run struct {
	server   *http.Server
	listener net.Listener
	requests inflight.Group
	cancel   context.CancelFunc
	done     chan struct{}
}

// Start starts the server, on the port it had before. It does nothing if it is
// running.
func (s *Server) Start() error {
	s.lifecycle.Lock()
	defer s.lifecycle.Unlock()
	if s.closed {
		return ErrClosed
	}
	if s.run != nil {
		return nil
	}
	l, err := listenAgain(s.address)
	if err != nil {
		return fmt.Errorf("start the demo cluster's API server: %w", err)
	}
	s.address = l.Addr().String()

	// The libraries behind port-forward take their logger from the context;
	// the zero one is silent.
	ctx, cancel := context.WithCancel(klog.NewContext(context.Background(), klog.Logger{}))
	r := &run{listener: s.options.Network.Listener(l), cancel: cancel, done: make(chan struct{})}
	r.server = &http.Server{
		TLSConfig:   s.identity.serverConfig(),
		ErrorLog:    log.New(io.Discard, "", 0),
		BaseContext: func(net.Listener) context.Context { return ctx },
		Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			if !r.requests.Enter() {
				panic(http.ErrAbortHandler)
			}
			defer r.requests.Leave()
			s.serve(w, q)
		}),
	}
	s.run = r
	go func() {
		defer close(r.done)
		r.server.ServeTLS(r.listener, "", "")
	}()
	return nil
}

// Stop ends the server as kill -9 would: its port is closed, and so are all
// connections, upgraded ones too. It waits until no request is served any
// more.
func (s *Server) Stop() {
	s.lifecycle.Lock()
	defer s.lifecycle.Unlock()
	s.stopLocked()
}

// Close is Stop for good. It is idempotent.
func (s *Server) Close() {
	s.lifecycle.Lock()
	defer s.lifecycle.Unlock()
	s.closed = true
	s.stopLocked()
}

func (s *Server) stopLocked() {
	r := s.run
	if r == nil {
		return
	}
	s.run = nil
	r.listener.Close()
	r.cancel()
	s.options.Network.HangUp()
	r.server.Close()
	<-r.done
	// Connections accepted meanwhile were the server's to close, except those
	// that were just hijacked.
	s.options.Network.HangUp()
	<-r.requests.Shut()
}

// listenAgain listens on a port that was just given up. Somebody else may have
// taken it for an outgoing connection, which ends soon.
func listenAgain(address string) (net.Listener, error) {
	deadline := time.NewTimer(5 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		l, err := net.Listen("tcp", address)
		if err == nil {
			return l, nil
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			return nil, err
		}
	}
}
