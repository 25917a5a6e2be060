package config

import (
	"fmt"
	"net/netip"
	"os"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/goccy/go-yaml/ast"

	"github.com/tunneld/tunneld/internal/forward"
)

// Parse reads a configuration. An empty text, or one of comments only, is
// [Default]. Otherwise its error is an [*Error]: the first problem in the order
// of the text.
func Parse(src []byte) (*Config, error) {
	s, err := scan(src)
	if err != nil {
		return nil, err
	}
	return s.decode()
}

// decode reads the tree.
func (s *source) decode() (*Config, error) {
	d := &decoder{source: s, c: Default()}
	if s.root != nil {
		d.document()
	}
	if len(d.errs) > 0 {
		return nil, slices.MinFunc(d.errs, func(a, b *Error) int {
			if a.Line != b.Line {
				return a.Line - b.Line
			}
			return a.Column - b.Column
		})
	}
	return d.c, nil
}

// A decoder collects problems as it goes: what is first in the text need not be
// found first.
type decoder struct {
	*source
	c    *Config
	errs []*Error
}

func (d *decoder) fail(off int, format string, args ...any) {
	d.errs = append(d.errs, d.errorf(off, format, args...))
}

// A field is a key of a mapping with its value.
type field struct {
	key  string
	at   int // where the key is
	node ast.Node
	pos  int // where the value is; where the key is if nothing is there
}

// fields reads a mapping that may hold the known keys. A key without a value,
// or with null, is as if it were left out. ok is false if n is no mapping or
// has keys that are not known.
func (d *decoder) fields(n ast.Node, at int, what string, known ...string) (fields map[string]field, ok bool) {
	fields = map[string]field{}
	m, isMap := n.(*ast.MappingNode)
	if !isMap {
		d.fail(at, "%s must be a mapping with %s, not %s", what, keys(known), kind(n))
		return fields, false
	}
	ok = true
	seen := map[string]int{}
	for _, v := range m.Values {
		f := field{key: v.Key.GetToken().Value, at: d.start(v.Key, at), node: v.Value}
		f.pos = d.start(v.Value, f.at)
		first, again := seen[f.key]
		switch {
		case again:
			d.fail(f.at, "the key %q is already in line %d", f.key, d.line(first)+1)
			continue
		case !slices.Contains(known, f.key):
			d.fail(f.at, "unknown key %q in %s%s", f.key, what, suggest(f.key, known))
			ok = false
		}
		seen[f.key] = f.at
		if _, null := v.Value.(*ast.NullNode); !null {
			fields[f.key] = f
		}
	}
	return fields, ok
}

// items reads a list.
func (d *decoder) items(f field, what, example string) []field {
	seq, ok := f.node.(*ast.SequenceNode)
	if !ok {
		d.fail(f.pos, "%s must be a list, such as %s, not %s", what, example, kind(f.node))
		return nil
	}
	var items []field
	for i, n := range seq.Values {
		pos := f.pos
		if dash, ok := d.spans[seq.Entries[i].Start]; ok {
			pos = dash.start
		}
		items = append(items, field{key: f.key, at: f.pos, node: n, pos: d.start(n, pos)})
	}
	return items
}

// text reads a text, with a hint for what looks like one but is not.
func (d *decoder) text(f field, what string) (string, bool) {
	switch n := f.node.(type) {
	case *ast.StringNode:
		if n.Value == "" {
			d.fail(f.pos, "%s is empty", what)
			return "", false
		}
		if strings.ContainsFunc(n.Value, unicode.IsControl) {
			d.fail(f.pos, "%s must not contain control characters", what)
			return "", false
		}
		return n.Value, true
	case *ast.BoolNode, *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		d.fail(f.pos, "%s must be text, and YAML reads this as %s: put it in quotes, %q", what, kind(n), n.GetToken().Value)
	default:
		d.fail(f.pos, "%s must be text, not %s", what, kind(n))
	}
	return "", false
}

