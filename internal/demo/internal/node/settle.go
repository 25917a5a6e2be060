package node

import (
	"bytes"
	"encoding/binary"
	"net"
	"sync"
	"time"

	"github.com/tunneld/tunneld/internal/demo/internal/inflight"
)

// A settlingConn ends later than the connection it stands for, by the moment
// that the SPDY server needs to finish what it has read.
//
// The server's libraries do not stand an end at any other time. If a stream
// was announced just before, it is offered to a loop that has stopped taking
// streams (cri-streaming), or its reply cannot be written, so that whoever
// writes to it waits for the reply (spdystream v0.5.1); either way goroutines
// stay for ever. Clients that do not wait for replies before they write meet
// that often. So the end is held back, and what is written meanwhile is
// swallowed, until all announced streams have been replied to.
type settlingConn struct {
	net.Conn
	dying func() // called once at least, when the end is near

	// Only the reading goroutine touches these.
	incoming parser
	held     []byte
	early    uint32 // stream that is reset, and not replied to yet
	later    []byte // the last byte of its reset, and what comes after

	mu       sync.Mutex
	outgoing parser
	open     map[uint32]bool // streams announced and not replied to
	replied  inflight.Signal
	dead     bool // the end may be seen
}

// The SPDY/3.1 control frames that matter here.
const (
	synStream = 1
	synReply  = 2
	rstStream = 3
	goAway    = 7
)

const (
	// settleLimit bounds the wait for replies: a client may announce streams
	// that get none. It is long, since what comes too early is a data race in the
	// library, which a busy machine has found after a second.
	settleLimit = 5 * time.Second
	// settlePause is for the last stream: it has been passed on when its reply
	// is written, but may not have been taken.
	settlePause = 5 * time.Millisecond
)

func newSettlingConn(c net.Conn, dying func()) *settlingConn {
	return &settlingConn{Conn: c, dying: dying, open: map[uint32]bool{}}
}

// Read holds back the end of the connection, and the last byte of a GOAWAY
// frame, after which the server reads no more.
func (c *settlingConn) Read(b []byte) (int, error) {
	if len(c.held) > 0 {
		c.settle()
		n := copy(b, c.held)
		c.held = c.held[n:]
		return n, nil
	}
	n, at := 0, 0
	if len(c.later) > 0 {
		if c.early != 0 {
			c.awaitReply(c.early)
			c.early, at = 0, 1
		}
		n = copy(b, c.later)
		c.later = c.later[n:]
	} else {
		var err error
		n, err = c.Conn.Read(b)
		if n == 0 && err != nil {
			c.settle()
			return 0, err
		}
	}
	for at < n {
		used, kind, id := c.incoming.next(b[at:n])
		at += used
		switch kind {
		case synStream:
			c.mu.Lock()
			c.open[id] = true
			c.mu.Unlock()
		case rstStream:
			c.mu.Lock()
			early := c.open[id]
			c.mu.Unlock()
			switch {
			case early && at == 1:
				c.awaitReply(id)
			case early:
				c.early, c.later = id, append(bytes.Clone(b[at-1:n]), c.later...)
				return at - 1, nil
			}
		case goAway:
			if at == 1 {
				c.settle()
				return n, nil
			}
			c.held = bytes.Clone(b[at-1 : n])
			return at - 1, nil
		}
	}
	return n, nil // if there is an error too, the next Read returns it
}

// Write notices replies, and does not fail: a reply that cannot be written would
// race with a reset of its stream (spdystream v0.5.1), however late it is. Read
// tells the server of the end.
func (c *settlingConn) Write(b []byte) (int, error) {
	_, err := c.Conn.Write(b)
	c.mu.Lock()
	defer c.mu.Unlock()
	for at := 0; at < len(b); {
		used, kind, id := c.outgoing.next(b[at:])
		at += used
		if kind == synReply || kind == rstStream {
			delete(c.open, id)
			c.replied.Fire()
		}
	}
	if err != nil {
		c.Conn.Close() // so that Read learns of it
	}
	return len(b), nil
}

// Close never fails: spdystream would keep a goroutine for a second to tell
// somebody.
func (c *settlingConn) Close() error {
	c.Conn.Close()
	return nil
}

// settle waits until the server has done what it has to.
func (c *settlingConn) settle() {
	c.dying()
	c.await(func() bool { return len(c.open) == 0 || c.dead })
	pause := time.NewTimer(settlePause)
	defer pause.Stop()
	<-pause.C
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dead = true
}

// awaitReply waits until a stream was replied to. If its reset comes before that,
// whoever writes to it waits for ever (spdystream v0.5.1).
func (c *settlingConn) awaitReply(stream uint32) {
	c.await(func() bool { return !c.open[stream] })
}

// await waits until ok reports true, with mu held, or not much longer.
func (c *settlingConn) await(ok func() bool) {
	limit := time.NewTimer(settleLimit)
	defer limit.Stop()
	for {
		replied := c.replied.Wait()
		c.mu.Lock()
		done := ok()
		c.mu.Unlock()
		if done {
			return
		}
		select {
		case <-replied:
		case <-limit.C:
			return
		}
	}
}

// A parser finds the frames in a stream of SPDY/3.1.
type parser struct {
	head [12]byte // flags, length, and of control frames the stream's id
	seen int      // bytes of the current frame
}

// next reads on in b, to the end of a frame at most, and says how many bytes
// it used. Kind is 0 for data frames and while no frame has ended.
func (p *parser) next(b []byte) (used int, kind uint16, id uint32) {
	for used < len(b) {
		switch {
		case p.seen < 8:
			n := copy(p.head[p.seen:8], b[used:])
			p.seen, used = p.seen+n, used+n
		case p.seen < min(len(p.head), p.size()):
			n := copy(p.head[p.seen:min(len(p.head), p.size())], b[used:])
			p.seen, used = p.seen+n, used+n
		default:
			n := min(p.size()-p.seen, len(b)-used)
			p.seen, used = p.seen+n, used+n
		}
		if p.seen >= 8 && p.seen == p.size() {
			p.seen = 0
			if p.head[0]&0x80 != 0 {
				kind, id = binary.BigEndian.Uint16(p.head[2:]), binary.BigEndian.Uint32(p.head[8:])&0x7fffffff
			}
			return used, kind, id
		}
	}
	return used, 0, 0
}

func (p *parser) size() int {
	return 8 + int(binary.BigEndian.Uint32(p.head[4:])&0xffffff)
}
