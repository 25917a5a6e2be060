package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tunneld/tunneld/internal/forward"
)

// Config is what the file says, with the defaults of [Default] where it says
// nothing.
type Config struct {
	// Domain is what comes after the dot in the forwards' names.
	Domain string
	// Addresses is where the forwards' own addresses are taken from.
	Addresses netip.Prefix
	DNS       DNS
	Gateway   Gateway
	// Hold is how long a new connection waits for a back end.
	Hold     time.Duration
	Contexts Contexts
	Access   Access
	// Forwards are in the order of the file.
	Forwards []Forward
	// Absent is set by Load if there is no file, or no text in it: what a save
	// that failed leaves behind.
	Absent bool
}

// Access is whom connections are taken from, of the users of this machine.
type Access string

const (
	Everyone Access = "everyone" // the default
	// Me is the daemon's user, and root.
	Me Access = "me"
)

// DNS configures the responder. Port 0 means any free port.
type DNS struct {
	Listen netip.AddrPort
}

// Gateway holds the ports of the HTTP gateway. 0 means any free port.
type Gateway struct {
	HTTP, HTTPS uint16
}

// Contexts says which contexts are refused unless a forward allows production.
type Contexts struct {
	// Deny are patterns as [path.Match] knows them.
	Deny []string
}

// A Forward is one entry of the file's list.
type Forward struct {
	// Name is an RFC 1123 label, unique in the file.
	Name string
	// Workload is what target, namespace, context and kubeconfig name. The
	// paths in its Kubeconfig are absolute, a leading ~/ is expanded.
	Workload forward.Workload
	// Ports are the ports to carry; empty means all TCP ports.
	Ports []Port
	HTTP  HTTP
	// AllowProduction lets the forward use a context that is denied.
	AllowProduction bool
}

// A Port names one port of the target by its number or, if Number is 0, by its
// name.
type Port struct {
	Number uint16
	Name   string
	// TLS: terminate TLS on this port with a certificate for the forward.
	TLS bool
}

// HTTP says which port the gateway leads to. The zero value means that it is
// found from the target.
type HTTP struct {
	// Off means none.
	Off    bool
	Number uint16
	Name   string
}

// Default returns what holds where there is no file. The caller owns it.
func Default() *Config {
	return &Config{
		Domain:    "local",
		Addresses: netip.MustParsePrefix("127.77.0.0/16"),
		DNS:       DNS{Listen: netip.MustParseAddrPort("127.0.0.1:15353")},
		Gateway:   Gateway{HTTP: 80, HTTPS: 443},
		Hold:      30 * time.Second,
		Contexts:  Contexts{Deny: []string{"prod", "prod-*", "*-prod", "*-prod-*", "*production*"}},
		Access:    Everyone,
	}
}

// Equal reports whether f and g say the same.
func (f Forward) Equal(g Forward) bool {
	return f.Name == g.Name && f.Workload == g.Workload && slices.Equal(f.Ports, g.Ports) &&
		f.HTTP == g.HTTP && f.AllowProduction == g.AllowProduction
}

// Denies reports whether a context is denied, and by which pattern. This is a
// guard, so it errs on the safe side: case does not count, a star matches
// slashes too, and a context with slashes, as the ARNs that EKS writes, is also
// denied by what comes after the last of them.
func (c Contexts) Denies(context string) (pattern string, denied bool) {
	context = strings.ToLower(context)
	last := context[strings.LastIndex(context, "/")+1:]
	// path.Match treats no character but the slash as a separator.
	flat := strings.NewReplacer("/", "\x00")
	for _, p := range c.Deny {
		q := flat.Replace(strings.ToLower(p))
		for _, name := range []string{flat.Replace(context), last} {
			if ok, err := path.Match(q, name); ok && err == nil {
				return p, true
			}
		}
	}
	return "", false
}

// An Error is the first problem of a text, in the order of the text.
type Error struct {
	Path         string // empty if the text came from no file
	Line, Column int    // counted from 1, in characters
	Msg          string // one sentence
}

func (e *Error) Error() string {
	where := fmt.Sprintf("%d:%d: %s", e.Line, e.Column, e.Msg)
	if e.Path != "" {
		return e.Path + ":" + where
	}
	return where
}

// ErrNoHome: nobody says where the user's files are.
var ErrNoHome = errors.New("no home directory")

// DefaultPath is where the file is if nobody says otherwise:
// $XDG_CONFIG_HOME/tunneld/config.yaml, by default
// ~/.config/tunneld/config.yaml. It is the same on every operating system, so
// that one set of dotfiles serves them all.
func DefaultPath() (string, error) {
	// A relative path in the variable is to be ignored, says the XDG Base
	// Directory Specification.
	if dir := os.Getenv("XDG_CONFIG_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "tunneld", "config.yaml"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("find the configuration: %w: %w", ErrNoHome, err)
	}
	return filepath.Join(home, ".config", "tunneld", "config.yaml"), nil
}

// Load reads the file at path. An absent file is [Default]; a link that leads
// nowhere is an error. Problems in the text are an [*Error] with its Path set.
func Load(path string) (*Config, error) {
	src, info, err := readRegular(path)
	if err == nil && info == nil {
		if to, lerr := os.Readlink(path); lerr == nil {
			return nil, fmt.Errorf("read configuration: %s is a link to %s, which does not exist", path, to)
		}
		c := Default()
		c.Absent = true
		return c, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	c, err := Parse(src)
	if err != nil {
		return nil, withPath(err, path)
	}
	c.Absent = len(bytes.TrimSpace(src)) == 0
	return c, nil
}

// readLimited reads a little more than a configuration may hold, so that the
// wrong file is found out without being read whole.
func readLimited(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxSize+1))
}

// withPath completes an Error that does not know its file.
func withPath(err error, path string) error {
	if e, ok := errors.AsType[*Error](err); ok && e.Path == "" {
		e.Path = path
	}
	return err
}
