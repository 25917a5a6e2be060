package config_test

import (
	"errors"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tunneld/tunneld/internal/config"
	"github.com/tunneld/tunneld/internal/forward"
)

// comparable makes cmp compare addresses.
var comparable = cmpopts.EquateComparable(netip.Prefix{}, netip.AddrPort{})

const full = `version: 1
domain: local                    # names are NAME.DOMAIN
addresses: 127.77.0.0/16         # each forward gets one address of its own, the same one for ever
dns: {listen: "127.0.0.1:15353"}  # below the ephemeral range
gateway: {http: 80, https: 443}
hold: 30s
contexts: {deny: [prod, "prod-*", "*-prod", "*-prod-*", "*production*"]}
forwards:
- name: task-api
  target: service/task-api
  namespace: task-api
  context: lab
  kubeconfig: ~/.kube/lab        # left out: the default files
  ports: [8000]                  # numbers, names, or objects
  http: 8000
# the database
- name: db
  target: sts/db
  namespace: task-api
  context: lab
  ports: [{port: 5432, tls: true}, metrics]
  http: none
  allowProduction: true
`

func TestParse(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("USERPROFILE", home)
	with := func(set func(*config.Config)) *config.Config {
		c := config.Default()
		set(c)
		return c
	}
	fwd := func(set func(*config.Forward)) *config.Config {
		f := plainForward("a")
		set(&f)
		return with(func(c *config.Config) { c.Forwards = []config.Forward{f} })
	}
	item := "version: 1\nforwards:\n" + entry("a")
	tests := []struct {
		name string
		src  string
		want *config.Config
	}{
		{"nothing", "", config.Default()},
		{"white space", " \n\n", config.Default()},
		{"comments", "# version: 2\n# x", config.Default()},
		{"the start of a document", "--- # x\n", config.Default()},
		{"version", "version: 1", config.Default()},
		{"version, after the start of a document", "# x\n---\nversion: 1\n", config.Default()},
		{"nulls", "version: 1\ndomain:\naddresses: null\ndns: ~\ngateway: {http: }\nhold:\n# x\ncontexts:\n  deny:\nforwards:\n", config.Default()},
		{"domain", "version: 1\ndomain: dev.example", with(func(c *config.Config) { c.Domain = "dev.example" })},
		{"domain of a company", "version: 1\ndomain: dev.example.com", with(func(c *config.Config) { c.Domain = "dev.example.com" })},
		{"domain below a suffix", "version: 1\ndomain: foo.dev", with(func(c *config.Config) { c.Domain = "foo.dev" })},
		{"domain that nobody has", "version: 1\ndomain: internal", with(func(c *config.Config) { c.Domain = "internal" })},
		{"domain of homes", "version: 1\ndomain: home.arpa", with(func(c *config.Config) { c.Domain = "home.arpa" })},
		{"addresses", "version: 1\naddresses: 127.1.2.0/28", with(func(c *config.Config) { c.Addresses = netip.MustParsePrefix("127.1.2.0/28") })},
		{"dns", "version: 1\ndns:\n  listen: '[::1]:0'", with(func(c *config.Config) { c.DNS.Listen = netip.MustParseAddrPort("[::1]:0") })},
		{"dns, without quotes", "version: 1\ndns: {listen: 127.0.0.1:53}", with(func(c *config.Config) { c.DNS.Listen = netip.MustParseAddrPort("127.0.0.1:53") })},
		{"gateway", "version: 1\ngateway:\n  http: 8080", with(func(c *config.Config) { c.Gateway.HTTP = 8080 })},
		{"gateway on any ports", "version: 1\ngateway: {http: 0, https: 0}", with(func(c *config.Config) { c.Gateway = config.Gateway{} })},
		{"hold", "version: 1\nhold: 1m30s", with(func(c *config.Config) { c.Hold = 90 * time.Second })},
		{"access", "version: 1\naccess: everyone", with(func(*config.Config) {})},
		{"no hold", "version: 1\nhold: 0s", with(func(c *config.Config) { c.Hold = 0 })},
		{"contexts", "version: 1\ncontexts:\n  deny:\n  - \"*live*\"\n  - '[a-c]'", with(func(c *config.Config) { c.Contexts.Deny = []string{"*live*", "[a-c]"} })},
		{"no context is denied", "version: 1\ncontexts: {deny: []}", with(func(c *config.Config) { c.Contexts.Deny = []string{} })},
		{"a forward", item, fwd(func(f *config.Forward) {})},
		{"a target without kind", strings.Replace(item, "service/a", "a", 1), fwd(func(f *config.Forward) {})},
		{"a target with dots", strings.Replace(item, "service/a", "po/a.b-1", 1), fwd(func(f *config.Forward) { f.Workload.Kind, f.Workload.Name = forward.Pod, "a.b-1" })},
		{"words that other YAML takes for booleans", strings.Replace(item, "lab", "off", 1), fwd(func(f *config.Forward) { f.Workload.Context = "off" })},
		{"escapes", strings.Replace(item, "lab", `"\x41\u00e4\U0001f600\" b"`, 1), fwd(func(f *config.Forward) { f.Workload.Context = "Aä😀\" b" })},
		{"a text with # and :", strings.Replace(item, "lab", "a#b:c", 1), fwd(func(f *config.Forward) { f.Workload.Context = "a#b:c" })},
		{"tabs between things", strings.Replace(item, ": lab", ":\tlab\t# x", 1), fwd(func(f *config.Forward) {})},
		{"kubeconfigs", item + "  kubeconfig: '~/a" + string(filepath.ListSeparator) + string(filepath.ListSeparator) + filepath.Join(home, "b") + "'", fwd(func(f *config.Forward) {
			f.Workload.Kubeconfig = filepath.Join(home, "a") + string(filepath.ListSeparator) + filepath.Join(home, "b")
		})},
		{"ports in a block", item + "  ports:\n  - 80\n  -   port: web\n      tls: false\n  - port: 443\n    tls: true\n", fwd(func(f *config.Forward) {
			f.Ports = []config.Port{{Number: 80}, {Name: "web"}, {Number: 443, TLS: true}}
		})},
		{"a port with a long name", item + "  http: a-name-that-only-a-service-may-have", fwd(func(f *config.Forward) { f.HTTP.Name = "a-name-that-only-a-service-may-have" })},
		{"http by number, which is in ports", item + "  http: 80\n  ports: [{port: 80}]", fwd(func(f *config.Forward) { f.HTTP.Number = 80; f.Ports = []config.Port{{Number: 80}} })},
		{"no http", item + "  http: none\n  ports: [80]", fwd(func(f *config.Forward) { f.HTTP.Off = true; f.Ports = []config.Port{{Number: 80}} })},
		{"all", full, with(func(c *config.Config) {
			api, db := plainForward("task-api"), plainForward("db")
			api.Workload.Namespace, db.Workload.Namespace = "task-api", "task-api"
			api.Workload.Kubeconfig = filepath.Join(home, ".kube", "lab")
			api.Ports, api.HTTP.Number = []config.Port{{Number: 8000}}, 8000
			db.Workload.Kind = forward.StatefulSet
			db.Ports, db.HTTP.Off, db.AllowProduction = []config.Port{{Number: 5432, TLS: true}, {Name: "metrics"}}, true, true
			c.Forwards = []config.Forward{api, db}
		})},
		{"JSON", `{"version": 1, "hold": "5s", "forwards": [{"name": "a", "target": "a", "namespace": "apps", "context": "lab"}]}`, with(func(c *config.Config) {
			c.Hold, c.Forwards = 5*time.Second, []config.Forward{plainForward("a")}
		})},
	}
	for _, tt := range tests {
		for _, eol := range []string{"\n", "\r\n"} {
			t.Run(tt.name, func(t *testing.T) {
				got, err := config.Parse([]byte(strings.ReplaceAll(tt.src, "\n", eol)))
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(tt.want, got, comparable); diff != "" {
					t.Errorf("Parse (-want +got):\n%s", diff)
				}
			})
		}
	}
}

