package daemon

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/claim"
	"github.com/tunneld/tunneld/internal/dns"
)

func TestKeepAsksForNothingWhereNothingGoes(t *testing.T) {
	a, b := dns.Name{Name: "a.local"}, dns.Name{Name: "b.local"}
	moved := dns.Name{Name: "a.local", Addrs: []netip.Addr{netip.MustParseAddr("127.0.0.9")}}
	tests := []struct {
		name      string
		now, kept []dns.Name
		asks      bool
	}{
		{"at the start", nil, nil, false},
		{"all stay", []dns.Name{a, b}, []dns.Name{b, a}, false},
		{"one goes", []dns.Name{a, b}, []dns.Name{a}, true},
		{"all go", []dns.Name{a, b}, nil, true},
		{"one moves", []dns.Name{a}, []dns.Name{moved}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := &names{server: new(dns.Server), claimant: new(claim.Claimant), now: tt.now}
			n.keep(tt.kept)
			// What is set stays undone, since nobody runs the claimant.
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			defer cancel()
			n.claimant.Applied(ctx)
			if asks := ctx.Err() != nil; asks != tt.asks {
				t.Errorf("asked for a change: %v; want %v", asks, tt.asks)
			}
		})
	}
}
