package daemon_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/tunneld/tunneld/internal/await"
	"github.com/tunneld/tunneld/internal/kube"
	"github.com/tunneld/tunneld/internal/localapi"
	"github.com/tunneld/tunneld/internal/osdns"
	"github.com/tunneld/tunneld/internal/status"
)

// A system plays the helper and what resolves names.
type system struct {
	t         *testing.T
	mu        sync.Mutex // guards the following
	port      int        // at which something must listen wherever a name leads; 0: that is not looked at
	claimed   []osdns.Name
	trampled  bool
	fails     error
	hangs     bool
	told      []string // what was claimed and taken back, in this order
	addresses []netip.Addr
}

// hang waits for nothing if the helper is played to hang.
func (s *system) hang(ctx context.Context) error {
	s.mu.Lock()
	hangs := s.hangs
	s.mu.Unlock()
	if !hangs {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

func (s *system) Claim(ctx context.Context, server netip.AddrPort, names []osdns.Name, _ []string) (osdns.Outcome, error) {
	if err := s.hang(ctx); err != nil {
		return osdns.Outcome{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fails != nil {
		return osdns.Outcome{}, s.fails
	}
	s.replace(names, server)
	return osdns.Outcome{Rung: "played", Why: "this is a test"}, nil
}

func (s *system) Release(ctx context.Context) error {
	if err := s.hang(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.replace(nil, netip.AddrPort{})
	return s.fails
}

// replace looks whether each name that comes or goes is answered, unless all
// ends, and leads to where somebody listens.
func (s *system) replace(names []osdns.Name, server netip.AddrPort) {
	has := func(in []osdns.Name, name osdns.Name) bool {
		return slices.ContainsFunc(in, func(n osdns.Name) bool { return n.Name == name.Name })
	}
	for _, change := range []struct {
		sign     string
		from, to []osdns.Name
	}{{"+", s.claimed, names}, {"-", names, s.claimed}} {
		for _, n := range change.to {
			if has(change.from, n) || strings.HasPrefix(n.Name, "tunneld-") {
				continue
			}
			s.told = append(s.told, change.sign+n.Name)
			if s.port == 0 {
				continue
			}
			c, err := net.Dial("tcp", netip.AddrPortFrom(n.Addrs[0], uint16(s.port)).String())
			if err != nil {
				s.t.Errorf("%s%s: nobody listens there: %v", change.sign, n.Name, err)
			} else {
				c.Close()
			}
			if server.IsValid() && !answers(server, n.Name) {
				s.t.Errorf("%s%s: it is not answered", change.sign, n.Name)
			}
		}
	}
	s.claimed, s.trampled = names, false
}

func answers(server netip.AddrPort, name string) bool {
	r, err := dns.Exchange(new(dns.Msg).SetQuestion(name+".", dns.TypeA), server.String())
	return err == nil && len(r.Answer) == 1
}

func (s *system) lookup(_ context.Context, names ...string) (map[string][]netip.Addr, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := make(map[string][]netip.Addr)
	for _, n := range s.claimed {
		if slices.Contains(names, n.Name) && !s.trampled {
			found[n.Name] = n.Addrs
		}
	}
	return found, nil
}

func (s *system) Listen(context.Context, netip.AddrPort) (net.Listener, error) {
	return nil, errors.New("no port is needed here")
}

func (s *system) AddAddress(_ context.Context, addr netip.Addr) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addresses = append(s.addresses, addr)
	return nil
}

func (s *system) do(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

// has are the names that are claimed, but for the canary.
func (s *system) has() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for _, n := range s.claimed {
		if !strings.HasPrefix(n.Name, "tunneld-") {
			names = append(names, n.Name)
		}
	}
	return names
}

// newNamed is a harness whose daemon claims names, and the settings that it has.
func newNamed(t *testing.T, forwards ...string) (h *harness, settings string) {
	t.Helper()
	h = newHarness(t, kube.Timing{}, forwards...)
	h.stop()
	settings = "addresses: " + nextRange()
	h.configure(t, settings, forwards...)
	h.system = &system{t: t, port: 8000}
	h.start(t)
	return h, settings
}

const app = "name: a, target: service/task-api, ports: [8000], http: none"

func TestNamesComeAndGoWithTheirListeners(t *testing.T) {
	h, _ := newNamed(t, app)
	await.Until(t, "the names to be claimed", func() bool { return len(h.system.has()) == 3 })

	added, err := h.Add(t.Context(), localapi.AddRequest{
		Target: "service/task-api", Name: "b", Namespace: "task-api", Context: "demo", Kubeconfig: h.kubeconfig, Ports: []string{"8000"}, HTTP: "none",
	})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(h.system.has(), "b.local") || len(added.Forward.Unresolved) > 0 {
		t.Errorf("%v is claimed and %v does not resolve when add returns", h.system.has(), added.Forward.Unresolved)
	}
	if got := h.status(t).DNS; got.Rung != "played" || got.Why != "this is a test" || got.Hint != "" || got.Names != len(h.system.has()) {
		t.Errorf("%+v with %v claimed", got, h.system.has())
	}
	if err := h.Client.Remove(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	if slices.Contains(h.system.has(), "b.local") {
		t.Error("b.local is claimed when rm returns")
	}
	h.stop()
	if names := h.system.has(); len(names) > 0 {
		t.Errorf("%v are claimed after the end", names)
	}
}

func TestRestartTakesNoNameAway(t *testing.T) {
	h, _ := newNamed(t, app)
	await.Until(t, "the names to be claimed", func() bool { return len(h.system.has()) == 3 })
	claimed := h.system.claimed
	h.stop()
	h.system = &system{t: t, port: 8000, claimed: claimed} // as after a crash
	h.start(t)
	await.Until(t, "the canary to be claimed", func() bool {
		h.system.mu.Lock()
		defer h.system.mu.Unlock()
		return len(h.system.claimed) == 4 && !slices.ContainsFunc(h.system.claimed, func(n osdns.Name) bool { return n.Name == claimed[3].Name })
	})
	if len(h.system.told) > 0 {
		t.Errorf("%v at a restart", h.system.told)
	}
	h.stop()
}

func TestNamesThatDoNotResolve(t *testing.T) {
	h, settings := newNamed(t, app)
	await.Until(t, "the names to be claimed", func() bool { return len(h.system.has()) == 3 })
	h.system.do(func() { h.system.fails = errors.New("played to fail"); h.system.trampled = true })
	h.configure(t, settings, app, strings.Replace(app, "name: a", "name: b", 1))
	var f status.Forward
	await.Until(t, "a to be degraded", func() bool {
		f = h.status(t).Forwards[0]
		return f.State == status.Degraded && len(f.Unresolved) == 3
	})
	if want := "a.local does not resolve on this system: played to fail"; f.Cause != want || f.Hint != "tunnelctl doctor" || !slices.Contains(f.Unresolved, "a.local") {
		t.Errorf("%+v; want the cause %q", f, want)
	}
	if s := h.status(t).DNS; s.Problem != "played to fail" || s.Rung != "" || !strings.Contains(s.Hint, "cannot be made to ask") {
		t.Errorf("%+v", s)
	}
	h.system.do(func() { h.system.fails = nil })
	h.configure(t, settings, app)
	await.Until(t, "a to be mended", func() bool { f = h.status(t).Forwards[0]; return f.State != status.Degraded })
	if len(f.Unresolved) > 0 {
		t.Errorf("%v do not resolve", f.Unresolved)
	}
}

func TestHelperThatHangsHoldsUpNothingForLong(t *testing.T) {
	h, _ := newNamed(t, app)
	await.Until(t, "the names to be claimed", func() bool { return len(h.system.has()) == 3 })
	h.system.mu.Lock() // whoever asks waits
	began := time.Now()
	err := h.Client.Remove(t.Context(), "a")
	took := time.Since(began)
	h.system.port = 0
	h.system.mu.Unlock()
	if err != nil || took > 20*time.Second {
		t.Errorf("took %v: %v", took, err)
	}
}

// checked finds a check by its name.
func checked(t *testing.T, h *harness, name string) status.Check {
	t.Helper()
	checks, err := h.Doctor(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(checks, func(c status.Check) bool { return c.Name == name })
	if i < 0 {
		t.Fatalf("no check of %s in %+v", name, checks)
	}
	return checks[i]
}

func TestDoctorLooksAtNames(t *testing.T) {
	h, _ := newNamed(t, app)
	await.Until(t, "the names to be claimed", func() bool { return len(h.system.has()) == 3 })
	if c := checked(t, h, "dns"); c.Result != status.OK || !strings.HasPrefix(c.Evidence, "answers for 3 names on 127.0.0.1:") {
		t.Errorf("%+v", c)
	}
	if c := checked(t, h, "claim"); c.Result != status.OK || !strings.HasPrefix(c.Evidence, "by played: this is a test") {
		t.Errorf("%+v", c)
	}
	address := h.status(t).Forwards[0].Address
	if c := checked(t, h, "a.local"); c.Result != status.OK || !strings.HasPrefix(c.Evidence, address+" in ") || c.Fix != "" {
		t.Errorf("%+v; want it to be at %s", c, address)
	}
	h.system.do(func() { h.system.trampled = true })
	if c := checked(t, h, "a.local"); c.Result != status.Fail || !strings.HasPrefix(c.Evidence, "does not resolve") || c.Fix == "" {
		t.Errorf("%+v", c)
	}
}

func TestDoctorWithoutAHelper(t *testing.T) {
	h := newHarness(t, kube.Timing{}, app)
	c := checked(t, h, "claim")
	if c.Result != status.Warn || !strings.Contains(c.Evidence, "--helper none") {
		t.Errorf("%+v", c)
	}
}

func TestEndDoesNotWaitForAHelperThatHangs(t *testing.T) {
	h, settings := newNamed(t, app)
	await.Until(t, "the names to be claimed", func() bool { return len(h.system.has()) == 3 })
	h.system.do(func() { h.system.hangs = true })
	h.configure(t, settings, app, strings.Replace(app, "name: a", "name: b", 1))
	await.Until(t, "b to be there", func() bool { return len(h.status(t).Forwards) == 2 })
	h.system.do(func() { h.system.port = 0; h.system.claimed = nil })
	began := time.Now()
	h.hurry()
	h.stop()
	// A claim may take 15 s; the test is not of how busy the machine is.
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("took %v", took)
	}
}
