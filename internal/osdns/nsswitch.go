package osdns

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/tunneld/tunneld/internal/osdns/machine"
)

const nsswitchPath = "/etc/nsswitch.conf"

// A source is one word of the "hosts:" line of nsswitch.conf, with what libc does
// after each answer of it.
type source struct {
	name string
	// returns are the answers after which nobody else is asked.
	returns []string
}

// The answers of a source.
const (
	answerSuccess  = "success"
	answerNotFound = "notfound"
	answerUnavail  = "unavail"
	answerTryAgain = "tryagain"
)

// parseNsswitch reads the "hosts:" line; line is it as it is written. ok: there is
// one.
func parseNsswitch(file []byte) (sources []source, line string, ok bool) {
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

func parseSources(words string) []source {
	var sources []source
	for words = strings.TrimSpace(words); words != ""; words = strings.TrimSpace(words) {
		if words[0] != '[' {
			end := strings.IndexAny(words, " \t[")
			if end < 0 {
				end = len(words)
			}
			sources = append(sources, source{name: strings.ToLower(words[:end]), returns: []string{answerSuccess}})
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
func (s *source) act(actions string) {
	for action := range strings.FieldsSeq(strings.ToLower(actions)) {
		answer, what, _ := strings.Cut(action, "=")
		answer, not := strings.CutPrefix(answer, "!")
		for _, a := range []string{answerSuccess, answerNotFound, answerUnavail, answerTryAgain} {
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

func (s source) ends(answer string) bool { return slices.Contains(s.returns, answer) }

// isMDNS reports whether it is a module of nss-mdns, which takes names of two labels
// in .local for its own.
func (s source) isMDNS() bool { return strings.HasPrefix(s.name, "mdns") }

// readNsswitch reads what this system has. Where there is no such line, all libcs
// read files first, and then ask DNS.
func readNsswitch(s machine.System) (sources []source, line string, err error) {
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

// first returns the first of the sources that ok is true for, and those before it.
func first(sources []source, ok func(source) bool) (before []source, found bool) {
	i := slices.IndexFunc(sources, ok)
	if i < 0 {
		return sources, false
	}
	return sources[:i], true
}

// harmless are sources that answer for nothing but this machine and its containers,
// or read the hosts file themselves.
var harmless = []string{"myhostname", "mymachines", "resolve"}

// filesFirst reports whether the hosts file is read before anybody who could answer
// for our names is asked.
func filesFirst(s machine.System) (why string, ok bool) {
	sources, line, err := readNsswitch(s)
	if err != nil {
		return err.Error(), false
	}
	before, found := first(sources, func(s source) bool { return s.name == "files" })
	if !found {
		return fmt.Sprintf("nsswitch.conf does not read the hosts file: hosts: %s", line), false
	}
	for _, b := range before {
		if !slices.Contains(harmless, b.name) {
			return fmt.Sprintf("nsswitch.conf asks %s before it reads the hosts file", b.name), false
		}
	}
	return "the hosts file is read before anybody is asked", true
}

const (
	unixSockets = "/proc/net/unix"
	avahiSocket = "/avahi-daemon/socket"
)

// avahiRuns reports whether somebody listens where nss-mdns asks: Avahi, or who
// would start it. The socket's file alone does not tell, it stays when Avahi ends.
func avahiRuns(s machine.System) bool {
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

// mdnsSees finds a name that nss-mdns is asked for before the source is that ok is
// true for, and ends there if Avahi runs: such names have two labels, the second of
// which is local.
func mdnsSees(sources []source, names []Name, ok func(source) bool) (name string, sees bool) {
	before, _ := first(sources, ok)
	if !slices.ContainsFunc(before, func(s source) bool { return s.isMDNS() && s.ends(answerNotFound) }) {
		return "", false
	}
	i := slices.IndexFunc(names, func(n Name) bool { return isTwoLabelLocal(n.Name) })
	if i < 0 {
		return "", false
	}
	return names[i].Name, true
}

func isTwoLabelLocal(name string) bool {
	first, ok := strings.CutSuffix(name, ".local")
	return ok && !strings.Contains(first, ".")
}