// number reads a whole number, as people write them.
func (d *decoder) number(f field, what string, least, most uint64) (uint64, bool) {
	got := kind(f.node)
	switch n := f.node.(type) {
	case *ast.IntegerNode:
		got = n.GetToken().Value
		// YAML's versions disagree on what 010 is.
		if v, err := strconv.ParseUint(got, 10, 64); err == nil && v >= least && v <= most && strconv.FormatUint(v, 10) == got {
			return v, true
		}
	case *ast.StringNode:
		got = strconv.Quote(n.Value)
	}
	want := fmt.Sprintf("a number from %d to %d", least, most)
	if least == most {
		want = fmt.Sprintf("the number %d", least)
	}
	d.fail(f.pos, "%s must be %s, not %s", what, want, got)
	return 0, false
}

func (d *decoder) boolean(f field, what string) bool {
	n, ok := f.node.(*ast.BoolNode)
	if !ok {
		d.fail(f.pos, "%s must be true or false", what)
		return false
	}
	return n.Value
}

func (d *decoder) document() {
	at := d.start(d.root, 0)
	for _, v := range d.root.Values {
		// Whatever else a newer file says is not for this program to judge.
		if n, ok := v.Value.(*ast.IntegerNode); ok && v.Key.GetToken().Value == "version" {
			if version, err := strconv.ParseUint(n.GetToken().Value, 10, 64); err == nil && version > 1 {
				d.fail(d.start(n, at), "version %d of the configuration was written by a newer tunneld: this one reads version 1", version)
				return
			}
		}
	}
	fields, ok := d.fields(d.root, at, "the file",
		"version", "domain", "addresses", "dns", "gateway", "hold", "contexts", "access", "forwards")
	switch f, there := fields["version"]; {
	case there:
		d.number(f, "version", 1, 1)
	case ok:
		d.fail(at, "the version is missing: write `version: 1` in the first line")
	}
	if f, ok := fields["domain"]; ok {
		d.domain(f)
	}
	if f, ok := fields["addresses"]; ok {
		d.addresses(f)
	}
	if f, ok := fields["dns"]; ok {
		in, _ := d.fields(f.node, f.pos, "dns", "listen")
		if f, ok := in["listen"]; ok {
			d.listen(f)
		}
	}
	if f, ok := fields["gateway"]; ok {
		d.gateway(f)
	}
	if f, ok := fields["hold"]; ok {
		d.hold(f)
	}
	if f, ok := fields["contexts"]; ok {
		in, _ := d.fields(f.node, f.pos, "contexts", "deny")
		if f, ok := in["deny"]; ok {
			d.deny(f)
		}
	}
	if f, ok := fields["access"]; ok {
		d.access(f)
	}
	if f, ok := fields["forwards"]; ok {
		d.forwards(f)
	}
}

func (d *decoder) domain(f field) {
	s, ok := d.text(f, "domain")
	if !ok {
		return
	}
	if msg := checkDomain(s); msg != "" {
		d.fail(f.pos, "domain %q %s", s, msg)
		return
	}
	d.c.Domain = s
}

func (d *decoder) addresses(f field) {
	s, ok := d.text(f, "addresses")
	if !ok {
		return
	}
	p, err := netip.ParsePrefix(s)
	system := netip.MustParsePrefix("127.0.0.0/16")
	switch {
	case err != nil:
		d.fail(f.pos, "addresses %q is not an address range: write one such as 127.77.0.0/16", s)
	case !p.Addr().Is4() || !p.Addr().IsLoopback() || p.Bits() < 8:
		d.fail(f.pos, "addresses %s is not inside 127.0.0.0/8: only there every address is this machine's own", s)
	case p != p.Masked():
		d.fail(f.pos, "addresses %s has bits set after the first %d: write %s", s, p.Bits(), p.Masked())
	case p.Overlaps(system):
		d.fail(f.pos, "addresses %s overlaps %s, where the system has addresses of its own (127.0.0.1, 127.0.0.53, 127.0.1.1)", s, system)
	case p.Bits() > 28:
		d.fail(f.pos, "addresses %s is too small: it must be a /28 or larger", s)
	default:
		d.c.Addresses = p
	}
}

func (d *decoder) listen(f field) {
	s, ok := d.text(f, "dns.listen")
	if !ok {
		return
	}
	a, err := netip.ParseAddrPort(s)
	switch {
	case err != nil:
		d.fail(f.pos, "dns.listen %q is not ADDRESS:PORT: write one such as \"127.0.0.1:15353\"", s)
	case !a.Addr().IsLoopback() || a.Addr().Is4In6():
		d.fail(f.pos, "dns.listen %s is not a loopback address: use one of 127.0.0.0/8, or [::1]", s)
	default:
		d.c.DNS.Listen = a
	}
}