// TestParseErrors gives texts and the whole error each.
func TestParseErrors(t *testing.T) {
	// item is an entry with one line replaced or more added.
	item := func(replace, with string) string {
		return "version: 1\nforwards:\n" + strings.Replace(entry("a")+"  #\n", replace, with, 1)
	}
	tests := []struct{ name, src, want string }{
		// What is no YAML, or none that is supported.
		{"not UTF-8", "version: 1\n# \xff\n", `2:3: this is not UTF-8 text`},
		{"a control character", "version: 1\ndomain: a\x00b", `2:10: the control character U+0000 cannot be in a YAML text`},
		{"a carriage return", "version: 1\rdomain: a", `1:11: a carriage return stands alone: end lines with a line feed`},
		{"a long line", "# " + strings.Repeat("x", 20000), `1:16386: this line is longer than 16 KiB`},
		{"a tab as indent", "version: 1\ndns:\n\tlisten: x\n", `3:2: a tab is in front of this: YAML wants spaces`},
		{"a tab after spaces", "version: 1\ndns:\n  \tlisten: x\n", `3:3: a tab indents this line: YAML wants spaces`},
		{"a tab in text", "version: 1\ndomain: a\tb\n", `2:9: a tab is in this text: put the text in quotes`},
		{"a quote is missing", "version: 1\ndomain: \"a\nhold: 5s\n", `2:9: this is not valid YAML: could not find end character of double-quoted text`},
		{"quotes over two lines", "version: 1\ndomain: 'a\n  b'\n", `2:9: this text goes over several lines, but values are on one line: is a quote missing?`},
		{"text over two lines", "version: 1\ndomain: a\n  b\n", `3:3: this continues the text of a line before, but values are on one line: is the indentation right?`},
		{"a colon is missing", "version: 1\nhold:\ngateway\n", `3:1: if this is the value of the key above, indent it; if it is a key, a colon is missing`},
		{"a lone colon", "version\n: 1\n", `2:1: this is not valid YAML: a colon belongs behind its key`},
		{"a bracket is missing", "version: 1\nforwards: [\n", `2:11: this is not valid YAML: sequence end token ']' not found`},
		{"a comma is missing", "version: 1\ngateway: {http: 1\n  https: 2}\n", `3:8: this is not valid YAML: a comma is missing before this key, or quotes around a text with a colon`},
		{"two values", "version: 1\ndomain: 'a' b\n", `2:13: this is not valid YAML: value is not allowed in this context. map key-value is pre-defined`},
		{"an escape that is none", "version: 1\ndomain: \"\\u00zz\"\n", `2:10: after \u come 4 hexadecimal digits`},
		{"an unknown escape", "version: 1\ndomain: \"a\\qb\"\n", `2:9: this is not valid YAML: found unknown escape character 'q'`},
		{"an at sign", "version: 1\ndomain: @a\n", `2:9: this is not valid YAML: '@' is a reserved character`},
		{"an anchor", "version: 1\ndomain: &a local\n", `2:9: an unquoted & starts an anchor, and anchors are not supported here: write the value out, or put text in quotes`},
		{"an alias", "version: 1\ncontexts: {deny: [*prod]}\n", `2:19: an unquoted * starts an alias, and aliases are not supported here: put text that starts with * in quotes, or write the value out`},
		{"a merge key", "<<: {version: 1}\n", `1:1: merge keys (<<) are not supported here: write the values out`},
		{"a tag", "version: !!int 1\n", `1:10: an unquoted ! starts a tag, and tags are not supported here: put text in quotes`},
		{"a tag at the end", "version: !x", `1:10: this is not valid YAML, or a part of it that is not supported here`},
		{"a directive", "%YAML 1.2\n---\nversion: 1\n", `1:1: an unquoted % starts a directive, and directives are not supported here: put text in quotes`},
		{"a complex key", "? version\n: 1\n", `1:1: an unquoted ? starts a complex key, and those are not supported here: put text in quotes`},
		{"block text", "version: 1\ndomain: |\n  local\n", `2:9: block text (| and >) is not supported here: write the value on one line`},
		{"two documents", "version: 1\n---\nversion: 1\n", `2:1: a second document starts here: the file holds one`},
		{"the end of a document", "version: 1\n...\n", `2:1: the document ends here: leave this line out, the file holds one document`},
		{"brackets without end", strings.Repeat("[", 10000), `1:17: brackets are nested too deeply`},
		{"dashes without end", strings.Repeat("- ", 5000), `1:9: lists are nested too deeply`},
		{"keys without end", strings.Repeat("a:\n", 5000), `101:2: this mapping has too many keys`},
		{"keys in keys in a list", "[" + strings.Repeat("a: ", 5000) + "]", `1:6: this is not valid YAML: a comma is missing before this key, or quotes around a text with a colon`},
		{"indentation without end", "a:\n" + strings.Repeat(" ", 201) + "b: 1", `2:202: this is indented too deeply`},
		{"larger than any", strings.Repeat("#\n", 200000), `1:1: the file is larger than 256 KiB: it is no configuration`},

		// The file as a whole.
		{"a list", "- a\n", "1:1: the file must hold keys and values, such as `version: 1`, not a list"},
		{"a text", "hello", "1:1: the file must hold keys and values, such as `version: 1`, not text"},
		{"no version", "# x\ndomain: a\n", "2:1: the version is missing: write `version: 1` in the first line"},
		{"no value for the version", "version:\n", "1:1: the version is missing: write `version: 1` in the first line"},
		{"version 0", "version: 0\n", `1:10: version must be the number 1, not 0`},
		{"version as text", "version: \"1\"\n", `1:10: version must be the number 1, not "1"`},
		{"a newer version", "new: {stuff: 1}\nversion: 2\nnew: 1\n", `2:10: version 2 of the configuration was written by a newer tunneld: this one reads version 1`},
		{"an unknown key", "version: 1\nforwrads: []\n", `2:1: unknown key "forwrads" in the file: did you mean "forwards"?`},
		{"a key in another style", "version: 1\nforwards:\n- allow_production: true\n", `3:3: unknown key "allow_production" in a forward: did you mean "allowProduction"?`},
		{"a key like no other", "version: 1\ndns: {port: 53}\n", `2:7: unknown key "port" in dns, which has the key listen`},
		{"a key twice", "version: 1\nhold: 1s\n'hold': 2s\n", `3:1: the key "hold" is already in line 2`},
		{"a key twice, once without a value", "version: 1\nhold:\nhold: 2s\n", `3:1: the key "hold" is already in line 2`},
		{"the first of several problems", "version: 1\nforwards: 1\nhold: x\ndomain: A\n", `2:11: forwards must be a list, such as ` + "`- name: task-api`" + `, not a number`},

		// The sections.
		{"domain in upper case", "version: 1\ndomain: Local\n", `2:9: domain "Local" must be in lower case: local`},
		{"domain with a dot", "version: 1\ndomain: local.\n", `2:9: domain "local." must not start or end with a dot: local`},
		{"domain with an underscore", "version: 1\ndomain: a.b_c\n", `2:9: domain "a.b_c" is not a DNS name: "b_c" is not made of letters, digits and hyphens, at most 63, with no hyphen first or last`},
		{"domain that ends in a number", "version: 1\ndomain: a.10\n", `2:9: domain "a.10" must not end in a number`},
		{"domain that is a top-level one", "version: 1\ndomain: dev\n", `2:9: domain "dev" is a public suffix, below which strangers have their names, so no CA of this machine may be for all of it: use a name below it that is yours, such as dev.example.dev, or local`},
		{"domain that is a suffix of two labels", "version: 1\ndomain: co.uk\n", `2:9: domain "co.uk" is a public suffix, below which strangers have their names, so no CA of this machine may be for all of it: use a name below it that is yours, such as dev.example.co.uk, or local`},
		{"domain that is a company's suffix", "version: 1\ndomain: github.io\n", `2:9: domain "github.io" is a public suffix, below which strangers have their names, so no CA of this machine may be for all of it: use a name below it that is yours, such as dev.example.github.io, or local`},
		{"domain that is a number", "version: 1\ndomain: 10\n", `2:9: domain must be text, and YAML reads this as a number: put it in quotes, "10"`},
		{"domain that is too long", "version: 1\ndomain: a" + strings.Repeat(".a", 100) + "\n", `2:9: domain "a` + strings.Repeat(".a", 100) + `" is longer than 189 characters: with a name in front it would be too long for DNS`},
		{"domain that is empty", "version: 1\ndomain: ''\n", `2:9: domain is empty`},
		{"addresses that are none", "version: 1\naddresses: 127.77\n", `2:12: addresses must be text, and YAML reads this as a number: put it in quotes, "127.77"`},
		{"one address", "version: 1\naddresses: 127.77.0.1\n", `2:12: addresses "127.77.0.1" is not an address range: write one such as 127.77.0.0/16`},
		{"addresses of others", "version: 1\naddresses: 10.0.0.0/16\n", `2:12: addresses 10.0.0.0/16 is not inside 127.0.0.0/8: only there every address is this machine's own`},
		{"IPv6 addresses", "version: 1\naddresses: ::1/128\n", `2:12: addresses ::1/128 is not inside 127.0.0.0/8: only there every address is this machine's own`},
		{"more than the loopback", "version: 1\naddresses: 127.0.0.0/7\n", `2:12: addresses 127.0.0.0/7 is not inside 127.0.0.0/8: only there every address is this machine's own`},
		{"addresses with host bits", "version: 1\naddresses: 127.77.3.0/16\n", `2:12: addresses 127.77.3.0/16 has bits set after the first 16: write 127.77.0.0/16`},
		{"addresses of the system", "version: 1\naddresses: 127.0.0.0/8\n", `2:12: addresses 127.0.0.0/8 overlaps 127.0.0.0/16, where the system has addresses of its own (127.0.0.1, 127.0.0.53, 127.0.1.1)`},
		{"few addresses", "version: 1\naddresses: 127.77.0.0/29\n", `2:12: addresses 127.77.0.0/29 is too small: it must be a /28 or larger`},
		{"dns that is text", "version: 1\ndns: 127.0.0.1:53\n", `2:6: dns must be a mapping with the key listen, not text`},
		{"dns without a port", "version: 1\ndns: {listen: 127.0.0.1}\n", `2:15: dns.listen "127.0.0.1" is not ADDRESS:PORT: write one such as "127.0.0.1:15353"`},
		{"dns for everybody", "version: 1\ndns: {listen: '0.0.0.0:53'}\n", `2:15: dns.listen 0.0.0.0:53 is not a loopback address: use one of 127.0.0.0/8, or [::1]`},
		{"dns on a mapped address", "version: 1\ndns: {listen: '[::ffff:127.0.0.1]:53'}\n", `2:15: dns.listen [::ffff:127.0.0.1]:53 is not a loopback address: use one of 127.0.0.0/8, or [::1]`},
		{"gateway ports alike", "version: 1\ngateway: {https: 80}\n", `2:18: gateway.http and gateway.https are both 80: they must differ`},
		{"gateway port too large", "version: 1\ngateway: {http: 65536}\n", `2:17: gateway.http must be a number from 0 to 65535, not 65536`},
		{"gateway port that may be octal", "version: 1\ngateway: {http: 080}\n", `2:17: gateway.http must be a number from 0 to 65535, not "080"`},
		{"gateway port in octal", "version: 1\ngateway: {http: 010}\n", `2:17: gateway.http must be a number from 0 to 65535, not 010`},
		{"access of somebody", "version: 1\naccess: alice\n", `2:9: access "alice" is not known: write everyone or me`},
		{"hold without a unit", "version: 1\nhold: 30\n", `2:7: hold must be a duration from 0s to 10m, such as 30s: a number needs a unit`},
		{"hold too long", "version: 1\nhold: 11m\n", `2:7: hold must be a duration from 0s to 10m, such as 30s, not "11m"`},
		{"hold below zero", "version: 1\nhold: -1s\n", `2:7: hold must be a duration from 0s to 10m, such as 30s, not "-1s"`},
		{"a bad pattern", "version: 1\ncontexts: {deny: [a, '[']}\n", `2:22: the pattern "[" in contexts.deny is malformed: *, ? and [a-z] are special, a backslash takes that away`},
		{"a pattern that is none", "version: 1\ncontexts: {deny: [a, true]}\n", `2:22: a pattern in contexts.deny must be text, and YAML reads this as true or false: put it in quotes, "true"`},
		{"deny that is text", "version: 1\ncontexts: {deny: prod}\n", `2:18: contexts.deny must be a list, such as [prod, "prod-*"], not text`},

		// The forwards.
		{"a forward that is text", "version: 1\nforwards: [a]\n", `2:12: a forward must be a mapping with the keys name, target, namespace, context, kubeconfig, ports, http and allowProduction, not text`},
		{"a forward that is nothing", "version: 1\nforwards:\n-\n", `3:1: a forward must be a mapping with the keys name, target, namespace, context, kubeconfig, ports, http and allowProduction, not nothing`},
		{"no name", "version: 1\nforwards:\n- target: a\n  namespace: a\n  context: a\n", "3:3: this forward has no name: add one, such as `name: task-api`"},
		{"no namespace", item("  namespace: apps\n", ""), "3:3: this forward has no namespace: add one, such as `namespace: default`"},
		{"no context", item("context: lab", "context:"), "3:3: this forward has no context: add one, such as `context: lab`"},
		{"a misspelt key rather than a missing one", item("namespace", "namspace"), `5:3: unknown key "namspace" in a forward: did you mean "namespace"?`},
		{"a problem before a misspelt key", item("service/a\n  namespace", "x/a\n  namspace"), `4:11: target: "x" is not a kind that can be forwarded to: use service, deployment, statefulset or pod`},
		{"a name with a dot", item("name: a", "name: a.b"), `3:9: name "a.b" must be lower-case letters, digits and hyphens, at most 63, with no hyphen first or last`},
		{"a long name", item("name: a", "name: "+strings.Repeat("a", 64)), `3:9: name "` + strings.Repeat("a", 64) + `" must be lower-case letters, digits and hyphens, at most 63, with no hyphen first or last`},
		{"a name that is a number", item("name: a", "name: 1"), `3:9: name must be text, and YAML reads this as a number: put it in quotes, "1"`},
		{"one name twice", item("", "") + "# b\n" + entry("a"), `9:9: two forwards are named "a", in line 3 and in line 9`},
		{"a target that is no name", item("service/a", "svc/a_b"), `4:11: target: "a_b" cannot be the name of a service: lower-case letters, digits, hyphens and dots can`},
		{"a target without name", item("service/a", "pod/"), `4:11: target: "pod/" names no pod: write pod/NAME`},
		{"a namespace that is a list", item("apps", "[a]"), `5:14: namespace must be text, not a list`},
		{"a namespace in upper case", item("apps", "Apps"), `5:14: namespace "Apps" must be lower-case letters, digits and hyphens, at most 63, with no hyphen first or last`},
		{"a context with a newline", item("lab", `"a\nb"`), `6:12: context must not contain control characters`},
		{"a relative kubeconfig", item("#", "kubeconfig: .kube/config"), `7:15: kubeconfig: ".kube/config" is not an absolute path and does not start with ~/`},
		{"somebody's kubeconfig", item("#", "kubeconfig: ~joe/config"), `7:15: kubeconfig: "~joe/config" is not an absolute path and does not start with ~/`},
		{"a kubeconfig of nothing", item("#", "kubeconfig: '"+string(filepath.ListSeparator)+"'"), `7:15: kubeconfig: no path is in it: leave it out for the default files`},
		{"one port", item("#", "ports: 80"), `7:10: ports must be a list, such as [8000], not a number`},
		{"no ports", item("#", "ports: []"), `7:10: ports is empty: leave it out to carry all TCP ports`},
		{"port 0", item("#", "ports: [0]"), `7:11: a port must be a number from 1 to 65535, not 0`},
		{"a large port", item("#", "ports: [80, 99999999999999999999]"), `7:15: a port must be a number from 1 to 65535 or a port's name, not "99999999999999999999"`},
		{"a port below zero", item("#", "ports: [-1]"), `7:11: a port must be a number from 1 to 65535, not -1`},
		{"a port in hexadecimal", item("#", "ports: [0x50]"), `7:11: a port must be a number from 1 to 65535, not 0x50`},
		{"a port in quotes", item("#", `ports: ["80"]`), `7:11: a port in quotes is a name, and "80" is none: write the number without them`},
		{"a port that is no name", item("#", "ports: [Web]"), `7:11: a port must be a number from 1 to 65535 or a port's name, not "Web"`},
		{"a port that is nothing", item("#", "ports:\n  -"), `8:3: a port must be a number from 1 to 65535 or a port's name, not nothing`},
		{"a port twice", item("#", "ports: [80, {port: 80, tls: true}]"), `7:22: port 80 is in ports twice`},
		{"a port without number", item("#", "ports: [{tls: true}]"), `7:11: this port has no number or name: write it as {port: 5432, tls: true}`},
		{"a port with other keys", item("#", "ports: [{number: 1}]"), `7:12: unknown key "number" in a port, which has the keys port and tls`},
		{"tls that is no boolean", item("#", "ports: [{port: 1, tls: yes}]"), `7:26: tls must be true or false`},
		{"http that is a boolean", item("#", "http: false"), `7:9: http must be a number from 1 to 65535 or a port's name, not true or false`},
		{"http that is not in ports", item("#", "http: web\n  ports: [80, metrics]"), `7:9: http is web, which is not in ports: add it there`},
		{"http before bad ports", item("#", "http: web\n  ports: [80, -]"), `8:15: a port must be a number from 1 to 65535 or a port's name, not "-"`},
		{"allowProduction that is no boolean", item("#", "allowProduction: 1"), `7:20: allowProduction must be true or false`},
		{"characters of several bytes count once", "version: 1\nforwards: [{context: größe→😀, x: 1}]\n", `2:31: unknown key "x" in a forward, which has the keys name, target, namespace, context, kubeconfig, ports, http and allowProduction`},
		{"a byte order mark does not count", "\ufeffx: 1\n", `1:1: unknown key "x" in the file, which has the keys version, domain, addresses, dns, gateway, hold, contexts, access and forwards`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, eol := range []string{"\n", "\r\n"} {
				if eol == "\r\n" && tt.name == "larger than any" {
					continue
				}
				c, err := config.Parse([]byte(strings.ReplaceAll(tt.src, "\n", eol)))
				if err == nil {
					t.Fatalf("no error, but %+v", c)
				}
				if err.Error() != tt.want {
					t.Errorf("got  %s\nwant %s", err, tt.want)
				}
				if _, ok := errors.AsType[*config.Error](err); !ok || c != nil {
					t.Errorf("got %v and a %T; want nil and an *Error", c, err)
				}
			}
		})
	}
}

func TestDenies(t *testing.T) {
	def := config.Default().Contexts
	tests := []struct {
		contexts config.Contexts
		context  string
		want     string // the pattern; empty if none denies
	}{
		{def, "lab", ""},
		{def, "prod", "prod"},
		{def, "PROD-eu", "prod-*"},
		{def, "eu-prod-1", "*-prod-*"},
		{def, "product", ""},
		{def, "preproduction", "*production*"},
		{def, "arn:aws:eks:eu-west-1:1:cluster/prod", "prod"},
		{def, "arn:aws:eks:eu-west-1:1:cluster/lab", ""},
		{def, "production/eu", "*production*"},
		{def, "gke_acme_europe-west1_prod", ""},
		{config.Contexts{}, "prod", ""},
		{config.Contexts{Deny: []string{"team/*"}}, "team/a/b", "team/*"},
		{config.Contexts{Deny: []string{"["}}, "a", ""},
	}
	for _, tt := range tests {
		t.Run(tt.context, func(t *testing.T) {
			pattern, denied := tt.contexts.Denies(tt.context)
			if pattern != tt.want || denied != (tt.want != "") {
				t.Errorf("got %q, %t; want %q", pattern, denied, tt.want)
			}
		})
	}
}
