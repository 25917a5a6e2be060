//go:build dist

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// enter runs a script of the packages, $1 with the arguments after it, where it can
// do no harm: in a mount namespace, in which all but what it may write is read-only.
// $SYSTEMD, $RECEIPTS, $COPIES say what there is. At last it lists what is left of the
// programs' files.
const enter = `set -e
keep=$1; shift
mount -t tmpfs none "$keep/rw"
mkdir "$keep/rw/run" "$keep/rw/lib" "$keep/rw/etc" "$keep/rw/local"
mount --bind "$keep/rw/run" /run
mount --bind "$keep/rw/lib" /var/lib
mount --bind "$keep/rw/etc" /etc
mount --bind "$keep/rw/local" /usr/local
mkdir -p /etc/tunneld/helper /var/lib/tunneld/install /var/lib/tunneld-helper /var/lib/others
[ -z "$SYSTEMD" ] || mkdir -p /run/systemd/system
[ -z "$COPIES" ] || { mkdir -p /usr/local/libexec/tunneld; : >/usr/local/libexec/tunneld/tunneld; }
[ -z "$RECEIPTS" ] || : >/var/lib/tunneld/install/1000.json
mount -o remount,ro,bind /
if touch "$keep/bin/tunneld" 2>/dev/null; then echo "it is not read-only"; exit 1; fi
status=0
PATH=$keep/bin:$PATH dash "$@" || status=$?
cd / && find etc var/lib -mindepth 1 -maxdepth 1 | sort
exit $status
`

// TestScripts runs each script as dpkg and rpm do, in the cases that there are,
// with a systemctl and a tunneld that only say what they are asked.
func TestScripts(t *testing.T) {
	all := []string{"etc/tunneld", "var/lib/others", "var/lib/tunneld", "var/lib/tunneld-helper"}
	const (
		next    = `tunneld: run "sudo tunneld install" to set it up for yourself.`
		copies  = `tunneld: what runs are the copies in /usr/local/libexec/tunneld; run "sudo /usr/bin/tunneld install" for this package.`
		reload  = "systemctl: daemon-reload"
		restart = "systemctl: try-restart tunneld@*.service"
		undo    = "tunneld: uninstall --all --yes"
		stop    = "systemctl: stop tunneld@*.service tunneld-helper@*.socket tunneld-helper@*.service"
		kept    = "tunneld: not all of what was set up could be taken out."
	)
	tests := []struct {
		name, script string
		args         string
		set          string // of SYSTEMD, RECEIPTS, COPIES, and FAILS: all programs fail
		said         []string
		left         []string // nil: all
	}{
		{"dpkg installs", "postinst", "configure", "SYSTEMD", []string{reload, restart, next}, nil},
		{"dpkg installs, without systemd", "postinst", "configure", "", []string{next}, nil},
		{"dpkg upgrades", "postinst", "configure 0.5.0-1", "SYSTEMD RECEIPTS", []string{reload, restart}, nil},
		{"dpkg installs beside copies", "postinst", "configure", "SYSTEMD RECEIPTS COPIES", []string{reload, restart, copies}, nil},
		{"dpkg upgrades, and systemd cannot", "postinst", "configure 0.5.0-1", "SYSTEMD RECEIPTS FAILS", []string{reload, restart}, nil},
		{"dpkg gives an upgrade up", "postinst", "abort-upgrade 0.6.0-1", "SYSTEMD RECEIPTS", nil, nil},
		{"rpm installs", "postinst", "1", "SYSTEMD", []string{reload, restart, next}, nil},
		{"rpm upgrades", "postinst", "2", "SYSTEMD RECEIPTS", []string{reload, restart}, nil},

		{"dpkg is about to upgrade", "prerm", "upgrade 0.7.0-1", "SYSTEMD RECEIPTS", nil, nil},
		{"dpkg is about to remove", "prerm", "remove", "SYSTEMD RECEIPTS", []string{undo, stop}, nil},
		{"dpkg is about to remove, and nothing works", "prerm", "remove", "SYSTEMD RECEIPTS FAILS", []string{undo, kept, stop}, nil},
		{"dpkg is about to remove, without systemd", "prerm", "remove", "RECEIPTS", []string{undo}, nil},
		{"dpkg is about to take another instead", "prerm", "remove in-favour other 1", "SYSTEMD RECEIPTS", []string{undo, stop}, nil},
		{"rpm has upgraded", "prerm", "1", "SYSTEMD RECEIPTS", nil, nil},
		{"rpm is about to remove", "prerm", "0", "SYSTEMD RECEIPTS", []string{undo, stop}, nil},

		{"dpkg has upgraded", "postrm", "upgrade 0.7.0-1", "SYSTEMD RECEIPTS", []string{reload}, nil},
		{"dpkg has removed", "postrm", "remove", "SYSTEMD", []string{reload}, nil},
		{"dpkg has removed, and systemd cannot", "postrm", "remove", "SYSTEMD FAILS", []string{reload}, nil},
		{"dpkg purges", "postrm", "purge", "SYSTEMD", []string{reload}, []string{"var/lib/others"}},
		{"dpkg purges, without systemd", "postrm", "purge", "", nil, []string{"var/lib/others"}},
		{"rpm has removed", "postrm", "0", "SYSTEMD", []string{reload}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.Mkdir(filepath.Join(dir, "rw"), 0o700); err != nil {
				t.Fatal(err)
			}
			for _, program := range []string{"systemctl", "tunneld"} {
				// It says so where the script's own words go.
				fake := "#!/bin/sh\necho \"" + program + ": $*\"\n[ -z \"$FAILS\" ]\n"
				name := filepath.Join(dir, "bin", program)
				if err := write(name, []byte(fake)); err != nil {
					t.Fatal(err)
				}
				if err := os.Chmod(name, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			script, err := filepath.Abs(filepath.Join(repository, "packaging/nfpm", tt.script))
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command("unshare", append([]string{"--mount", "sh", "-c", enter, "sh", dir, script}, strings.Fields(tt.args)...)...)
			cmd.Env = append(os.Environ(), "SYSTEMD=", "RECEIPTS=", "COPIES=", "FAILS=")
			for _, name := range strings.Fields(tt.set) {
				cmd.Env = append(cmd.Env, name+"=yes")
			}
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("%v", err)
			}
			left := tt.left
			if left == nil {
				left = all
			}
			if got, want := lines(out), slices.Concat(tt.said, left); !slices.Equal(got, want) {
				t.Errorf("it said, and left\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
			}
		})
	}
}
