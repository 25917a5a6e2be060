package node

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/spdystream/spdy"
)

type control struct {
	Kind uint16
	ID   uint32
}

// frames writes a few frames as spdystream does.
func frames(t testing.TB, frames ...spdy.Frame) []byte {
	t.Helper()
	var b bytes.Buffer
	f, err := spdy.NewFramer(&b, &b)
	if err != nil {
		t.Fatal(err)
	}
	for _, frame := range frames {
		if err := f.WriteFrame(frame); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func syn(id spdy.StreamId) spdy.Frame {
	return &spdy.SynStreamFrame{StreamId: id, Headers: http.Header{"Port": {"8000"}}}
}

// parse reads b in chunks of that size.
func parse(b []byte, size int) []control {
	var p parser
	var found []control
	for len(b) > 0 {
		n := min(size, len(b))
		for at := 0; at < n; {
			used, kind, id := p.next(b[at:n])
			at += used
			if kind != 0 {
				found = append(found, control{kind, id})
			}
		}
		b = b[n:]
	}
	return found
}

func TestParser(t *testing.T) {
	stream := frames(t,
		syn(1), syn(3),
		&spdy.DataFrame{StreamId: 3, Data: []byte("some data")},
		&spdy.DataFrame{StreamId: 3, Flags: spdy.DataFlagFin},
		&spdy.PingFrame{Id: 7},
		&spdy.SynReplyFrame{StreamId: 5, Headers: http.Header{}},
		&spdy.RstStreamFrame{StreamId: 3, Status: spdy.Cancel},
		&spdy.GoAwayFrame{LastGoodStreamId: 9})
	want := []control{{synStream, 1}, {synStream, 3}, {6, 7}, {synReply, 5}, {rstStream, 3}, {goAway, 9}}
	for size := 1; size <= len(stream); size++ {
		if diff := cmp.Diff(want, parse(stream, size)); diff != "" {
			t.Fatalf("in chunks of %d (-want +got):\n%s", size, diff)
		}
	}
}

// Whatever comes, it is all used, and found alike however it is cut.
func FuzzParser(f *testing.F) {
	f.Add(frames(f, syn(1), &spdy.DataFrame{StreamId: 1, Data: []byte("x")}), 3)
	f.Add([]byte{0x80, 3, 0, 1, 0, 0, 0, 0, 0x80, 3, 0, 3, 0, 0, 0, 2, 1, 2}, 1)
	f.Fuzz(func(t *testing.T, b []byte, size int) {
		if size < 1 {
			return
		}
		if diff := cmp.Diff(parse(b, len(b)), parse(b, size)); diff != "" {
			t.Errorf("in chunks of %d:\n%s", size, diff)
		}
	})
}

// The end comes when all streams have been replied to, and until then writing
// succeeds.
func TestSettlingConn(t *testing.T) {
	tests := []struct {
		name  string
		reply bool
		after time.Duration
	}{
		{"replied", true, settlePause},
		{"never replied", false, settleLimit + settlePause},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, server := net.Pipe()
				died := false
				c := newSettlingConn(server, func() { died = true })
				go func() {
					client.Write(frames(t, syn(1)))
					client.Close()
				}()
				begin := time.Now()
				ended := make(chan error)
				go func() {
					_, err := io.Copy(io.Discard, c)
					ended <- err
				}()
				synctest.Wait()
				if !died {
					t.Error("nobody was told")
				}
				if tt.reply {
					if _, err := c.Write(frames(t, &spdy.SynReplyFrame{StreamId: 1, Headers: http.Header{}})); err != nil {
						t.Errorf("a reply failed: %v", err)
					}
				}
				if err := <-ended; err != nil && !errors.Is(err, io.ErrClosedPipe) {
					t.Error(err)
				}
				if d := time.Since(begin); d != tt.after {
					t.Errorf("ended after %v; want %v", d, tt.after)
				}
				if _, err := c.Write(frames(t, &spdy.SynReplyFrame{StreamId: 3, Headers: http.Header{}})); err != nil {
					t.Errorf("a late reply failed: %v", err)
				}
			})
		})
	}
}

// After GOAWAY the server reads no more, so that is held back as well.
func TestSettlingConnGoAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		defer client.Close()
		c := newSettlingConn(server, func() {})
		sent := frames(t, syn(1), &spdy.GoAwayFrame{})
		go client.Write(sent)
		b := make([]byte, 4096)
		var got []byte
		begin := time.Now()
		for len(got) < len(sent) {
			n, err := c.Read(b)
			if err != nil {
				t.Fatal(err)
			}
			if got = append(got, b[:n]...); len(got) == len(sent) && time.Since(begin) < settleLimit {
				t.Error("GOAWAY came before the stream was replied to")
			}
		}
		if !bytes.Equal(got, sent) {
			t.Error("what was read differs from what was sent")
		}
	})
}

// A SPDY server reads from the reader that an upgrade hands out with the
// connection, so the end is held back there as well, and what the client sent
// early is seen.
func TestHijackSettles(t *testing.T) {
	s := &session{
		node:    &Node{sessions: map[*session]struct{}{}},
		Upgrade: Upgrade{Protocol: "SPDY"}, dying: make(chan struct{}),
	}
	type end struct {
		got  string
		told bool
	}
	ended := make(chan end, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s.ResponseWriter = w
		conn, rw, err := s.Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		got, _ := io.ReadAll(rw)
		select {
		case <-s.dying:
			ended <- end{string(got), true}
		default:
			ended <- end{string(got), false}
		}
	}))
	defer server.Close()
	client, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(client, "POST / HTTP/1.1\r\nHost: node\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\nearly")
	client.Close()
	if got := <-ended; got != (end{"early", true}) {
		t.Errorf("read %q, and was told of the end: %v; want \"early\", true", got.got, got.told)
	}
}
