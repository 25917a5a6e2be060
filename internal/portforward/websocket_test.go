package portforward

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"
)

// newTunnel returns a tunnel and gorilla's server at its other end.
func newTunnel(t *testing.T) (*tunnelConn, *websocket.Conn) {
	t.Helper()
	upgraded := make(chan *websocket.Conn, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u := websocket.Upgrader{Subprotocols: []string{tunnelProtocol}, WriteBufferSize: 1 << 10} // so that it makes fragments
		ws, err := u.Upgrade(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		upgraded <- ws
	}))
	t.Cleanup(server.Close)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	key := askForWebSocket(req)
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := req.Write(conn); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, req)
	if err != nil {
		t.Fatal(err)
	}
	if err := checkWebSocket(resp, key); err != nil {
		t.Fatal(err)
	}
	ws := <-upgraded
	t.Cleanup(func() { ws.Close() })
	return newTunnelConn(conn), ws
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Int())
	}
	return b
}

// sizes are those around which the header of a frame changes, and buffers end.
var sizes = []int{1, 2, 3, 7, 8, 9, 124, 125, 126, 127, 128, readAhead, readAhead + 1, 1<<16 - 1, 1 << 16, 1<<16 + 1, 200_000}

func TestTunnelAsGorillaReadsIt(t *testing.T) {
	t.Parallel()
	c, ws := newTunnel(t)
	for _, n := range sizes {
		sent := randomBytes(n)
		given := bytes.Clone(sent)
		written := make(chan error, 1)
		go func() {
			_, err := c.Write(given)
			written <- err
		}()
		kind, got, err := ws.ReadMessage()
		if err != nil || kind != websocket.BinaryMessage || !bytes.Equal(got, sent) {
			t.Fatalf("%d bytes: got %d of kind %d, %v", n, len(got), kind, err)
		}
		if err := <-written; err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(given, sent) {
			t.Fatalf("%d bytes: Write has changed what it was given", n)
		}
	}
}

func TestTunnelReadsWhatGorillaSends(t *testing.T) {
	t.Parallel()
	c, ws := newTunnel(t)
	var all []byte
	for _, n := range sizes {
		all = append(all, randomBytes(n)...)
	}
	go func() {
		rest := all
		for _, n := range sizes {
			w, _ := ws.NextWriter(websocket.BinaryMessage)
			w.Write(rest[:n]) // in fragments, where it is more than its buffer
			w.Close()
			ws.WriteControl(websocket.PingMessage, []byte("between"), time.Time{})
			rest = rest[n:]
		}
		ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Time{})
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, all) {
		t.Fatalf("got %d bytes of %d, %v", len(got), len(all), err)
	}
	if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("after the end: %d, %v", n, err)
	}
}

// The pong goes with the next write: a reader must not wait for a writer.
func TestTunnelAnswersPings(t *testing.T) {
	t.Parallel()
	c, ws := newTunnel(t)
	var pongs []string
	ws.SetPongHandler(func(text string) error { pongs = append(pongs, text); return nil })
	for _, text := range []string{"first", "latest"} {
		if err := ws.WriteControl(websocket.PingMessage, []byte(text), time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := ws.WriteMessage(websocket.BinaryMessage, []byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	for range 2 { // and only once
		if _, err := c.Write([]byte("y")); err != nil {
			t.Fatal(err)
		}
		if _, _, err := ws.ReadMessage(); err != nil {
			t.Fatal(err)
		}
	}
	if got := strings.Join(pongs, " "); got != "latest" {
		t.Errorf("pongs %q; want one for the latest", got)
	}
}

func TestTunnelEnds(t *testing.T) {
	t.Parallel()
	t.Run("by the server, with a reason", func(t *testing.T) {
		c, ws := newTunnel(t)
		ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseInternalServerErr, "no more sandboxes"), time.Time{})
		if _, err := c.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "1011 no more sandboxes") {
			t.Errorf("read: %v", err)
		}
	})
	t.Run("without a word", func(t *testing.T) {
		c, ws := newTunnel(t)
		ws.Close()
		if _, err := c.Read(make([]byte, 1)); err != io.ErrUnexpectedEOF {
			t.Errorf("read: %v", err)
		}
	})
	t.Run("by us", func(t *testing.T) {
		c, ws := newTunnel(t)
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if _, _, err := ws.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
			t.Errorf("the server reads %v; want a normal closure", err)
		}
	})
}

// A read that a deadline interrupts, wherever that is, loses nothing.
func TestTunnelReadCanBeRepeated(t *testing.T) {
	t.Parallel()
	server, client := net.Pipe()
	defer server.Close()
	c := newTunnelConn(client)
	defer c.Close()
	wire := binary.BigEndian.AppendUint64([]byte{finalFrame | opBinary, 127}, 5)
	wire = append(wire, "hello"...)
	var got []byte
	for _, b := range wire {
		c.SetReadDeadline(time.Unix(1, 0))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("read: %v; want a timeout", err)
		}
		c.SetReadDeadline(time.Time{})
		read := make(chan struct{})
		go func() {
			defer close(read)
			c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
			p := make([]byte, 8)
			n, _ := c.Read(p)
			got = append(got, p[:n]...)
		}()
		server.Write([]byte{b})
		<-read
	}
	if string(got) != "hello" {
		t.Errorf("got %q", got)
	}
}

