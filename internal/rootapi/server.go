//go:build unix

package rootapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/tunneld/tunneld/internal/osdns"
)

const (
	// ioLimit bounds the reading of a request, and the writing of a response.
	ioLimit = 5 * time.Second
	// workLimit bounds what a request has done.
	workLimit = 25 * time.Second
	// maxConns are served at a time; others wait in the socket's backlog.
	maxConns = 8
)

// A Ladder changes the system, for one caller at a time: an osdns.Ladder.
type Ladder interface {
	Claim(ctx context.Context, c osdns.Claim, skip []string) (osdns.Outcome, error)
	Release(ctx context.Context, owner string) error
}

// A Server does what clients ask for if the policy allows it.
type Server struct {
	Policy *Policy
	// Unusable is why there is no policy. If it is set, it is what all requests
	// are answered with.
	Unusable error
	Ladder   Ladder
	// LockDir is a directory that the helpers of all users share: whoever
	// changes the system holds the lock in it.
	LockDir string
	// Idle is for how long nobody must have asked before Serve returns; 0 means
	// for ever.
	Idle time.Duration
	Log  *slog.Logger // nil: none

	listen func(context.Context, netip.AddrPort) (net.Listener, error) // nil: really
	read   time.Duration                                               // 0: ioLimit
}

// Serve answers on l until ctx is done or nobody has asked for a while; both
// are no error. What has begun is finished first. It closes l.
func (s *Server) Serve(ctx context.Context, l *net.UnixListener) error {
	var conns sync.WaitGroup
	defer conns.Wait()
	defer l.Close()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	slots := make(chan struct{}, maxConns)
	var busy atomic.Int64 // connections being served
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		if s.Idle > 0 {
			l.SetDeadline(time.Now().Add(s.Idle))
		}
		c, err := l.AcceptUnix()
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return nil
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return fmt.Errorf("accept: %w", err)
		case busy.Load() == 0:
			s.log().Debug("idle")
			return nil
		default: // somebody is still being served
			<-slots
			continue
		}
		busy.Add(1)
		conns.Go(func() {
			defer func() { busy.Add(-1); <-slots }()
			defer c.Close()
			s.serveConn(ctx, c)
		})
	}
}

func (s *Server) serveConn(ctx context.Context, c *net.UnixConn) {
	log := s.log()
	uid, err := peerUID(c)
	if err != nil {
		log.Warn("cannot tell who asks", "error", err)
		return
	}
	data, err := s.readRequest(ctx, c)
	if err != nil {
		log.Debug("no request", "uid", uid, "error", err)
		return
	}
	// What has begun is finished even if the program is told to end: half a
	// claim helps nobody.
	work, cancel := context.WithTimeout(context.WithoutCancel(ctx), workLimit)
	defer cancel()
	resp, listener := s.answer(work, uid, data)
	if listener != nil {
		defer listener.Close() // the client has its own by then
	}
	c.SetWriteDeadline(time.Now().Add(ioLimit))
	if err := send(c, resp, listener); err != nil {
		log.Debug("the answer was not taken", "uid", uid, "error", err)
	}
}

// readRequest reads to the end of what the client sends. One byte more than may
// be sent is enough to tell that it is too much.
func (s *Server) readRequest(ctx context.Context, c *net.UnixConn) ([]byte, error) {
	limit := s.read
	if limit == 0 {
		limit = ioLimit
	}
	c.SetReadDeadline(time.Now().Add(limit))
	defer context.AfterFunc(ctx, func() { c.SetReadDeadline(time.Unix(1, 0)) })()
	return io.ReadAll(io.LimitReader(c, maxRequest+1))
}

