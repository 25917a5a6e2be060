package daemon

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tunneld/tunneld/internal/claim"
	"github.com/tunneld/tunneld/internal/osdns"
	"github.com/tunneld/tunneld/internal/status"
)

func TestWhatIsToldOfNames(t *testing.T) {
	by := func(rung string) claim.Report {
		return claim.Report{Asked: true, Installed: true, Outcome: osdns.Outcome{Rung: rung, Wildcards: true}}
	}
	with := func(r claim.Report, change func(*claim.Report)) claim.Report {
		change(&r)
		return r
	}
	right, wrong := claim.Resolution{Right: true}, claim.Resolution{}
	elsewhere := claim.Resolution{Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}
	looked := func(a, b claim.Resolution) func(*claim.Report) {
		return func(r *claim.Report) { r.Names = map[string]claim.Resolution{"a.local": a, "b.local": b} }
	}
	degraded := func(cause string) status.Condition {
		return status.Condition{State: status.Degraded, Cause: cause, Hint: "tunnelctl doctor"}
	}
	ready := status.Condition{State: status.Ready}
	offline := status.Condition{State: status.Offline, Cause: "no answer"}
	tests := []struct {
		name       string
		r          claim.Report
		was, want  status.Condition
		unresolved []string
		notes      []string
	}{
		{name: "nothing is known", was: ready, want: ready},
		{name: "never claimed", r: with(claim.Report{Asked: true}, looked(wrong, right)), was: ready, want: ready, unresolved: []string{"a.local"}},
		{name: "all resolve", r: with(by("hosts"), looked(right, right)), was: ready, want: ready},
		{name: "not looked up yet", r: by("hosts"), was: ready, want: ready},
		{
			name: "one does not", r: with(by("hosts"), looked(right, wrong)), was: ready,
			want: degraded("b.local does not resolve on this system"), unresolved: []string{"b.local"},
		},
		{
			name: "one leads elsewhere", r: with(by("hosts"), looked(elsewhere, wrong)), was: ready,
			want: degraded("a.local leads to 192.0.2.1 on this system"), unresolved: []string{"a.local", "b.local"},
		},
		{name: "worse is told first", r: with(by("hosts"), looked(wrong, right)), was: offline, want: offline, unresolved: []string{"a.local"}},
		{
			name: "the helper fails", r: with(claim.Report{Asked: true, Installed: true, Problem: "no way"}, looked(wrong, wrong)), was: ready,
			want: degraded("a.local does not resolve on this system: no way"), unresolved: []string{"a.local", "b.local"},
		},
		{
			name: "the helper fails, but all resolve even so", r: with(claim.Report{Asked: true, Installed: true, Problem: "no way"}, looked(right, right)), was: ready,
			want: ready,
		},
		{
			name: "one is refused", r: with(by("hosts"), func(r *claim.Report) { r.Refused = map[string]string{"a.local": "it is the machine's own"} }),
			was: ready, want: ready, unresolved: []string{"a.local"}, notes: []string{"a.local is not claimed: it is the machine's own"},
		},
		{
			name: "no wildcards", r: with(by("hosts"), func(r *claim.Report) { r.Outcome.Wildcards = false }), was: ready, want: ready,
			notes: []string{"names below a.local do not resolve, since hosts carries no wildcards"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := status.Forward{Hostnames: []string{"a.local", "b.local"}, Condition: tt.was}
			tellOf(tt.r, &s, "a.local")
			want := status.Forward{Hostnames: s.Hostnames, Condition: tt.want, Unresolved: tt.unresolved, Notes: tt.notes}
			if diff := cmp.Diff(want, s); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
