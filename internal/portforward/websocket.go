package portforward

import (
	"bufio"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

// Opcodes and limits of WebSocket frames (RFC 6455, 5.2 and 5.5).
const (
	opContinuation = 0x0
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xa

	finalFrame  = 0x80
	maskedFrame = 0x80
	maxControl  = 125
)

// tunnelProtocol is the subprotocol of KEP-4006: SPDY's bytes in binary
// messages, whose boundaries mean nothing.
const tunnelProtocol = "SPDY/3.1+portforward.k8s.io"

// askForWebSocket makes r ask for a WebSocket, and returns the key that the
// answer must prove to have read.
func askForWebSocket(r *http.Request) (key string) {
	nonce := make([]byte, 16)
	rand.Read(nonce)
	key = base64.StdEncoding.EncodeToString(nonce)
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", "websocket")
	r.Header.Set("Sec-WebSocket-Version", "13")
	r.Header.Set("Sec-WebSocket-Key", key)
	r.Header.Set("Sec-WebSocket-Protocol", tunnelProtocol)
	return key
}

// checkWebSocket reports why a response that switches protocols is not the
// WebSocket that was asked for with key; nil if it is.
func checkWebSocket(resp *http.Response, key string) error {
	if got := resp.Header.Get("Sec-WebSocket-Accept"); got != acceptKey(key) {
		return fmt.Errorf("the answer to a WebSocket's handshake does not fit: %q", got)
	}
	if got := resp.Header.Get("Sec-WebSocket-Protocol"); got != tunnelProtocol {
		return fmt.Errorf("the WebSocket has the subprotocol %q; want %q", got, tunnelProtocol)
	}
	return nil
}

// acceptKey proves that a key was read (RFC 6455, 1.3).
func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// A tunnelConn is a byte stream in the binary messages of a WebSocket, from the
// client's side. Of its Reads, and of its Writes, one at a time may be under
// way. A Read that a deadline interrupts can be repeated.
type tunnelConn struct {
	net.Conn
	in     *bufio.Reader
	left   uint64 // of the frame that is being read
	within bool   // a message that has more frames
	ended  error  // the server has closed the WebSocket

	out     []byte
	writing atomic.Bool
	pong    atomic.Pointer[[]byte] // to go with the next Write
}

func newTunnelConn(conn net.Conn) *tunnelConn {
	return &tunnelConn{Conn: conn, in: bufio.NewReaderSize(conn, readAhead)}
}

func (c *tunnelConn) Read(p []byte) (int, error) {
	for c.left == 0 {
		if c.ended != nil {
			return 0, c.ended
		}
		if err := c.readHeader(); err != nil {
			return 0, err
		}
	}
	n, err := c.in.Read(p[:min(uint64(len(p)), c.left)])
	c.left -= uint64(n)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// readHeader reads the header of a frame with data, or a whole control frame.
func (c *tunnelConn) readHeader() error {
	b, err := c.in.Peek(2)
	if err != nil {
		return noEnd(err)
	}
	final, opcode, length := b[0]&finalFrame != 0, b[0]&0x0f, uint64(b[1]&^maskedFrame)
	size := 2
	switch {
	case b[0]&0x70 != 0:
		return fmt.Errorf("websocket: frame with reserved bits %#x", b[0])
	case b[1]&maskedFrame != 0:
		return errors.New("websocket: masked frame from a server")
	case length == 126:
		size += 2
	case length == 127:
		size += 8
	}
	if opcode >= opClose {
		return c.readControl(opcode, final, int(length))
	}
	if b, err = c.in.Peek(size); err != nil {
		return noEnd(err)
	}
	switch size {
	case 4:
		length = uint64(binary.BigEndian.Uint16(b[2:]))
	case 10:
		length = binary.BigEndian.Uint64(b[2:])
	}
	switch {
	case length>>63 != 0:
		return fmt.Errorf("websocket: frame of %d bytes", length)
	case opcode != opContinuation && opcode != opBinary:
		return fmt.Errorf("websocket: frame with opcode %d; want binary", opcode)
	case c.within != (opcode == opContinuation):
		return errors.New("websocket: messages within each other")
	}
	c.in.Discard(size)
	c.left, c.within = length, !final
	return nil
}

func (c *tunnelConn) readControl(opcode byte, final bool, length int) error {
	if !final || length > maxControl {
		return fmt.Errorf("websocket: control frame %d of %d bytes, final %t", opcode, length, final)
	}
	b, err := c.in.Peek(2 + length)
	if err != nil {
		return noEnd(err)
	}
	payload := b[2:]
	switch opcode {
	case opPing:
		pong := append([]byte(nil), payload...)
		c.pong.Store(&pong) // an answer to the latest is enough (RFC 6455, 5.5.3)
	case opPong:
	case opClose:
		c.ended = closeReason(payload)
	default:
		return fmt.Errorf("websocket: control frame with opcode %d", opcode)
	}
	c.in.Discard(2 + length)
	return nil
}

// closeReason is what the end of a WebSocket means to a reader.
func closeReason(payload []byte) error {
	if len(payload) < 2 {
		return io.EOF
	}
	const normal, goingAway = 1000, 1001
	code := binary.BigEndian.Uint16(payload)
	switch {
	case !utf8.Valid(payload[2:]):
		return errors.New("websocket: closed for a reason that is not text")
	case code == normal || code == goingAway:
		return io.EOF
	}
	return fmt.Errorf("the WebSocket was closed: %d %s", code, payload[2:])
}

// noEnd makes an end where there may be none a failure.
func noEnd(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (c *tunnelConn) Write(p []byte) (int, error) {
	if c.writing.Swap(true) { // by Close
		return 0, net.ErrClosed
	}
	defer c.writing.Store(false)
	c.out = c.out[:0]
	if pong := c.pong.Swap(nil); pong != nil {
		c.out = appendMasked(c.out, opPong, *pong)
	}
	c.out = appendMasked(c.out, opBinary, p)
	if _, err := c.Conn.Write(c.out); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Close says goodbye if that is quick. Nothing is written after that.
func (c *tunnelConn) Close() error {
	if !c.writing.Swap(true) {
		c.Conn.SetWriteDeadline(time.Now().Add(partingTime))
		c.Conn.Write(appendMasked(nil, opClose, []byte{1000 >> 8, 1000 & 0xff}))
	}
	return c.Conn.Close()
}

// appendMasked appends a whole frame with a mask of its own: what is in a frame
// must not be for its sender to choose, so that it is taken for nothing else by
// what is on the way (RFC 6455, 10.3).
func appendMasked(dst []byte, opcode byte, payload []byte) []byte {
	dst = append(dst, finalFrame|opcode)
	switch n := len(payload); {
	case n <= maxControl:
		dst = append(dst, maskedFrame|byte(n))
	case n < 1<<16:
		dst = binary.BigEndian.AppendUint16(append(dst, maskedFrame|126), uint16(n))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, maskedFrame|127), uint64(n))
	}
	var key [4]byte
	rand.Read(key[:])
	dst = append(dst, key[:]...)
	start := len(dst)
	dst = append(dst, payload...)
	mask(dst[start:], key)
	return dst
}

// mask is its own inverse.
func mask(b []byte, key [4]byte) {
	word := uint64(binary.LittleEndian.Uint32(key[:]))
	word |= word << 32
	for len(b) >= 8 {
		binary.LittleEndian.PutUint64(b, binary.LittleEndian.Uint64(b)^word)
		b = b[8:]
	}
	for i := range b {
		b[i] ^= key[i%4]
	}
}
