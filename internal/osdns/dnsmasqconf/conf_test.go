package dnsmasqconf

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tunneld/tunneld/internal/osdns/machine"
)

// played returns a machine that has these files.
func played(files map[string]string) machine.System {
	root := make(fstest.MapFS)
	for path, data := range files {
		root[path[1:]] = &fstest.MapFile{Data: []byte(data)}
	}
	return machine.System{
		ReadFile: func(path string) ([]byte, error) { return root.ReadFile(path[1:]) },
		ReadDir:  func(path string) ([]fs.DirEntry, error) { return root.ReadDir(path[1:]) },
	}
}

func TestRead(t *testing.T) {
	dirs := func(d ...Dir) []Dir { return d }
	for _, test := range []struct {
		name  string
		args  string
		files map[string]string
		want  Conf
	}{
		{name: "nothing", args: "dnsmasq"},
		{name: "arguments", args: "dnsmasq -x /run/x -7 /etc/dnsmasq.d,.dpkg-dist,.dpkg-old --stop-dns-rebind --servers-file=/x",
			want: Conf{Dirs: dirs(Dir{Path: "/etc/dnsmasq.d", none: []string{".dpkg-dist", ".dpkg-old"}}), Servers: "/x", Rebind: true}},
		{name: "files", args: "dnsmasq", files: map[string]string{
			"/etc/dnsmasq.conf":     "#conf-dir=/no\nconf-dir = /etc/dnsmasq.d/,*.conf # these\nconf-file=/etc/more\n",
			"/etc/more":             "conf-file=/etc/dnsmasq.conf\nservers-file=\"/etc/servers\"\n",
			"/etc/dnsmasq.d/a.conf": "stop-dns-rebind\n", "/etc/dnsmasq.d/b.old": "servers-file=/no\n", "/etc/dnsmasq.d/tunneld.conf": "servers-file=/no\n", "/etc/dnsmasq.d/.c.conf": "rebind-localhost-ok\n",
		}, want: Conf{Dirs: dirs(Dir{Path: "/etc/dnsmasq.d", only: []string{".conf"}}), Servers: "/etc/servers", Rebind: true}},
		{name: "another file", args: "dnsmasq --conf-file=/dev/null --conf-dir=/etc/NetworkManager/dnsmasq.d", files: map[string]string{
			"/etc/dnsmasq.conf": "stop-dns-rebind\n", "/etc/NetworkManager/dnsmasq.d/x": "rebind-localhost-ok",
		}, want: Conf{Dirs: dirs(Dir{Path: "/etc/NetworkManager/dnsmasq.d"}), RebindLocal: true}},
		{name: "another file, short", args: "dnsmasq -C /etc/mine", files: map[string]string{"/etc/dnsmasq.conf": "stop-dns-rebind\n", "/etc/mine": "conf-dir=/etc/d,\n"},
			want: Conf{Dirs: dirs(Dir{Path: "/etc/d"})}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := Read(played(test.files), strings.Fields(test.args))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(Dir{}), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("configuration (-want +got):\n%s", diff)
			}
		})
	}
}

func FuzzConf(f *testing.F) {
	f.Add([]byte("conf-dir=/a,*.conf,.x\nconf-file=/b\nservers-file=x # y\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var c Conf
		var files []string
		c.parse(data, &files)
		for _, d := range c.Dirs {
			if d.Path == "" {
				t.Error("a directory without a path")
			}
			d.Reads(Ours)
		}
	})
}

func TestFind(t *testing.T) {
	const process = "/proc/77/cmdline"
	for _, test := range []struct {
		name   string
		files  map[string]string
		states []string // of the unit, one after the other
		want   Resident
		none   bool
	}{
		{name: "none", states: []string{"inactive"}, none: true},
		{name: "a service", files: map[string]string{process: "/usr/sbin/dnsmasq\x00--servers-file=/x\x00"}, states: []string{"active"},
			want: Resident{Unit: Unit, PID: 77, Args: []string{"--servers-file=/x"}, Conf: Conf{Servers: "/x"}}},
		{name: "being started", files: map[string]string{process: "dnsmasq\x00"}, states: []string{"activating", "reloading", "active"},
			want: Resident{Unit: Unit, PID: 77}},
		{name: "failed", states: []string{"failed"}, want: Resident{Unit: Unit}},
		{name: "another program", files: map[string]string{process: "sh\x00"}, states: []string{"active"}, none: true},
		{name: "NetworkManager's", files: map[string]string{networkManagerPID: "77\n", process: "dnsmasq\x00"}, want: Resident{Unit: NetworkManager, PID: 77}},
		{name: "one that NetworkManager had", files: map[string]string{networkManagerPID: "78\n"}, states: []string{"inactive"}, none: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := played(test.files)
			s.ServiceState = func(_ context.Context, unit string) (state string, pid int, err error) {
				if unit != Unit || len(test.states) == 0 {
					t.Fatalf("%s was asked about", unit)
				}
				state, test.states = test.states[0], test.states[1:]
				if state == "active" {
					pid = 77
				}
				return state, pid, nil
			}
			got, err := Find(t.Context(), s)
			if test.none != errors.Is(err, ErrNone) || !test.none && err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(Dir{}), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("found (-want +got):\n%s", diff)
			}
		})
	}
}