func TestTunnelRefusesBrokenFrames(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, wire string }{
		{"reserved bits", "\xc2\x01x"},
		{"masked", "\x82\x81\x01\x02\x03\x04x"},
		{"text", "\x81\x01x"},
		{"unknown opcode", "\x83\x01x"},
		{"unknown control opcode", "\x8b\x00"},
		{"a fragment without a beginning", "\x80\x01x"},
		{"a message within another", "\x02\x01x\x82\x01y"},
		{"a long control frame", "\x89\x7e\x00\x7e"},
		{"a control frame in fragments", "\x09\x00"},
		{"a length with its top bit", "\x82\x7f\x80\x00\x00\x00\x00\x00\x00\x00"},
	}
	for _, tt := range tests {
		c := newTunnelConn(scripted{strings.NewReader(tt.wire)})
		if got, err := io.ReadAll(c); err == nil || err == io.ErrUnexpectedEOF || strings.Contains(string(got), "y") {
			t.Errorf("%s: read %q, %v; want an error that says so", tt.name, got, err)
		}
	}
}

// A scripted connection says what is in Reader, and ends.
type scripted struct{ io.Reader }

func (scripted) Write(p []byte) (int, error)      { return len(p), nil }
func (scripted) Close() error                     { return nil }
func (scripted) LocalAddr() net.Addr              { return nil }
func (scripted) RemoteAddr() net.Addr             { return nil }
func (scripted) SetDeadline(time.Time) error      { return nil }
func (scripted) SetReadDeadline(time.Time) error  { return nil }
func (scripted) SetWriteDeadline(time.Time) error { return nil }

// FuzzTunnel compares what is read from any bytes with what gorilla's client
// reads: what it takes for whole messages, the tunnel has taken, too, and the
// other way round.
func FuzzTunnel(f *testing.F) {
	for _, seed := range []string{
		"\x82\x05hello", "\x02\x02he\x80\x03llo", "\x82\x02he\x89\x00\x82\x01l", "\x82\x7e\x00\x02hi", "\x88\x02\x03\xe8",
		"\x82\x7f\x00\x00\x00\x00\x00\x00\x00\x02hi", "\x82\x00\x82\x01x", "\x88\x02\x03\xf3", "\x81\x01x", "\x82\x85\x01\x02\x03\x04hello",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		ours, oursErr := io.ReadAll(newTunnelConn(scripted{bytes.NewReader(wire)}))
		theirs, theirsErr := readByGorilla(t, wire)
		if !bytes.HasPrefix(ours, theirs) {
			t.Errorf("read %q; gorilla reads %q", ours, theirs)
		}
		if oursErr == nil && !websocket.IsCloseError(theirsErr, websocket.CloseNormalClosure, websocket.CloseGoingAway, websocket.CloseNoStatusReceived) {
			t.Errorf("read an end; gorilla reads %v", theirsErr)
		}
	})
}

// readByGorilla returns the contents of whole binary messages.
func readByGorilla(t *testing.T, wire []byte) ([]byte, error) {
	answer := &answering{wire: wire}
	d := websocket.Dialer{NetDial: func(string, string) (net.Conn, error) { return answer, nil }}
	ws, _, err := d.Dial("ws://pod/", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	var all []byte
	for {
		kind, b, err := ws.ReadMessage()
		if err == nil && kind != websocket.BinaryMessage {
			err = errors.New("not binary")
		}
		if err != nil {
			return all, err
		}
		all = append(all, b...)
	}
}

// An answering connection accepts a WebSocket, and then says what is in wire.
type answering struct {
	scripted
	wire []byte
}

func (a *answering) Write(p []byte) (int, error) {
	if a.Reader != nil {
		return len(p), nil
	}
	req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(p)))
	if err != nil {
		return 0, err
	}
	head := fmt.Sprintf("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		acceptKey(req.Header.Get("Sec-WebSocket-Key")))
	a.Reader = io.MultiReader(strings.NewReader(head), bytes.NewReader(a.wire))
	return len(p), nil
}

// A slowConn has one write wait until it is closed.
type slowConn struct {
	scripted
	writing, closed chan struct{}
}

func (c slowConn) Write(p []byte) (int, error) {
	c.writing <- struct{}{}
	<-c.closed
	return len(p), nil
}

// What is below is written to by one at a time.
func TestNoWriteDuringTheGoodbye(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn := slowConn{writing: make(chan struct{}, 2), closed: make(chan struct{})}
		c := newTunnelConn(conn)
		var running sync.WaitGroup
		defer running.Wait()
		defer close(conn.closed)
		running.Go(func() { c.Close() })
		<-conn.writing
		running.Go(func() {
			if _, err := c.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
				t.Errorf("write: %v; want %v", err, net.ErrClosed)
			}
		})
		synctest.Wait()
		if len(conn.writing) > 0 {
			t.Error("two write at the same time")
		}
	})
}