func (d *decoder) gateway(f field) {
	in, _ := d.fields(f.node, f.pos, "gateway", "http", "https")
	last := f.pos
	for _, p := range []struct {
		key string
		to  *uint16
	}{{"http", &d.c.Gateway.HTTP}, {"https", &d.c.Gateway.HTTPS}} {
		if f, ok := in[p.key]; ok {
			if n, ok := d.number(f, "gateway."+p.key, 0, 65535); ok {
				*p.to = uint16(n)
			}
			last = max(last, f.pos)
		}
	}
	if g := d.c.Gateway; g.HTTP == g.HTTPS && g.HTTP != 0 {
		d.fail(last, "gateway.http and gateway.https are both %d: they must differ", g.HTTP)
	}
}

func (d *decoder) hold(f field) {
	const want = `hold must be a duration from 0s to 10m, such as 30s`
	n, isText := f.node.(*ast.StringNode)
	if !isText {
		d.fail(f.pos, want+": a number needs a unit")
		return
	}
	hold, err := time.ParseDuration(n.Value)
	if err != nil || hold < 0 || hold > 10*time.Minute {
		d.fail(f.pos, want+", not %q", n.Value)
		return
	}
	d.c.Hold = hold
}

func (d *decoder) access(f field) {
	s, ok := d.text(f, "access")
	if !ok {
		return
	}
	switch a := Access(s); {
	case a != Everyone && a != Me:
		d.fail(f.pos, "access %q is not known: write %s or %s", s, Everyone, Me)
	case a == Me && runtime.GOOS != "linux":
		d.fail(f.pos, "access: %s takes Linux: this system does not tell whose a connection is", Me)
	default:
		d.c.Access = a
	}
}

func (d *decoder) deny(f field) {
	deny := []string{}
	for _, f := range d.items(f, "contexts.deny", `[prod, "prod-*"]`) {
		p, ok := d.text(f, "a pattern in contexts.deny")
		if !ok {
			continue
		}
		if _, err := path.Match(p, ""); err != nil {
			d.fail(f.pos, "the pattern %q in contexts.deny is malformed: *, ? and [a-z] are special, a backslash takes that away", p)
			continue
		}
		deny = append(deny, p)
	}
	d.c.Contexts.Deny = deny
}

func (d *decoder) forwards(f field) {
	named := map[string]int{}
	for _, f := range d.items(f, "forwards", "`- name: task-api`") {
		fwd, name := d.forward(f)
		if fwd.Name != "" {
			if first, taken := named[fwd.Name]; taken {
				d.fail(name, "two forwards are named %q, in line %d and in line %d", fwd.Name, d.line(first)+1, d.line(name)+1)
			} else {
				named[fwd.Name] = name
			}
		}
		d.c.Forwards = append(d.c.Forwards, fwd)
	}
}

