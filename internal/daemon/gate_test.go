package daemon

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"github.com/tunneld/tunneld/internal/sockdiag"
)

func TestGate(t *testing.T) {
	const me = 1000
	tests := []struct {
		name string
		open bool
		peer sockdiag.Peer
		err  error
		in   bool
		told string // at Warn
	}{
		{name: "everyone", open: true, peer: sockdiag.Peer{UID: me + 1, Owned: true}, in: true},
		{name: "me", peer: sockdiag.Peer{UID: me, Owned: true}, in: true},
		{name: "root", peer: sockdiag.Peer{UID: 0, Owned: true}, in: true},
		{name: "another user", peer: sockdiag.Peer{UID: me + 1, Owned: true}, told: "refused a connection of user 1001"},
		{name: "nobody any more", peer: sockdiag.Peer{UID: 0}, told: "nobody knows whom"},
		{name: "not known", err: sockdiag.ErrUnknown, told: "nobody knows whom"},
		{name: "cannot be asked", err: errors.New("no netlink"), told: "nobody is let in"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var log bytes.Buffer
			g := &gate{
				onlyMe: func() bool { return !tt.open },
				me:     me,
				peer:   func(*net.TCPConn) (sockdiag.Peer, error) { return tt.peer, tt.err },
				log:    slog.New(slog.NewTextHandler(&log, nil)),
			}
			b := &binder{gate: g}
			l, err := b.bind(netip.MustParseAddrPort("127.0.0.1:0"))
			if err != nil {
				t.Fatal(err)
			}
			accepted := make(chan net.Conn)
			go func() {
				defer close(accepted)
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					accepted <- c
				}
			}()
			end := func() {
				l.Close()
				for c := range accepted {
					c.Close()
				}
			}
			defer end()
			for range 2 {
				client, err := net.Dial("tcp", l.Addr().String())
				if errors.Is(err, syscall.ECONNRESET) && !tt.in {
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				defer client.Close()
				if tt.in {
					c := <-accepted
					if _, err := c.Write([]byte("x")); err != nil {
						t.Error(err)
					}
					c.Close()
				}
				if data, err := io.ReadAll(client); (err == nil) != tt.in || tt.in != (string(data) == "x") {
					t.Errorf("got %q, %v; let in: %v", data, err, tt.in)
				}
			}
			end()
			if got := log.String(); strings.Count(got, "\n") != min(len(tt.told), 1) || !strings.Contains(got, tt.told) {
				t.Errorf("log: %q; want %q once", got, tt.told)
			}
		})
	}
}
