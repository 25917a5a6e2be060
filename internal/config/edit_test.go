package config_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tunneld/tunneld/internal/config"
	"github.com/tunneld/tunneld/internal/forward"
)

// plainForward is the forward that the tables add.
func plainForward(name string) config.Forward {
	return config.Forward{
		Name:     name,
		Workload: forward.Workload{Context: "lab", Namespace: "apps", Kind: forward.Service, Name: name},
	}
}

// entry is the text of plainForward in a block list.
func entry(name string) string {
	return "- name: " + name + "\n  target: service/" + name + "\n  namespace: apps\n  context: lab\n"
}

// flow is the text of plainForward in a flow list.
func flow(name string) string {
	return "{name: " + name + ", target: service/" + name + ", namespace: apps, context: lab}"
}

// indented puts spaces before each line.
func indented(spaces int, text string) string {
	lines := strings.SplitAfter(text, "\n")
	for i, l := range lines {
		if strings.TrimSpace(l) != "" {
			lines[i] = strings.Repeat(" ", spaces) + l
		}
	}
	return strings.Join(lines, "")
}

func TestAdd(t *testing.T) {
	const v = "version: 1\n"
	tests := []struct {
		name      string
		src, want string
	}{
		{"no file", "", "# What tunneld forwards. Edit it, or use tunnelctl add and tunnelctl rm.\n" + v + "forwards:\n" + entry("c")},
		{"comments only", "# mine", "# mine\n" + v + "forwards:\n" + entry("c")},
		{"document start only", "---\n", "---\n" + v + "forwards:\n" + entry("c")},
		{"no forwards", v + "hold: 5s # short\n\n# end\n", v + "hold: 5s # short\n\n# end\nforwards:\n" + entry("c")},
		{"no forwards, no newline at the end", "version: 1", v + "forwards:\n" + entry("c")},
		{"no forwards, all indented", "  version: 1\n", "  version: 1\n  forwards:\n" + indented(2, entry("c"))},
		{"empty list", v + "forwards: []\nhold: 5s\n", v + "forwards:\n" + entry("c") + "hold: 5s\n"},
		{"empty list with comment", v + "forwards: [ ] # none yet\n", v + "forwards: # none yet\n" + entry("c")},
		{"empty list over two lines", v + "forwards: [ # none\n]\n", v + "forwards: [" + flow("c") + " # none\n]\n"},
		{"null", v + "forwards: null\nhold: 5s\n", v + "forwards:\n" + entry("c") + "hold: 5s\n"},
		{"tilde at the end of the file", v + "forwards: ~", v + "forwards:\n" + entry("c")},
		{"null in the next line", v + "forwards:\n  null\n", v + "forwards:\n  [" + flow("c") + "]\n"},
		{"no value", v + "forwards:\nhold: 5s\n", v + "forwards:\n" + entry("c") + "hold: 5s\n"},
		{"no value, and the next key has a comment", v + "forwards:\n# for long\nhold: 5s\n", v + "forwards:\n" + entry("c") + "# for long\nhold: 5s\n"},
		{"no value, and a comment introduces the list", v + "forwards:\n# mine\n\nhold: 5s\n", v + "forwards:\n# mine\n" + entry("c") + "\nhold: 5s\n"},
		{"no value, and a comment ends the file", v + "forwards: # mine\n# more", v + "forwards: # mine\n# more\n" + entry("c")},
		{"block list", v + "forwards:\n" + entry("a"), v + "forwards:\n" + entry("a") + entry("c")},
		{"block list, no newline at the end", v + "forwards:\n" + strings.TrimSuffix(entry("a"), "\n"), v + "forwards:\n" + entry("a") + entry("c")},
		{"indented block list", v + "forwards:\n" + indented(4, entry("a")) + "hold: 5s\n", v + "forwards:\n" + indented(4, entry("a")+entry("c")) + "hold: 5s\n"},
		{
			"wide dashes", v + "forwards:\n-   name: a\n    target: a\n    namespace: x\n    context: y\n",
			v + "forwards:\n-   name: a\n    target: a\n    namespace: x\n    context: y\n-   " + strings.ReplaceAll(strings.TrimPrefix(entry("c"), "- "), "\n  ", "\n    "),
		},
		{
			"dash in a line of its own", v + "forwards:\n-\n  name: a\n  target: a\n  namespace: x\n  context: y\n",
			v + "forwards:\n-\n  name: a\n  target: a\n  namespace: x\n  context: y\n" + entry("c"),
		},
		{
			"comments of the last item and of the list's end",
			v + "forwards:\n" + entry("a") + "  # http: none\n# add more here\n\n# how long\nhold: 5s\n",
			v + "forwards:\n" + entry("a") + "  # http: none\n" + entry("c") + "# add more here\n\n# how long\nhold: 5s\n",
		},
		{"blank lines between items", v + "forwards:\n" + entry("a") + "\n# b\n" + entry("b") + "\nhold: 5s\n", v + "forwards:\n" + entry("a") + "\n# b\n" + entry("b") + "\n" + entry("c") + "\nhold: 5s\n"},
		{"CRLF", strings.ReplaceAll(v+"# c\nforwards:\n"+entry("a"), "\n", "\r\n"), strings.ReplaceAll(v+"# c\nforwards:\n"+entry("a")+entry("c"), "\n", "\r\n")},
		{"CRLF, no newline at the end", "version: 1\r\nforwards: []", strings.ReplaceAll(v+"forwards:\n"+entry("c"), "\n", "\r\n")},
		{"byte order mark", "\ufeff" + v + "forwards:\n" + entry("a"), "\ufeff" + v + "forwards:\n" + entry("a") + entry("c")},
		{"characters of several bytes", "# übergrößen → 😀\n" + v + "forwards: [] # ä\n", "# übergrößen → 😀\n" + v + "forwards: # ä\n" + entry("c")},
		{"flow list", v + "forwards: [" + flow("a") + "] # c\n", v + "forwards: [" + flow("a") + ", " + flow("c") + "] # c\n"},
		{"flow list with a comma at its end", v + "forwards: [" + flow("a") + ",]\n", v + "forwards: [" + flow("a") + ", " + flow("c") + ",]\n"},
		{
			"flow list, a line each", v + "forwards: [\n  " + flow("a") + ", # a\n  " + flow("b") + " # b\n  # end\n]\n",
			v + "forwards: [\n  " + flow("a") + ", # a\n  " + flow("b") + ", # b\n  " + flow("c") + "\n  # end\n]\n",
		},
		{
			"flow list, a line each, with a comma at its end", v + "forwards: [\n  " + flow("a") + ", # a\n]\n",
			v + "forwards: [\n  " + flow("a") + ", # a\n  " + flow("c") + ",\n]\n",
		},
		{
			"flow list, the bracket behind the last", v + "forwards:\n  [\n  " + flow("a") + "]\n",
			v + "forwards:\n  [\n  " + flow("a") + ", " + flow("c") + "]\n",
		},
		{"all in braces", "{version: 1}", "{version: 1, forwards: [" + flow("c") + "]}"},
		{"all in braces, no value", "{version: 1, forwards: }", "{version: 1, forwards: [" + flow("c") + "] }"},
		{"all in braces, null", "{version: 1, forwards: null}", "{version: 1, forwards: [" + flow("c") + "]}"},
		{"JSON", "{\n  \"version\": 1,\n  \"forwards\": []\n}\n", "{\n  \"version\": 1,\n  \"forwards\": [" + flow("c") + "]\n}\n"},
		{"JSON without forwards", "{\n  \"version\": 1\n}\n", "{\n  \"version\": 1,\n  forwards: [" + flow("c") + "]\n}\n"},
		{"it is there", v + "forwards:\n" + entry("c") + entry("a"), v + "forwards:\n" + entry("c") + entry("a")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := config.Add([]byte(tt.src), plainForward("c"))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, string(got)); diff != "" {
				t.Errorf("Add (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAddEntry(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	lab := filepath.Join(home, ".kube", "lab")
	elsewhere := filepath.Join(t.TempDir(), "config")
	w := func(set func(*forward.Workload)) config.Forward {
		f := plainForward("a")
		set(&f.Workload)
		return f
	}
	f := func(set func(*config.Forward)) config.Forward {
		f := plainForward("a")
		set(&f)
		return f
	}
	tests := []struct {
		name string
		f    config.Forward
		want string // the line that is not as in entry("a")
	}{
		{"text that YAML takes for a boolean", w(func(w *forward.Workload) { w.Namespace = "on" }), `  namespace: "on"`},
		{"text that YAML takes for a number", w(func(w *forward.Workload) { w.Namespace = "1e3" }), `  namespace: "1e3"`},
		{"text that YAML takes for another number", w(func(w *forward.Workload) { w.Namespace = "0x1f" }), `  namespace: "0x1f"`},
		{"text that YAML takes for a date", w(func(w *forward.Workload) { w.Namespace = "2026-01-02" }), `  namespace: "2026-01-02"`},
		{"text that YAML takes for null", w(func(w *forward.Workload) { w.Namespace = "null" }), `  namespace: "null"`},
		{"digits and letters", w(func(w *forward.Workload) { w.Namespace = "3scale" }), `  namespace: 3scale`},
		{"hyphen", w(func(w *forward.Workload) { w.Context = "-x" }), `  context: "-x"`},
		{"ARN", w(func(w *forward.Workload) { w.Context = "arn:aws:eks:eu-west-1:1:cluster/lab" }), `  context: arn:aws:eks:eu-west-1:1:cluster/lab`},
		{"at sign", w(func(w *forward.Workload) { w.Context = "admin@lab" }), `  context: admin@lab`},
		{"colon and number sign", w(func(w *forward.Workload) { w.Context = "a: b #c" }), `  context: "a: b #c"`},
		{"quotes", w(func(w *forward.Workload) { w.Context = `it's "x" \ y` }), `  context: 'it''s "x" \ y'`},
		{"other scripts", w(func(w *forward.Workload) { w.Context = "größe" }), `  context: "größe"`},
		{"invisible characters", w(func(w *forward.Workload) { w.Context = "a\u200bb\\" }), `  context: "a\u200bb\\"`},
		{"other kind", w(func(w *forward.Workload) { w.Kind = forward.StatefulSet }), `  target: statefulset/a`},
		{"kubeconfig at home", w(func(w *forward.Workload) { w.Kubeconfig = lab }), `  kubeconfig: ~/.kube/lab`},
		{"kubeconfig at home, not expanded", w(func(w *forward.Workload) { w.Kubeconfig = "~/.kube/lab" }), `  kubeconfig: ~/.kube/lab`},
		{"kubeconfig elsewhere", w(func(w *forward.Workload) { w.Kubeconfig = elsewhere }), "  kubeconfig: " + elsewhere},
		{"kubeconfig by a detour", w(func(w *forward.Workload) { w.Kubeconfig = home + "/x/../lab" }), "  kubeconfig: " + home + "/x/../lab"},
		{
			"several kubeconfigs", w(func(w *forward.Workload) { w.Kubeconfig = elsewhere + string(filepath.ListSeparator) + lab }),
			"  kubeconfig: " + elsewhere + string(filepath.ListSeparator) + "~/.kube/lab",
		},
		{"ports", f(func(f *config.Forward) {
			f.Ports = []config.Port{{Number: 80}, {Name: "web"}, {Number: 5432, TLS: true}, {Name: "on", TLS: true}}
		}), `  ports: [80, web, {port: 5432, tls: true}, {port: "on", tls: true}]`},
		{"http port", f(func(f *config.Forward) { f.HTTP.Number = 80 }), "  http: 80"},
		{"http port by name", f(func(f *config.Forward) { f.HTTP.Name = "web" }), "  http: web"},
		{"http off", f(func(f *config.Forward) { f.HTTP.Off = true }), "  http: none"},
		{"allow production", f(func(f *config.Forward) { f.AllowProduction = true }), "  allowProduction: true"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, src := range []string{"version: 1\nforwards:\n", "version: 1\nforwards: [" + flow("z") + "]\n"} {
				got, err := config.Add([]byte(src), tt.f)
				if err != nil {
					t.Fatal(err)
				}
				c, err := config.Parse(got)
				if err != nil {
					t.Fatalf("%v\n%s", err, got)
				}
				want := tt.f
				if want.Workload.Kubeconfig == "~/.kube/lab" {
					want.Workload.Kubeconfig = lab
				}
				if diff := cmp.Diff(want, c.Forwards[len(c.Forwards)-1]); diff != "" {
					t.Errorf("read again (-want +got):\n%s\n%s", diff, got)
				}
				if !strings.Contains(src, "[") && !strings.Contains(string(got), tt.want+"\n") {
					t.Errorf("no line %q in:\n%s", tt.want, got)
				}
			}
		})
	}
}

func TestAddRefuses(t *testing.T) {
	const src = "version: 1\nforwards:\n- {name: a, target: a, namespace: x, context: y}\n"
	bad := func(set func(*config.Forward)) config.Forward {
		f := plainForward("c")
		set(&f)
		return f
	}
	tests := []struct {
		name string
		src  string
		f    config.Forward
		want string
	}{
		{"name taken", src, plainForward("a"), `add "a": the name is taken by another forward`},
		{"bad name", src, bad(func(f *config.Forward) { f.Name = "C" }), `forward "C": name "C" must be lower-case letters, digits and hyphens, at most 63, with no hyphen first or last`},
		{"no context", src, bad(func(f *config.Forward) { f.Workload.Context = "" }), `forward "c": context is empty`},
		{"newline in the context", src, bad(func(f *config.Forward) { f.Workload.Context = "a\nb" }), `forward "c": context must not contain control characters`},
		{"bytes that are no text", src, bad(func(f *config.Forward) { f.Workload.Context = "a\xff" }), `forward "c": this is not UTF-8 text`},
		{"relative kubeconfig", src, bad(func(f *config.Forward) { f.Workload.Kubeconfig = "x/y" }), `forward "c": kubeconfig: "x/y" is not an absolute path and does not start with ~/`},
		{"a port called none", src, bad(func(f *config.Forward) { f.HTTP.Name = "none" }), `forward "c": the file cannot express it`},
		{"http not in ports", src, bad(func(f *config.Forward) { f.Ports = []config.Port{{Number: 1}}; f.HTTP.Number = 2 }), `forward "c": http is 2, which is not in ports: add it there`},
		{"a bad file", "version: 1\nport: 5\n", plainForward("c"), `2:1: unknown key "port" in the file, which has the keys version, domain, addresses, dns, gateway, hold, contexts, access and forwards`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := config.Add([]byte(tt.src), tt.f)
			if err == nil || got != nil {
				t.Fatalf("got %q, %v; want an error", got, err)
			}
			if err.Error() != tt.want {
				t.Errorf("got  %v\nwant %v", err, tt.want)
			}
		})
	}
	if got, err := config.Add([]byte("{version: 1, forwards}"), plainForward("c")); !errors.Is(err, config.ErrLayout) {
		t.Errorf("a key without a colon: got %q, %v; want ErrLayout", got, err)
	}
	if _, err := config.Add([]byte(src), plainForward("a")); !errors.Is(err, config.ErrNameTaken) {
		t.Errorf("got %v; want ErrNameTaken", err)
	}
}

func TestRemove(t *testing.T) {
	const v = "version: 1\n"
	tests := []struct {
		name      string
		remove    string
		src, want string
	}{
		{"the only one: what is above may be about the list", "a", v + "forwards: # mine\n# about a\n" + entry("a") + "  # http: none\n# end\nhold: 5s\n", v + "forwards: [] # mine\n# about a\n# end\nhold: 5s\n"},
		{"the only one, no newline at the end", "a", v + "forwards:\n" + strings.TrimSuffix(entry("a"), "\n"), v + "forwards: []\n"},
		{"the first", "a", v + "forwards:\n# about a\n" + entry("a") + "# about b\n" + entry("b"), v + "forwards:\n# about b\n" + entry("b")},
		{"the middle", "b", v + "forwards:\n" + entry("a") + "# about b\n" + entry("b") + "# about c\n" + entry("c"), v + "forwards:\n" + entry("a") + "# about c\n" + entry("c")},
		{"the last", "b", v + "forwards:\n" + entry("a") + "# about b\n" + entry("b") + "# end\n\nhold: 5s\n", v + "forwards:\n" + entry("a") + "# end\n\nhold: 5s\n"},
		{"the first, blank lines between", "a", v + "forwards:\n\n" + entry("a") + "\n" + entry("b") + "\nhold: 5s\n", v + "forwards:\n\n" + entry("b") + "\nhold: 5s\n"},
		{"the middle, blank lines between", "b", v + "forwards:\n" + entry("a") + "\n# about b\n" + entry("b") + "\n" + entry("c"), v + "forwards:\n" + entry("a") + "\n" + entry("c")},
		{"the last, blank lines between", "b", v + "forwards:\n" + entry("a") + "\n" + entry("b") + "\nhold: 5s\n", v + "forwards:\n" + entry("a") + "\nhold: 5s\n"},
		{"a comment that stands alone stays", "b", v + "forwards:\n" + entry("a") + "\n# staging\n\n# about b\n" + entry("b"), v + "forwards:\n" + entry("a") + "\n# staging\n"},
		{"a comment of the item before stays", "b", v + "forwards:\n" + entry("a") + "  # of a\n# of b\n" + entry("b"), v + "forwards:\n" + entry("a") + "  # of a\n"},
		{"comments in and behind the item go", "a", v + "forwards:\n- # a\n  # it is\n  name: a # c\n\n  target: a\n  namespace: x\n  # d\n  context: y\n" + entry("b"), v + "forwards:\n" + entry("b")},
		{"indented list", "a", v + "forwards:\n  # of a\n" + indented(2, entry("a")) + "  # of b\n" + indented(2, entry("b")) + "  # end\n", v + "forwards:\n  # of b\n" + indented(2, entry("b")) + "  # end\n"},
		{"CRLF", "a", strings.ReplaceAll("# c\n"+v+"forwards:\n# of a\n"+entry("a")+"# of b\n"+entry("b"), "\n", "\r\n"), strings.ReplaceAll("# c\n"+v+"forwards:\n# of b\n"+entry("b"), "\n", "\r\n")},
		{"flow item in a block list", "a", v + "forwards:\n- " + flow("a") + " # a\n- " + flow("b") + "\n", v + "forwards:\n- " + flow("b") + "\n"},
		{"flow, the only one", "a", v + "forwards: [" + flow("a") + "] # c\n", v + "forwards: [] # c\n"},
		{"flow, the first", "a", v + "forwards: [" + flow("a") + ", " + flow("b") + "]\n", v + "forwards: [" + flow("b") + "]\n"},
		{"flow, the middle", "b", v + "forwards: [ " + flow("a") + ", " + flow("b") + ", " + flow("c") + " ]\n", v + "forwards: [ " + flow("a") + ", " + flow("c") + " ]\n"},
		{"flow, the last", "b", v + "forwards: [ " + flow("a") + ", " + flow("b") + " ]\n", v + "forwards: [ " + flow("a") + " ]\n"},
		{"flow, the last with a comma", "b", v + "forwards: [" + flow("a") + ", " + flow("b") + ",]\n", v + "forwards: [" + flow("a") + ",]\n"},
		{"flow, a line each, the first", "a", v + "forwards: [\n  # of a\n  " + flow("a") + ", # a\n  # of b\n  " + flow("b") + " # b\n]\n", v + "forwards: [\n  # of b\n  " + flow("b") + " # b\n]\n"},
		{"flow, a line each, the last", "b", v + "forwards: [\n  " + flow("a") + ", # a\n  # of b\n  " + flow("b") + " # b\n  # end\n]\n", v + "forwards: [\n  " + flow("a") + " # a\n  # end\n]\n"},
		{"flow, a line each, commas at the end", "b", v + "forwards: [\n  " + flow("a") + ",\n  " + flow("b") + ",\n]\n", v + "forwards: [\n  " + flow("a") + ",\n]\n"},
		{"flow, a line each, commas in front", "b", v + "forwards: [\n    " + flow("a") + "\n  , " + flow("b") + "\n  ]\n", v + "forwards: [\n    " + flow("a") + "\n  \n  ]\n"},
		{"flow, a comment before the comma", "a", v + "forwards: [" + flow("a") + " # a\n  , " + flow("b") + "]\n", v + "forwards: [# a\n   " + flow("b") + "]\n"},
		{"all in braces", "a", "{version: 1, forwards: [" + flow("a") + "], hold: 5s}", "{version: 1, forwards: [], hold: 5s}"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := config.Remove([]byte(tt.src), tt.remove)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, string(got)); diff != "" {
				t.Errorf("Remove (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRemoveRefuses(t *testing.T) {
	src := "version: 1\nforwards: [name: a]\n"
	if _, err := config.Remove([]byte("version: 1\n"), "a"); !errors.Is(err, config.ErrNoForward) {
		t.Errorf("got %v; want ErrNoForward", err)
	}
	if _, err := config.Remove(nil, "a"); !errors.Is(err, config.ErrNoForward) {
		t.Errorf("got %v; want ErrNoForward", err)
	}
	if _, ok := errors.AsType[*config.Error](func() error { _, err := config.Remove([]byte(src), "a"); return err }()); !ok {
		t.Error("a bad file was edited")
	}
}

// TestEditLayouts adds to and removes from every combination of layouts, and
// expects that what was added and removed again leaves the text as it was.
func TestEditLayouts(t *testing.T) {
	t.Parallel()
	heads := []string{"", "---\n", "# top\n\n", "\ufeff"}
	lists := []string{
		entry("a") + entry("b"),
		"# a\n" + entry("a") + "# b\n" + entry("b") + "  # c\n",
		indented(2, "# a\n"+entry("a")+"\n# b\n"+entry("b")),
		"-\n  name: a\n  target: a\n  namespace: x\n  context: y\n\n\n" + entry("b"),
		"- " + flow("a") + "\n- " + flow("b") + " # c\n",
		"  [" + flow("a") + ", " + flow("b") + "]\n",
		"  [\n  # a\n    " + flow("a") + ", # a\n    # b\n    " + flow("b") + "\n  ]\n",
		"  [\n  " + flow("a") + ",\n\n  " + flow("b") + ",\n  ] # c\n",
	}
	tails := []string{"", "# end\n", "\n# end\n", "hold: 5s\n", "# hold\nhold: 5s\n", "\n\n# hold\n\nhold: 5s\n"}
	for i, head := range heads {
		for j, list := range lists {
			for k, tail := range tails {
				for _, crlf := range []bool{false, true} {
					src := head + "version: 1\nforwards: # mine\n" + list + tail
					if crlf {
						src = strings.ReplaceAll(src, "\n", "\r\n")
					}
					t.Run(fmt.Sprintf("%d,%d,%d,%t", i, j, k, crlf), func(t *testing.T) {
						added, err := config.Add([]byte(src), plainForward("c"))
						if err != nil {
							t.Fatal(err)
						}
						c, err := config.Parse(added)
						if err != nil || len(c.Forwards) != 3 {
							t.Fatalf("%v\n%s", err, added)
						}
						for _, f := range c.Forwards {
							checkRemove(t, added, c, f.Name)
						}
						removed, err := config.Remove(added, "c")
						if err != nil {
							t.Fatal(err)
						}
						if diff := cmp.Diff(src, string(removed)); diff != "" {
							t.Errorf("added and removed (-want +got):\n%s", diff)
						}
					})
				}
			}
		}
	}
}

func TestMarshal(t *testing.T) {
	a, b := plainForward("a"), plainForward("b")
	b.HTTP.Off = true
	tests := []struct {
		name     string
		forwards []config.Forward
		want     string
	}{
		{"none", nil, "forwards: []\n"},
		{"some", []config.Forward{a, b}, "forwards:\n" + entry("a") + entry("b") + "  http: none\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := config.Marshal(tt.forwards)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, string(got)); diff != "" {
				t.Errorf("Marshal (-want +got):\n%s", diff)
			}
		})
	}
	if _, err := config.Marshal([]config.Forward{{Name: "x"}}); err == nil {
		t.Error("an invalid forward was written")
	}
}