// forward reads one entry, and tells where its name is.
func (d *decoder) forward(f field) (fwd Forward, name int) {
	in, ok := d.fields(f.node, f.pos, "a forward",
		"name", "target", "namespace", "context", "kubeconfig", "ports", "http", "allowProduction")
	required := func(key, example string) (string, int) {
		v, there := in[key]
		if !there && !ok {
			return "", f.pos // likely it is what is misspelt
		}
		if !there {
			d.fail(f.pos, "this forward has no %s: add one, such as `%s: %s`", key, key, example)
			return "", f.pos
		}
		s, _ := d.text(v, key)
		return s, v.pos
	}
	fwd.Name, name = required("name", "task-api")
	if fwd.Name != "" {
		if msg := CheckName(fwd.Name); msg != "" {
			d.fail(name, "name %q %s", fwd.Name, msg)
			fwd.Name = ""
		}
	}
	w := &fwd.Workload
	ref, pos := required("target", "service/task-api")
	if ref != "" {
		var err error
		if w.Kind, w.Name, err = forward.ParseRef(ref); err != nil {
			d.fail(pos, "target: %v", err)
		} else if !isSubdomain(w.Name) {
			d.fail(pos, "target: %q cannot be the name of a %s: lower-case letters, digits, hyphens and dots can", w.Name, w.Kind)
		}
	}
	if w.Namespace, pos = required("namespace", "default"); w.Namespace != "" && !isLabel(w.Namespace) {
		d.fail(pos, "namespace %q must be lower-case letters, digits and hyphens, at most 63, with no hyphen first or last", w.Namespace)
	}
	w.Context, _ = required("context", "lab")
	if f, ok := in["kubeconfig"]; ok {
		if s, ok := d.text(f, "kubeconfig"); ok {
			expanded, msg := expandPaths(s, os.UserHomeDir)
			if msg != "" {
				d.fail(f.pos, "kubeconfig: %s", msg)
			}
			w.Kubeconfig = expanded
		}
	}
	problems := len(d.errs)
	if f, ok := in["ports"]; ok {
		fwd.Ports = d.ports(f)
	}
	if f, ok := in["http"]; ok {
		fwd.HTTP = d.http(f)
		if len(d.errs) == problems && !fwd.HTTP.in(fwd.Ports) {
			d.fail(f.pos, "http is %s, which is not in ports: add it there", fwd.HTTP.port().ref())
		}
	}
	if f, ok := in["allowProduction"]; ok {
		fwd.AllowProduction = d.boolean(f, "allowProduction")
	}
	return fwd, name
}

func (d *decoder) ports(f field) []Port {
	items := d.items(f, "ports", "[8000]")
	if seq, ok := f.node.(*ast.SequenceNode); ok && len(seq.Values) == 0 {
		d.fail(f.pos, "ports is empty: leave it out to carry all TCP ports")
	}
	var ports []Port
	for _, f := range items {
		var p Port
		at, value := f.pos, f
		if _, isMap := f.node.(*ast.MappingNode); isMap {
			in, ok := d.fields(f.node, f.pos, "a port", "port", "tls")
			if f, ok := in["tls"]; ok {
				p.TLS = d.boolean(f, "tls")
			}
			var there bool
			if value, there = in["port"]; !there {
				if ok {
					d.fail(at, "this port has no number or name: write it as {port: 5432, tls: true}")
				}
				continue
			}
		}
		var ok bool
		if p.Number, p.Name, ok = d.port(value, "a port"); !ok {
			continue
		}
		if slices.ContainsFunc(ports, p.same) {
			d.fail(value.pos, "port %s is in ports twice", p.ref())
			continue
		}
		ports = append(ports, p)
	}
	return ports
}

// port reads a port's number or name.
func (d *decoder) port(f field, what string) (number uint16, name string, ok bool) {
	switch n := f.node.(type) {
	case *ast.IntegerNode:
		v, ok := d.number(f, what, 1, 65535)
		return uint16(v), "", ok
	case *ast.StringNode:
		if _, err := strconv.ParseUint(n.Value, 10, 64); err == nil {
			d.fail(f.pos, "%s in quotes is a name, and %q is none: write the number without them", what, n.Value)
			return 0, "", false
		}
		if msg := CheckPortName(n.Value); msg != "" {
			d.fail(f.pos, "%s %s, not %q", what, msg, n.Value)
			return 0, "", false
		}
		return 0, n.Value, true
	}
	d.fail(f.pos, "%s must be a number from 1 to 65535 or a port's name, not %s", what, kind(f.node))
	return 0, "", false
}

func (d *decoder) http(f field) HTTP {
	if n, isText := f.node.(*ast.StringNode); isText && n.Value == "none" {
		return HTTP{Off: true}
	}
	number, name, _ := d.port(f, "http")
	return HTTP{Number: number, Name: name}
}

// ref is how the port is called.
func (p Port) ref() string {
	if p.Number != 0 {
		return strconv.Itoa(int(p.Number))
	}
	return p.Name
}

// same reports whether p and q are called the same.
func (p Port) same(q Port) bool { return p.Number == q.Number && p.Name == q.Name }

// port is the port that h names; the zero Port if it names none.
func (h HTTP) port() Port { return Port{Number: h.Number, Name: h.Name} }

// in reports whether h names none but the given ports, of which none means any.
func (h HTTP) in(ports []Port) bool {
	return len(ports) == 0 || h.port() == Port{} || slices.ContainsFunc(ports, h.port().same)
}
