package config_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tunneld/tunneld/internal/config"
	"github.com/tunneld/tunneld/internal/forward"
)

// seeds are texts in every layout that edits know, and some broken ones.
func seeds() []string {
	s := []string{
		"",
		"# nothing yet\n",
		"version: 1\n",
		"version: 1",
		"version: 1\nforwards:\n",
		"version: 1\nforwards: []\n",
		"version: 1\nforwards: null # none\nhold: 5s\n",
		"---\nversion: 1\nforwards:\n  # mine\n  - name: a\n    target: svc/a\n    namespace: x\n    context: y\n    # more\n\n# end\n",
		"version: 1\r\nforwards:\r\n- name: a\r\n  target: a # c\r\n  namespace: \"on\"\r\n  context: y\r\n",
		"version: 1\nforwards: [{name: a, target: a, namespace: x, context: y}, {name: b, target: b, namespace: x, context: y}]\n",
		"{version: 1, forwards: [\n  {name: a, target: a, namespace: x, context: y}, # c\n  {name: b, target: b, namespace: x, context: y},\n]}\n",
		"version: 1\nforwards:\n-\n  name: a\n  target: a\n  namespace: x\n  context: y\n\n# b\n- {name: b, target: pod/b, namespace: x, context: y, ports: [1, {port: z, tls: true}], http: z}\nhold: 1s",
		"\ufeffversion: 1\nforwards: &a [*a]\n",
		"a: b\tc\n\t- d: |\n  'x\n",
		"? a\n: {b: [c: d, !e f]}\n...\n--- %x\n<<: \"\\xZZ\"\n",
		"a: b\n- c\n  d\n[e]: {f, g: }\n",
	}
	return append(s, full)
}

func FuzzParse(f *testing.F) {
	for _, s := range seeds() {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		c, err := config.Parse(src)
		if err != nil {
			e, ok := errors.AsType[*config.Error](err)
			if !ok || c != nil {
				t.Fatalf("Parse gave %v and an error of type %T", c, err)
			}
			if lines := strings.Split(string(src), "\n"); e.Line < 1 || e.Line > len(lines) || e.Column < 1 || e.Column > len(lines[e.Line-1])+1 {
				t.Fatalf("the error is outside of the text: %v", err)
			}
			if e.Msg == "" || strings.Contains(e.Msg, "\n") {
				t.Fatalf("the message is not one sentence: %q", e.Msg)
			}
			return
		}
		out, err := config.Marshal(c.Forwards)
		if err != nil {
			t.Fatalf("cannot write what was read: %v", err)
		}
		again, err := config.Parse(append([]byte("version: 1\ndomain: "+c.Domain+"\n"), out...))
		if err != nil {
			t.Fatalf("cannot read what was written: %v\n%s", err, out)
		}
		if diff := cmp.Diff(c.Forwards, again.Forwards); diff != "" {
			t.Fatalf("written and read again (-want +got):\n%s", diff)
		}
	})
}

func FuzzEdit(f *testing.F) {
	for i, s := range seeds() {
		f.Add([]byte(s), "new", []string{"lab", "null", "1e3", "a: b", "arn:x/y", `C:\x "y"`}[i%6], uint16(i), i%2 == 0)
	}
	f.Fuzz(func(t *testing.T, src []byte, name, context string, port uint16, more bool) {
		before, err := config.Parse(src)
		if err != nil {
			return
		}
		for _, fwd := range before.Forwards {
			checkRemove(t, src, before, fwd.Name)
		}
		fwd := config.Forward{
			Name:     name,
			Workload: forward.Workload{Kind: forward.Pod, Name: "p", Namespace: "on", Context: context},
		}
		if port != 0 {
			fwd.Ports = []config.Port{{Number: port, TLS: more}, {Name: "x" + name}}
			fwd.HTTP.Off = more
		}
		out, err := config.Add(src, fwd)
		if err != nil {
			return
		}
		after, err := config.Parse(out)
		if err != nil {
			t.Fatalf("the result cannot be read: %v\n%s", err, out)
		}
		if bytes.Equal(out, src) {
			return // it was there
		}
		want := *before
		want.Forwards = append(want.Forwards[:len(want.Forwards):len(want.Forwards)], fwd)
		if diff := cmp.Diff(&want, after, comparable); diff != "" {
			t.Fatalf("after Add (-want +got):\n%s\n%s", diff, out)
		}
		if rest := replacedByAdd(string(src)); !keeps(string(out), rest) {
			t.Fatalf("Add lost something of\n%s\nin\n%s", rest, out)
		}
		checkRemove(t, out, after, name)
	})
}

// checkRemove removes a forward and compares what is left with the rest.
func checkRemove(t *testing.T, src []byte, before *config.Config, name string) {
	t.Helper()
	out, err := config.Remove(src, name)
	if errors.Is(err, config.ErrLayout) {
		return
	}
	if err != nil {
		t.Fatalf("Remove(%q): %v", name, err)
	}
	after, err := config.Parse(out)
	if err != nil {
		t.Fatalf("the result cannot be read: %v\n%s", err, out)
	}
	want := *before
	want.Forwards = nil
	for _, f := range before.Forwards {
		if f.Name != name {
			want.Forwards = append(want.Forwards, f)
		}
	}
	if diff := cmp.Diff(&want, after, comparable); diff != "" {
		t.Fatalf("after Remove(%q) (-want +got):\n%s\n%s", name, diff, out)
	}
	left := string(out)
	if len(want.Forwards) == 0 {
		left = strings.Replace(left, " []", "", 1)
	}
	if !keeps(string(src), left) {
		t.Fatalf("Remove(%q) changed more than it cut: from\n%s\nto\n%s", name, src, out)
	}
}

// replacedByAdd leaves out what Add may replace: an empty list or null.
func replacedByAdd(src string) string {
	for _, s := range []string{"null", "Null", "NULL", "~", "[]"} {
		src = strings.ReplaceAll(src, s, "")
	}
	return strings.Join(strings.FieldsFunc(src, func(r rune) bool { return strings.ContainsRune(" \t[]", r) }), "")
}

// keeps reports whether text has all bytes of rest in their order.
func keeps(text, rest string) bool {
	for i := 0; i < len(text) && rest != ""; i++ {
		if text[i] == rest[0] {
			rest = rest[1:]
		}
	}
	return rest == ""
}
