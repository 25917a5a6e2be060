package gateway

import (
	"cmp"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/tunneld/tunneld/internal/forward"
	"github.com/tunneld/tunneld/internal/status"
)

// A PathKind says how Row.Path matches.
type PathKind int

const (
	// Prefix matches whole path elements: /a matches /a and /a/b, not /ab.
	Prefix PathKind = iota
	// Exact matches the path only.
	Exact
)

// A Field is a header or query parameter that a request must have.
type Field struct {
	Name, Value string
}

// A Backend takes a share of a row's requests.
type Backend struct {
	Target forward.Target
	// Weight is the share relative to the row's other back ends; a single back
	// end takes all, whatever its weight.
	Weight int
}

// A Row routes requests. Empty fields match everything. A Row is not changed
// after it was put into a Table.
type Row struct {
	// Forward is the name of the forward that the row belongs to.
	Forward string
	// Hosts are names in lower case, IP literals, or "*.NAME" for all names
	// below NAME at any depth, as in Gateway API.
	Hosts []string
	// Scope limits the row to the listeners on that address. Every row is also
	// served by listeners on 127.0.0.1 and ::1, under its names.
	Scope netip.Addr

	PathKind PathKind
	Path     string
	Method   string
	Headers  []Field
	Query    []Field

	Backends []Backend
	// Problem, if it has a state, is why the back ends cannot be what was
	// wanted; then no request goes to them.
	Problem status.Condition
	// Hold is how long a request waits for a pod.
	Hold time.Duration
}

// A Table finds the row for a request. It is immutable. The zero value and nil
// are empty.
type Table struct {
	rows  []*Row            // in the order of precedence
	hosts map[string][]*Row // by exact host, in that order
	below map[string][]*Row // by NAME of "*.NAME", in that order
}

// NewTable sorts the rows by the precedence of HTTPRoute: the most specific
// host, then the exact path, the longest path prefix, a method, the most
// headers, the most query parameters, and then the order given.
func NewTable(rows []*Row) *Table {
	t := &Table{
		rows:  slices.Clone(rows),
		hosts: make(map[string][]*Row),
		below: make(map[string][]*Row),
	}
	slices.SortStableFunc(t.rows, compare)
	for _, r := range t.rows {
		for _, host := range r.Hosts {
			if name, ok := strings.CutPrefix(host, "*."); ok {
				t.below[name] = append(t.below[name], r)
			} else {
				t.hosts[host] = append(t.hosts[host], r)
			}
		}
	}
	return t
}

// compare orders rows of equal hosts.
func compare(a, b *Row) int {
	return cmp.Or(
		cmp.Compare(b.PathKind, a.PathKind),
		cmp.Compare(len(strings.TrimSuffix(b.Path, "/")), len(strings.TrimSuffix(a.Path, "/"))),
		cmp.Compare(min(len(b.Method), 1), min(len(a.Method), 1)),
		cmp.Compare(len(b.Headers), len(a.Headers)),
		cmp.Compare(len(b.Query), len(a.Query)),
	)
}

// Find returns the row for a request to host, as it arrived at the local
// address. known reports whether any row has that host there: if none has, the
// request was sent to the wrong server.
func (t *Table) Find(at netip.Addr, host string, r *http.Request) (row *Row, known bool) {
	var query url.Values
	for candidates := range t.candidates(host) {
		for _, c := range candidates {
			if !c.servedAt(at) {
				continue
			}
			known = true
			if query == nil && len(c.Query) > 0 {
				query = r.URL.Query()
			}
			if c.matches(r, query) {
				return c, true
			}
		}
	}
	return nil, known
}

// Serves reports whether any row has that host at the local address.
func (t *Table) Serves(at netip.Addr, host string) bool {
	for candidates := range t.candidates(host) {
		if slices.ContainsFunc(candidates, func(r *Row) bool { return r.servedAt(at) }) {
			return true
		}
	}
	return false
}

// has reports whether any row is the forward's.
func (t *Table) has(forward string) bool {
	return t != nil && slices.ContainsFunc(t.rows, func(r *Row) bool { return r.Forward == forward })
}

// candidates yields the rows whose host matches, the most specific host first.
func (t *Table) candidates(host string) func(yield func([]*Row) bool) {
	return func(yield func([]*Row) bool) {
		if t == nil {
			return
		}
		if rows := t.hosts[host]; len(rows) > 0 && !yield(rows) {
			return
		}
		if _, err := netip.ParseAddr(host); err == nil {
			return
		}
		for name := host; ; {
			_, parent, ok := strings.Cut(name, ".")
			if !ok {
				return
			}
			if rows := t.below[parent]; len(rows) > 0 && !yield(rows) {
				return
			}
			name = parent
		}
	}
}

func (r *Row) servedAt(at netip.Addr) bool { return r.Scope == at || shared(at) }

// shared reports whether listeners on the address are for all rows.
func shared(at netip.Addr) bool {
	return at == netip.AddrFrom4([4]byte{127, 0, 0, 1}) || at == netip.IPv6Loopback()
}

func (r *Row) matches(req *http.Request, query url.Values) bool {
	if r.Method != "" && r.Method != req.Method || !r.matchesPath(req.URL.Path) {
		return false
	}
	for _, h := range r.Headers {
		if !slices.Contains(req.Header.Values(h.Name), h.Value) {
			return false
		}
	}
	for _, q := range r.Query {
		if query.Get(q.Name) != q.Value {
			return false
		}
	}
	return true
}

func (r *Row) matchesPath(path string) bool {
	if r.PathKind == Exact {
		return path == r.Path
	}
	prefix := strings.TrimSuffix(r.Path, "/")
	rest, ok := strings.CutPrefix(path, prefix)
	return ok && (rest == "" || rest[0] == '/')
}

// target draws a back end by weight. A row whose weights are all 0 has none.
func (r *Row) target() (forward.Target, bool) {
	if len(r.Backends) == 1 {
		return r.Backends[0].Target, true
	}
	total := 0
	for _, b := range r.Backends {
		total += b.Weight
	}
	if total <= 0 {
		return forward.Target{}, false
	}
	n := rand.IntN(total)
	i := slices.IndexFunc(r.Backends, func(b Backend) bool {
		n -= b.Weight
		return n < 0
	})
	return r.Backends[i].Target, true
}

// hostname is the host of a Host header, in lower case, without port, brackets
// or trailing dot.
func hostname(hostport string) string {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = strings.TrimSuffix(strings.TrimPrefix(hostport, "["), "]")
	}
	return strings.TrimSuffix(strings.ToLower(host), ".")
}
