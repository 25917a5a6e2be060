// Package systemd has the units that run tunneld under systemd, as the packages
// install them.
package systemd

import "embed"

// Units are the unit files, by their names. They name the programs where the
// packages put them: /usr/bin/tunneld and /usr/libexec/tunneld-helper.
//
//go:embed *.service *.socket
var Units embed.FS
