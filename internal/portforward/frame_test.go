package portforward

import (
	"bytes"
	"io"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/spdystream/spdy"
)

// The public SPDY library, which is what the servers use, reads what we write.
func TestFramesAsTheServerReadsThem(t *testing.T) {
	var wire []byte
	wire = appendSynStream(wire, 1, flagFin, true, "streamtype", "error", "port", "8000", "requestid", "0")
	wire = appendSynStream(wire, 3, 0, false, "streamtype", "data", "port", "8000", "requestid", "0")
	wire = append(appendDataHeader(wire, 3, 0, 5), "hello"...)
	wire = appendDataHeader(wire, 3, flagFin, 0)
	wire = appendPing(wire, 7)
	// The header blocks of all streams are one zlib stream: a later one must
	// work too.
	wire = appendSynStream(wire, 5, flagFin, false, "streamtype", "error", "port", "65535", "requestid", "123456")

	framer, err := spdy.NewFramer(io.Discard, bytes.NewReader(wire))
	if err != nil {
		t.Fatal(err)
	}
	headers := func(kind, port, request string) http.Header {
		return http.Header{"Streamtype": {kind}, "Port": {port}, "Requestid": {request}}
	}
	want := []spdy.Frame{
		&spdy.SynStreamFrame{StreamId: 1, Headers: headers("error", "8000", "0")},
		&spdy.SynStreamFrame{StreamId: 3, Headers: headers("data", "8000", "0")},
		&spdy.DataFrame{StreamId: 3, Data: []byte("hello")},
		&spdy.DataFrame{StreamId: 3, Flags: spdy.DataFlagFin, Data: []byte{}},
		&spdy.PingFrame{Id: 7},
		&spdy.SynStreamFrame{StreamId: 5, Headers: headers("error", "65535", "123456")},
	}
	ignoreHeader := cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".CFHeader" }, cmp.Ignore())
	for i, w := range want {
		got, err := framer.ReadFrame()
		if err != nil {
			t.Fatalf("frame %d: %v", i, err)
		}
		if diff := cmp.Diff(w, got, ignoreHeader); diff != "" {
			t.Errorf("frame %d (-want +got):\n%s", i, diff)
		}
		if syn, ok := got.(*spdy.SynStreamFrame); ok {
			if fin := syn.CFHeader.Flags&spdy.ControlFlagFin != 0; fin != (syn.StreamId != 3) {
				t.Errorf("stream %d: fin = %v", syn.StreamId, fin)
			}
		}
	}
	if _, err := framer.ReadFrame(); err != io.EOF {
		t.Errorf("after the last frame: %v; want EOF", err)
	}
}

// Any header that parses describes a frame in one way only.
func FuzzParseFrameHeader(f *testing.F) {
	f.Add(appendPing(nil, 1)[:frameHeaderLen])
	f.Add(appendDataHeader(nil, 3, flagFin, 5))
	f.Add([]byte{0x80, 3, 0, 3, 0, 0, 0, 8}) // RST_STREAM
	f.Add([]byte{0x80, 2, 0, 1, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) != frameHeaderLen {
			return
		}
		h, err := parseFrameHeader(b)
		if err != nil {
			return
		}
		var again []byte
		if h.control {
			again = appendControlHeader(nil, h.kind, h.flags, h.length)
		} else {
			again = appendDataHeader(nil, h.stream, h.flags, h.length)
		}
		if !bytes.Equal(again, b) {
			t.Errorf("%x parses as %+v, which is written %x", b, h, again)
		}
	})
}