// answer does what the user asks for, if that is allowed. The listener, if there
// is one, is for the client.
func (s *Server) answer(ctx context.Context, uid uint32, data []byte) (response, net.Listener) {
	if s.Unusable != nil {
		return response{Error: s.Unusable.Error()}, nil
	}
	r, refusal := s.judge(uid, data)
	if refusal != nil {
		s.log().Warn("refused", "uid", uid, "why", refusal.Reason)
		return response{Error: refusal.Reason, Refused: true, RefusedNames: refusal.Names}, nil
	}
	var resp response
	var listener net.Listener
	var err error
	switch r.Verb {
	case verbClaim:
		resp.Outcome, err = s.claim(ctx, r)
	case verbRelease:
		err = s.release(ctx)
	case verbListen:
		listener, err = s.listenOn(ctx, r.Listen)
	case verbAddress:
		err = addAddress(ctx, r.Address)
	}
	if err != nil {
		s.log().Warn("failed", "verb", r.Verb, "error", err)
		resp.Error = err.Error()
		if taken, ok := errors.AsType[*osdns.TakenError](err); ok {
			resp.Refused, resp.RefusedNames = true, taken.Names
		}
		if errno, ok := errors.AsType[syscall.Errno](err); ok {
			resp.Errno = int(errno)
		}
	}
	return resp, listener
}

// judge reads a request and holds it against the rules.
func (s *Server) judge(uid uint32, data []byte) (*request, *Refusal) {
	if uid != s.Policy.UID && uid != 0 {
		return nil, refuse("user %d may not use the helper of user %d", uid, s.Policy.UID)
	}
	if len(data) > maxRequest {
		return nil, refuse("the request is longer than %d bytes", maxRequest)
	}
	r := new(request)
	if err := decode(data, r); err != nil {
		return nil, refuse("the request cannot be read: %s", quote(err.Error()))
	}
	hostname, err := os.Hostname()
	if err != nil {
		return nil, refuse("the machine's own name is not known: %v", err)
	}
	if refusal := s.Policy.check(r, hostname); refusal != nil {
		return nil, refusal
	}
	return r, nil
}

// owner is how the user is called where something is changed.
func (p *Policy) owner() string { return strconv.FormatUint(uint64(p.UID), 10) }

func (s *Server) claim(ctx context.Context, r *request) (osdns.Outcome, error) {
	unlock, err := lock(ctx, s.LockDir)
	if err != nil {
		return osdns.Outcome{}, err
	}
	defer unlock()
	c := osdns.Claim{Owner: s.Policy.owner(), Server: r.Server, Names: r.Names}
	outcome, err := s.Ladder.Claim(ctx, c, r.Skip)
	if err == nil {
		s.log().Info("claimed", "names", len(c.Names), "server", c.Server, "rung", outcome.Rung, "why", outcome.Why)
	}
	return outcome, err
}

func (s *Server) release(ctx context.Context) error {
	unlock, err := lock(ctx, s.LockDir)
	if err != nil {
		return err
	}
	defer unlock()
	if err := s.Ladder.Release(ctx, s.Policy.owner()); err != nil {
		return err
	}
	s.log().Info("released")
	return nil
}

// Release takes back all that was done for the user and lasts, whoever is dead
// by now. It needs no Serve, and may be called beside one, of any process.
func (s *Server) Release(ctx context.Context) error {
	return errors.Join(s.release(ctx), removeAddresses(ctx, s.Policy.Addresses))
}

func (s *Server) listenOn(ctx context.Context, at netip.AddrPort) (net.Listener, error) {
	listen := s.listen
	if listen == nil {
		listen = func(ctx context.Context, at netip.AddrPort) (net.Listener, error) {
			// Without Multipath TCP: see the daemon's binder, which has to have such a
			// socket stop listening.
			var plain net.ListenConfig
			plain.SetMultipathTCP(false)
			return plain.Listen(ctx, "tcp", at.String())
		}
	}
	l, err := listen(ctx, at)
	if err == nil {
		s.log().Info("listening", "address", at)
	}
	return l, err
}

func (s *Server) log() *slog.Logger {
	if s.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return s.Log
}
