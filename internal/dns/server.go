package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"
)

const (
	// idle is how long a TCP client may take for its next query, or to read
	// our reply (RFC 7766 section 6.2.3 asks for a few seconds).
	idle = 10 * time.Second
	// lastWord is how long one may take for a query that is on its way when the
	// server ends.
	lastWord = 250 * time.Millisecond
	// maxConns is how many TCP clients are served at a time; another one is
	// turned away, so that files remain for those who carry bytes.
	maxConns = 128
)

// A Server answers queries from its zone. The zero value is ready, and refuses
// everything until SetZone. Its methods may be called concurrently.
//
// It reads and writes the sockets itself: dns.Server (v1.1.73) starts a
// goroutine for every packet, answers broken ones before anybody can look at
// who sent them, and waits for ever, at shutdown too, for a TCP client that
// does not read.
type Server struct {
	Log *slog.Logger // nil: silent; queries are logged at Debug
	// Refused, if not nil, is told each name that was asked for and is not
	// under a name of the zone, in lower case and with the final dot: somebody
	// sends us what is not ours. It is called before the reply is sent, by as
	// many goroutines as answer at the time, and must not block.
	Refused func(name string)

	zone   atomic.Pointer[Zone]
	counts counts
}

// Stats are how many queries a server has replied to, by rcode.
type Stats struct {
	NoError  uint64 // with an answer, or NODATA
	NXDomain uint64
	Refused  uint64
	Other    uint64 // FORMERR, NOTIMP and BADVERS
}

// Total is how many queries there were.
func (s Stats) Total() uint64 { return s.NoError + s.NXDomain + s.Refused + s.Other }

type counts struct{ noError, nxDomain, refused, other atomic.Uint64 }

func (c *counts) add(rcode int) {
	switch rcode {
	case dns.RcodeSuccess:
		c.noError.Add(1)
	case dns.RcodeNameError:
		c.nxDomain.Add(1)
	case dns.RcodeRefused:
		c.refused.Add(1)
	default:
		c.other.Add(1)
	}
}

// Stats returns what was counted since the server was made.
func (s *Server) Stats() Stats {
	return Stats{
		NoError:  s.counts.noError.Load(),
		NXDomain: s.counts.nxDomain.Load(),
		Refused:  s.counts.refused.Load(),
		Other:    s.counts.other.Load(),
	}
}

// SetZone replaces the zone, for the next query on.
func (s *Server) SetZone(z *Zone) { s.zone.Store(z) }

// Zone returns the zone in force; nil, which is an empty one, before SetZone.
func (s *Server) Zone() *Zone { return s.zone.Load() }

func (s *Server) logger() *slog.Logger {
	if s.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return s.Log
}

// Serve answers on l until ctx is done, and then returns nil. It closes l and
// every connection, and returns when nothing of it runs any more. What it has read is
// answered; what it has not is left to who has the sockets next, if somebody does.
func (s *Server) Serve(ctx context.Context, l *Listeners) error {
	defer l.Close()
	group, running := errgroup.WithContext(ctx)
	group.Go(func() error { return s.serveUDP(running, l.udp) })
	group.Go(func() error { return s.serveTCP(running, l.tcp) })
	group.Go(func() error {
		<-running.Done()
		return l.interrupt()
	})
	if err := group.Wait(); ctx.Err() == nil {
		return err
	}
	return nil
}

// serveUDP returns when ctx is done and reading is interrupted. It answers inline: a reply takes
// microseconds, and the kernel queues or drops what is too much.
func (s *Server) serveUDP(ctx context.Context, conn *net.UDPConn) error {
	packet, buf := make([]byte, dns.MaxMsgSize), make([]byte, 2*ednsSize)
	var trouble backoff
	for {
		n, from, err := conn.ReadFromUDPAddrPort(packet)
		if err == nil {
			trouble.reset()
			if out := s.reply(buf, packet[:n], from.Addr(), ednsSize); out != nil {
				// A client that cannot be reached asks again, or is gone.
				_, _ = conn.WriteToUDPAddrPort(out, from)
			}
			continue
		}
		if ctx.Err() != nil {
			return nil
		}
		// Windows reports here that an earlier reply reached nobody.
		if err := trouble.wait(ctx, s.logger(), "read", err); err != nil {
			return err
		}
	}
}

// serveTCP returns when ctx is done, accepting is interrupted, and all connections
// are closed, which ctx sees to.
func (s *Server) serveTCP(ctx context.Context, ln *net.TCPListener) error {
	var conns sync.WaitGroup
	defer conns.Wait()
	free := make(chan struct{}, maxConns)
	var trouble backoff
	for {
		conn, err := ln.AcceptTCP()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if err := trouble.wait(ctx, s.logger(), "accept", err); err != nil {
				return err
			}
			continue
		}
		trouble.reset()
		select {
		case free <- struct{}{}:
		default:
			conn.Close()
			continue
		}
		conns.Go(func() {
			defer func() { <-free }()
			s.serveConn(ctx, conn)
		})
	}
}

// serveConn answers one query after the other until the client is done, falls
// silent or sends what deserves no reply. Once ctx is done, it answers one at most.
func (s *Server) serveConn(ctx context.Context, conn *net.TCPConn) {
	defer conn.Close()
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = conn.SetDeadline(time.Now().Add(lastWord))
		close(closed)
	})
	defer func() {
		if !stop() {
			<-closed
		}
	}()

	from := conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr()
	var length [2]byte
	var packet, buf []byte
	for {
		// An error here means that the connection is gone: Read tells.
		_ = conn.SetDeadline(time.Now().Add(idle))
		if ctx.Err() != nil { // what was set then may have been replaced just now
			_ = conn.SetDeadline(time.Now().Add(lastWord))
		}
		if _, err := io.ReadFull(conn, length[:]); err != nil {
			return
		}
		n := int(binary.BigEndian.Uint16(length[:]))
		packet = slices.Grow(packet[:0], n)[:n]
		if _, err := io.ReadFull(conn, packet); err != nil {
			return
		}
		out := s.reply(nil, packet, from, dns.MaxMsgSize)
		if out == nil {
			return
		}
		// In one write, so that they travel in one segment (RFC 7766 section
		// 8).
		buf = binary.BigEndian.AppendUint16(buf[:0], uint16(len(out)))
		if _, err := conn.Write(append(buf, out...)); err != nil || ctx.Err() != nil {
			return
		}
	}
}

// A backoff slows down a loop whose socket fails again and again (out of file
// descriptors, for one) without giving up the socket. The zero value is ready.
type backoff struct{ failures int }

func (b *backoff) reset() { b.failures = 0 }

// wait returns nil when it is time to try again, and an error when the socket
// is closed. A single failure costs no time.
func (b *backoff) wait(ctx context.Context, log *slog.Logger, what string, err error) error {
	if errors.Is(err, net.ErrClosed) {
		return err
	}
	b.failures++
	if b.failures == 2 {
		log.Warn("dns socket fails", "doing", what, "error", err)
	}
	timer := time.NewTimer(time.Duration(min(b.failures-1, 50)) * 10 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
