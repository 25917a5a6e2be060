package osdns

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"reflect"
	"slices"
	"strings"

	"github.com/tunneld/tunneld/internal/osdns/machine"
)

// Windows' name resolution policy table says which servers are asked for which
// names: [MS-GPNRPT]. The rules of this machine are keys below nrptRules, named by
// GUIDs. Where group policy has a table, were it empty, these are not looked at.
const (
	nrptRules  = `SYSTEM\CurrentControlSet\Services\Dnscache\Parameters\DnsPolicyConfig`
	nrptPolicy = `SOFTWARE\Policies\Microsoft\Windows NT\DNSClient\DnsPolicyConfig`
)

// An nrpt rung has a rule for each name. Rules have no place for a port.
type nrpt struct {
	sys   machine.System
	rules container
	log   *slog.Logger
}

// newNRPT returns the rung; note is the file in which it is kept that the key of
// all rules is ours.
func newNRPT(sys machine.System, note string, log *slog.Logger) *nrpt {
	return &nrpt{
		sys: sys,
		log: log,
		rules: container{
			sys:  sys,
			name: `HKEY_LOCAL_MACHINE\` + nrptRules,
			note: note,
			list: func() (int, error) {
				keys, err := sys.Registry.Keys(nrptRules)
				if err != nil {
					return 0, err
				}
				values, err := sys.Registry.Values(nrptRules)
				return len(keys) + len(values), err
			},
			make:   func() error { return sys.Registry.MakeKey(nrptRules) },
			remove: func() error { return sys.Registry.RemoveKey(nrptRules) },
		},
	}
}

func (r *nrpt) name() string    { return "nrpt" }
func (r *nrpt) wildcards() bool { return true }

func (r *nrpt) fits(_ context.Context, c Claim) (why string, ok bool) {
	if port := c.Server.Port(); port != 53 {
		return fmt.Sprintf("the name resolution policy table knows no ports, and ours is %d and not 53", port), false
	}
	switch _, err := r.sys.Registry.Keys(nrptPolicy); {
	case err == nil:
		return "group policy has a name resolution policy table, and Windows looks at no other", false
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Sprintf("the name resolution policy table of group policy cannot be read: %v", err), false
	}
	return "Windows has a name resolution policy table", true
}

func (r *nrpt) apply(ctx context.Context, c Claim) error {
	want := make(map[string]nrptRule, len(c.Names))
	for _, n := range c.Names {
		want[nrptKey(c.Owner, n.Name)] = newNRPTRule(c, n)
	}
	ours, others, err := r.list(c.Owner)
	if err != nil {
		return err
	}
	for _, n := range c.Names {
		if others[n.Name] {
			return fmt.Errorf("somebody else has a rule for %s", n.Name)
		}
	}
	changed := false
	defer func() {
		if changed {
			flushWindows(ctx, r.sys, r.log)
		}
	}()
	// A rule that is not as it should be is made anew: none is ever half the old
	// one.
	for key, have := range ours {
		if rule, ok := want[key]; ok && rule.is(have) {
			delete(want, key)
			continue
		}
		changed = true
		if err := r.sys.Registry.RemoveKey(nrptRules + `\` + key); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if len(want) > 0 {
		if err := r.rules.ensure(); err != nil {
			return err
		}
	}
	for key, rule := range want {
		changed = true
		if err := rule.write(r.sys.Registry, nrptRules+`\`+key); err != nil {
			return err
		}
	}
	if len(c.Names) == 0 {
		return r.rules.drop()
	}
	return nil
}

func (r *nrpt) remove(ctx context.Context, owner string) error {
	return r.apply(ctx, Claim{Owner: owner})
}

// list returns the owner's rules, and the names for which others have one.
func (r *nrpt) list(owner string) (ours map[string]map[string]any, others map[string]bool, err error) {
	keys, err := r.sys.Registry.Keys(nrptRules)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	} else if err != nil {
		return nil, nil, err
	}
	ours, others = make(map[string]map[string]any), make(map[string]bool)
	for _, key := range keys {
		values, err := r.sys.Registry.Values(nrptRules + `\` + key)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return nil, nil, err
		}
		// The registry keeps the case of keys, and does not tell them apart by it.
		key = strings.ToUpper(key)
		// By its GUID a rule is found whose maker was stopped before he could
		// mark it; by its mark, one that somebody has moved.
		if strings.HasPrefix(key, nrptKeyPrefix(owner)) || values["Comment"] == nrptMark(owner) {
			ours[key] = values
			continue
		}
		names, _ := values["Name"].([]string)
		for _, name := range names {
			others[strings.ToLower(strings.TrimPrefix(name, "."))] = true
		}
	}
	return ours, others, nil
}

// An nrptRule is a rule's values.
type nrptRule struct {
	mark, display, server string
	names                 []string
}

func newNRPTRule(c Claim, n Name) nrptRule {
	r := nrptRule{
		mark:    nrptMark(c.Owner),
		display: "tunneld: " + n.Name,
		server:  c.Server.Addr().String(),
		names:   []string{n.Name},
	}
	if n.Wildcard {
		r.names = append(r.names, "."+n.Name) // all that is below it
	}
	return r
}

type nrptValue struct {
	name  string
	value any
}

// values are the rule's in the order in which they are written: the mark first,
// the names for which it holds last.
func (r nrptRule) values() []nrptValue {
	return []nrptValue{
		{"Comment", r.mark},
		{"DisplayName", r.display},
		{"Version", uint32(2)},       // as Add-DnsClientNrptRule has it
		{"ConfigOptions", uint32(8)}, // only GenericDNSServers is set
		{"GenericDNSServers", r.server},
		{"Name", r.names},
	}
}

// is reports whether a rule is this one. Values that it does not have do not count.
func (r nrptRule) is(have map[string]any) bool {
	return !slices.ContainsFunc(r.values(), func(v nrptValue) bool {
		return !reflect.DeepEqual(have[v.name], v.value)
	})
}

func (r nrptRule) write(reg machine.Registry, key string) error {
	if err := reg.MakeKey(key); err != nil {
		return err
	}
	for _, v := range r.values() {
		if err := reg.SetValue(key, v.name, v.value); err != nil {
			return err
		}
	}
	return nil
}

// nrptMark is the comment of an owner's rules.
func nrptMark(owner string) string { return "tunneld, for user " + owner }

// nrptKey is a name's rule: a GUID (RFC 9562, version 8) of which one half follows
// from the owner and the other one from the name, so that it needs to be noted
// nowhere.
func nrptKey(owner, name string) string {
	sum := sha256.Sum256([]byte("tunneld name " + name))
	sum[0] = sum[0]&0x3f | 0x80
	return nrptKeyPrefix(owner) + fmt.Sprintf("%X-%X}", sum[:2], sum[2:8])
}

func nrptKeyPrefix(owner string) string {
	sum := sha256.Sum256([]byte("tunneld owner " + owner))
	sum[6] = sum[6]&0x0f | 0x80
	return fmt.Sprintf("{%X-%X-%X-", sum[:4], sum[4:6], sum[6:8])
}
