package osdns

import (
	"log/slog"
	"path/filepath"

	"github.com/tunneld/tunneld/internal/osdns/dnsmasqconf"
	"github.com/tunneld/tunneld/internal/osdns/machine"
	"github.com/tunneld/tunneld/internal/osdns/survey"
)

// systemRungs are the ways of this system, the best first.
func systemRungs(s machine.System, dir string, _ *slog.Logger) []rung {
	d := &dnsmasq{s, dir}
	order := func() (string, bool) { return survey.FilesFirst(s) }
	return []rung{
		&delegate{s},
		&link{s},
		d,
		&hosts{System: s, path: hostsPath, lines: hostsLines, eol: "\n", order: order, flush: d.rereadHosts},
	}
}

const hostsPath = "/etc/hosts"

// Watched are files whose change may mean that names are no longer found as they
// were: not all of them are there, nor all of their directories.
func Watched() []string {
	watched := append(survey.Files(), hostsPath, delegateDir)
	for _, dir := range dnsmasqDirs {
		watched = append(watched, filepath.Join(dir, dnsmasqconf.Ours))
	}
	return watched
}
