package survey

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/tunneld/tunneld/internal/osdns/machine"
)

const nsswitchPath = "/etc/nsswitch.conf"

// A Source is one word of the "hosts:" line of nsswitch.conf, with what libc does
// after each answer of it.
type Source struct {
	Name string
	// returns are the answers after which nobody else is asked.
	returns []string
}

// NotFound is the answer that there is no such name.
const NotFound = "notfound"

// The other answers of a source.
const (
	success  = "success"
	unavail  = "unavail"
	tryAgain = "tryagain"
)

// parseNsswitch reads the "hosts:" line; line is it as it is written. ok: there is
// one.
func parseNsswitch(file []byte) (sources []Source, line string, ok bool) {
	for l := range strings.Lines(string(file)) {
		l, _, _ = strings.Cut(l, "#")
		database, words, found := strings.Cut(l, ":")
		if !found || strings.TrimSpace(database) != "hosts" {
			continue
		}
		line = strings.Join(strings.Fields(words), " ")
		return parseSources(words), line, true
	}
	return nil, "", false
}

func parseSources(words string) []Source {
	var sources []Source
	for words = strings.TrimSpace(words); words != ""; words = strings.TrimSpace(words) {
		if words[0] != '[' {
			end := strings.IndexAny(words, " \t[")
			if end < 0 {
				end = len(words)
			}
			sources = append(sources, Source{Name: strings.ToLower(words[:end]), returns: []string{success}})
			words = words[end:]
			continue
		}
		actions, rest, _ := strings.Cut(words[1:], "]")
		words = rest
		if len(sources) > 0 {
			sources[len(sources)-1].act(actions)
		}
	}
	return sources
}

// act applies what stands in brackets: "NOTFOUND=return", "!UNAVAIL=return".
func (s *Source) act(actions string) {
	for action := range strings.FieldsSeq(strings.ToLower(actions)) {
		answer, what, _ := strings.Cut(action, "=")
		answer, not := strings.CutPrefix(answer, "!")
		for _, a := range []string{success, NotFound, unavail, tryAgain} {
			if (a == answer) == not {
				continue
			}
			s.returns = slices.DeleteFunc(s.returns, func(r string) bool { return r == a })
			if what == "return" {
				s.returns = append(s.returns, a)
			}
		}
	}
}

// Ends reports whether nobody else is asked after that answer.
func (s Source) Ends(answer string) bool { return slices.Contains(s.returns, answer) }

// isMDNS reports whether it is a module of nss-mdns, which takes names of two labels
// in .local for its own.
func (s Source) isMDNS() bool { return strings.HasPrefix(s.Name, "mdns") }

// Sources reads what this system has; line is the "hosts:" line as it is written.
// Where there is no such line, all libcs read files first, and then ask DNS.
func Sources(s machine.System) (sources []Source, line string, err error) {
	file, err := s.ReadFile(nsswitchPath)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, "", err
	}
	sources, line, ok := parseNsswitch(file)
	if !ok {
		return parseSources("files dns"), "", nil
	}
	return sources, line, nil
}

// Before returns those before the first of the sources that ok is true for; found:
// there is one.
func Before(sources []Source, ok func(Source) bool) (before []Source, found bool) {
	i := slices.IndexFunc(sources, ok)
	if i < 0 {
		return sources, false
	}
	return sources[:i], true
}

// harmless are sources that answer for nothing but this machine and its containers,
// or read the hosts file themselves.
var harmless = []string{"myhostname", "mymachines", "resolve"}

// FilesFirst reports whether the hosts file is read before anybody who could answer
// for our names is asked.
func FilesFirst(s machine.System) (why string, ok bool) {
	sources, line, err := Sources(s)
	if err != nil {
		return err.Error(), false
	}
	before, found := Before(sources, func(s Source) bool { return s.Name == "files" })
	if !found {
		return fmt.Sprintf("nsswitch.conf does not read the hosts file: hosts: %s", line), false
	}
	for _, b := range before {
		if !slices.Contains(harmless, b.Name) {
			return fmt.Sprintf("nsswitch.conf asks %s before it reads the hosts file", b.Name), false
		}
	}
	return "the hosts file is read before anybody is asked", true
}

const (
	unixSockets = "/proc/net/unix"
	avahiSocket = "/avahi-daemon/socket"
)

// AvahiRuns reports whether somebody listens where nss-mdns asks: Avahi, or who
// would start it. The socket's file alone does not tell, it stays when Avahi ends.
func AvahiRuns(s machine.System) bool {
	file, err := s.ReadFile(unixSockets)
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(file)) {
		if strings.HasSuffix(strings.TrimSpace(line), avahiSocket) {
			return true
		}
	}
	return false
}

// MDNSSees finds a name that nss-mdns is asked for before the source is that ok is
// true for, and ends there if Avahi runs: such names have two labels, the second of
// which is local.
func MDNSSees(sources []Source, names []string, ok func(Source) bool) (name string, sees bool) {
	before, _ := Before(sources, ok)
	if !slices.ContainsFunc(before, func(s Source) bool { return s.isMDNS() && s.Ends(NotFound) }) {
		return "", false
	}
	i := slices.IndexFunc(names, isTwoLabelLocal)
	if i < 0 {
		return "", false
	}
	return names[i], true
}

func isTwoLabelLocal(name string) bool {
	first, ok := strings.CutSuffix(name, ".local")
	return ok && !strings.Contains(first, ".")
}
