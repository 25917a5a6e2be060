package config

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unicode"
)

// Marshal prints a list of forwards exactly as [Add] writes it, for people to
// read and to copy into a file.
func Marshal(forwards []Forward) ([]byte, error) {
	var b strings.Builder
	b.WriteString("forwards:")
	if len(forwards) == 0 {
		b.WriteString(" []")
	}
	b.WriteString("\n")
	for _, f := range forwards {
		f, err := f.checked()
		if err != nil {
			return nil, err
		}
		b.WriteString(f.block("", "- "))
	}
	return []byte(b.String()), nil
}

// checked returns f as it is read back after it was written, or says what is
// wrong with it.
func (f Forward) checked() (Forward, error) {
	c, err := Parse([]byte("version: 1\nforwards:\n" + f.block("", "- ")))
	if err != nil {
		// Where in a text that nobody has seen is of no interest.
		if e, ok := errors.AsType[*Error](err); ok {
			err = errors.New(e.Msg)
		}
		return f, fmt.Errorf("forward %q: %w", f.Name, err)
	}
	g := c.Forwards[0]
	f.Workload.Kubeconfig = g.Workload.Kubeconfig
	if !f.Equal(g) {
		return f, fmt.Errorf("forward %q: the file cannot express it", f.Name)
	}
	return g, nil
}

// block is the entry of a block list: the dash after the given indentation,
// and the keys below each other.
func (f Forward) block(indent, dash string) string {
	var b strings.Builder
	for i, line := range f.fields(false) {
		if i == 1 {
			dash = strings.Repeat(" ", len(dash))
		}
		b.WriteString(indent + dash + line + "\n")
	}
	return b.String()
}

// flow is the entry of a flow list.
func (f Forward) flow() string {
	return "{" + strings.Join(f.fields(true), ", ") + "}"
}

// fields are the entry's keys with their values.
func (f Forward) fields(flow bool) []string {
	text := func(s string) string { return quote(s, flow) }
	fields := []string{
		"name: " + text(f.Name),
		"target: " + text(f.Workload.Ref()),
		"namespace: " + text(f.Workload.Namespace),
		"context: " + text(f.Workload.Context),
	}
	if k := f.Workload.Kubeconfig; k != "" {
		fields = append(fields, "kubeconfig: "+text(abbreviatePaths(k, os.UserHomeDir)))
	}
	if len(f.Ports) > 0 {
		var ports []string
		for _, p := range f.Ports {
			s := quote(p.ref(), true)
			if p.Number != 0 {
				s = p.ref()
			}
			if p.TLS {
				s = "{port: " + s + ", tls: true}"
			}
			ports = append(ports, s)
		}
		fields = append(fields, "ports: ["+strings.Join(ports, ", ")+"]")
	}
	switch h := f.HTTP; {
	case h.Off:
		fields = append(fields, "http: none")
	case h.Number != 0:
		fields = append(fields, "http: "+h.port().ref())
	case h.Name != "":
		fields = append(fields, "http: "+text(h.Name))
	}
	if f.AllowProduction {
		fields = append(fields, "allowProduction: true")
	}
	return fields
}

// quote writes a text so that every YAML reader, old or new, reads that text.
func quote(s string, flow bool) string {
	switch {
	case isPlain(s, flow):
		return s
	case strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }):
		return strconv.QuoteToASCII(s) // Go's escapes are among YAML's
	case strings.ContainsAny(s, `\"`):
		return "'" + strings.ReplaceAll(s, "'", "''") + "'"
	}
	return `"` + s + `"`
}

// isPlain reports whether s means the same without quotes.
func isPlain(s string, flow bool) bool {
	letter := func(r rune) bool { return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' }
	safe := "_./@+-~"
	if !flow {
		safe += ":\\" // as in paths and ARNs
	}
	for i, r := range s {
		first := letter(r) || r == '/' || r == '_' || r == '~' || r == '.'
		if i == 0 && !first || i > 0 && !letter(r) && !strings.ContainsRune(safe, r) {
			return false
		}
	}
	return s != "" && !strings.HasSuffix(s, ":") && !looksTyped(s)
}

// looksTyped reports whether some version of YAML reads the plain text s as
// something else than text: null, a boolean, a number, a time of day in base 60
// or a date.
func looksTyped(s string) bool {
	switch strings.ToLower(s) {
	case "~", "null", "true", "false", "yes", "no", "on", "off", "y", "n", ".inf", ".nan":
		return true
	}
	if s[0] != '.' && (s[0] < '0' || s[0] > '9') {
		return false
	}
	if s[0] == '0' && len(s) > 1 && strings.ContainsRune("xob", rune(s[1])) {
		return true
	}
	return strings.Trim(s, "0123456789_.:+-eEtTzZ") == ""
}
