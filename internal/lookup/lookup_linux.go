package lookup

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/tunneld/tunneld/internal/osdns/machine"
)

// Names resolves names as the programs of this system do, through its libc:
// Go's own resolver takes other ways, and would find what others do not. A name
// that does not resolve is not in the result. It blocks for as long as the
// system takes, which asks for one name after the other, or until ctx is done.
func Names(ctx context.Context, names ...string) (map[string][]netip.Addr, error) {
	args := []string{"ahosts"}
	asked := make([]string, 0, len(names))
	for _, name := range names {
		if name == "" || name[0] == '-' { // to getent, an option
			continue
		}
		asked = append(asked, name)
		args = append(args, name, separator)
	}
	if len(asked) == 0 {
		return map[string][]netip.Addr{}, nil
	}
	path, err := machine.Program("getent")
	if err != nil {
		return asMusl(ctx, asked)
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.WaitDelay = killedDelay
	out, err := cmd.Output()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.As(err, &exit) && exit.ExitCode() == 2: // some were not found
	case errors.As(err, &exit) && exit.ExitCode() == 1: // it knows no ahosts
		return asMusl(ctx, asked)
	case err != nil:
		return nil, fmt.Errorf("getent ahosts: %w", err)
	}
	return parseAhosts(asked, string(out)), nil
}

// killedDelay is how long a getent that was killed may keep its output open.
const killedDelay = time.Second

// asMusl resolves names where there is no getent that does: these are systems
// with musl, which goes the way of Go's resolver, to the hosts file and then to DNS.
func asMusl(ctx context.Context, names []string) (map[string][]netip.Addr, error) {
	return each(ctx, (&net.Resolver{PreferGo: true}).LookupNetIP, names)
}

// separator stands between two names in what getent is asked for, and prints. It is
// an address, which nobody is asked about, and is for documentation (RFC 5737). What
// is found has the name that it leads to, so names alone would not tell which of
// them was found.
const separator = "192.0.2.255"

// parseAhosts reads what getent ahosts prints: for each name, a line for each
// address and kind of socket.
func parseAhosts(names []string, out string) map[string][]netip.Addr {
	found := make(map[string][]netip.Addr, len(names))
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		if len(names) == 0 || len(fields) < 2 {
			continue
		}
		if fields[0] == separator {
			// Its own line says its name, too, and the others of it do not.
			if len(fields) == 3 && fields[2] == separator && fields[1] == "STREAM" {
				names = names[1:]
			}
			continue
		}
		addr, err := netip.ParseAddr(fields[0])
		if err != nil {
			continue
		}
		if addr = addr.Unmap(); !slices.Contains(found[names[0]], addr) {
			found[names[0]] = append(found[names[0]], addr)
		}
	}
	return found
}
