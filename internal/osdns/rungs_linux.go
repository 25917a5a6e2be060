package osdns

import (
	"log/slog"

	"github.com/tunneld/tunneld/internal/osdns/machine"
)

// systemRungs are the ways of this system, the best first.
func systemRungs(s machine.System, dir string, _ *slog.Logger) []rung {
	d := &dnsmasq{s, dir}
	order := func() (string, bool) { return filesFirst(s) }
	return []rung{
		&delegate{s},
		&link{s},
		d,
		&hosts{System: s, path: hostsPath, lines: hostsLines, eol: "\n", order: order, flush: d.rereadHosts},
	}
}

const hostsPath = "/etc/hosts"
