package daemon

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tunneld/tunneld/internal/claim"
	"github.com/tunneld/tunneld/internal/rootapi"
)

// A porter plays a helper that adds no address.
type porter struct {
	claim.Helper
	err   error // nil: it does not answer
	asked int
}

func (p *porter) Listen(ctx context.Context, _ netip.AddrPort) (net.Listener, error) {
	return nil, p.AddAddress(ctx, netip.Addr{})
}

func (p *porter) AddAddress(ctx context.Context, _ netip.Addr) error {
	p.asked++
	if p.err != nil {
		return p.err
	}
	<-ctx.Done()
	return ctx.Err()
}

func low(i byte) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 77, 0, i}), 80)
}

// notAllowed plays a system on which a user may not listen on a port.
func notAllowed(at netip.AddrPort) (net.Listener, error) {
	return nil, &net.OpError{Op: "listen", Net: "tcp", Addr: net.TCPAddrFromAddrPort(at), Err: syscall.EACCES}
}

// nowhere plays one that does not have the address.
func nowhere(at netip.AddrPort) (net.Listener, error) {
	return nil, &net.OpError{Op: "listen", Net: "tcp", Addr: net.TCPAddrFromAddrPort(at), Err: syscall.EADDRNOTAVAIL}
}

func TestHelperThatDoesNotAnswerIsNotAskedForEachPort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := new(porter)
		b := binder{helper: p, listen: notAllowed}
		began := time.Now()
		for i := range byte(100) {
			_, err := b.bind(low(i))
			if !errors.Is(err, syscall.EACCES) || !strings.Contains(err.Error(), "tunneld-helper has not answered for 2s") {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took > bindTimeout {
			t.Errorf("100 ports took %v", took)
		}
		time.Sleep(bindAgain)
		b.bind(low(0))
		if p.asked != 2 {
			t.Errorf("asked %d times; want it to be asked again", p.asked)
		}
	})
}

func TestHelperIsNotAskedOnAndOn(t *testing.T) {
	tests := []struct {
		name string
		err  error
		asks int // for two ports, each tried 30 times in a minute
		says string
	}{
		{"it cannot", errors.New("the port is taken"), 2, "the port is taken"},
		{"it is not there", rootapi.ErrNotInstalled, 60, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &porter{err: tt.err}
				b := binder{helper: p, listen: nowhere}
				for range 30 {
					for i := range byte(2) {
						_, err := b.bind(low(i))
						if err == nil || tt.says == "" && strings.Contains(err.Error(), "helper") || !strings.Contains(err.Error(), tt.says) {
							t.Fatal(err)
						}
					}
					time.Sleep(2 * time.Second)
				}
				if p.asked != tt.asks {
					t.Errorf("asked %d times; want %d", p.asked, tt.asks)
				}
				b.bind(low(0))
				if p.asked != tt.asks+1 {
					t.Error("not asked again after a while")
				}
			})
		})
	}
}

func TestPortThatIsTakenIsNoMatterOfTheHelper(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := &porter{err: os.ErrPermission}
	if _, err := (&binder{helper: p}).bind(netip.MustParseAddrPort(l.Addr().String())); err == nil || p.asked > 0 {
		t.Errorf("%v, asked %d times", err, p.asked)
	}
}
