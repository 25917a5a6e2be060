package systemd

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/tunneld/tunneld/internal/rootapi"
	"github.com/tunneld/tunneld/internal/setup"
	"github.com/tunneld/tunneld/internal/setup/setuptest"
	units "github.com/tunneld/tunneld/packaging/systemd"
)

func wish() Wish {
	return Wish{
		UID: "1000", State: "/home/dev/.local/state/tunneld", Environment: "/home/dev/.local/state/tunneld/environment.json",
		Missing: []string{"/home/dev/.local", "/home/dev/.local/state"},
		Domain:  "local", Addresses: netip.MustParsePrefix("127.77.0.0/16"), Ports: []uint16{80, 8443},
		Content: map[string][]byte{"tunneld": []byte("daemon"), "tunnelctl": []byte("client"), "tunneld-helper": []byte("helper")},
		Units:   fstest.MapFS{"tunneld@.service": {Data: []byte("ExecStart=/usr/bin/tunneld run --service\nExecStop=/usr/libexec/tunneld-helper release\n")}},
	}
}

func TestPlan(t *testing.T) {
	tests := []struct {
		name   string
		change func(w *Wish)
	}{
		{"copied", func(*Wish) {}},
		{"packaged", func(w *Wish) { w.Packaged = true }},
		{"without", func(w *Wish) { w.Without = []string{setup.NamesStep, setup.TrustStep, setup.EnvironmentStep} }},
		{"domain", func(w *Wish) { w.Packaged, w.Domain, w.Ports = true, "dev.example.com", nil }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := wish()
			tt.change(&w)
			plan, err := Plan(w)
			if err != nil {
				t.Fatal(err)
			}
			var text strings.Builder
			for _, i := range plan {
				text.WriteString(setuptest.Line(i))
				for line := range strings.Lines(string(i.Content)) {
					text.WriteString("    " + line)
				}
				if len(i.Content) > 0 && !strings.HasSuffix(string(i.Content), "\n") {
					text.WriteByte('\n')
				}
			}
			setuptest.Check(t, plan)
			setuptest.Golden(t, tt.name+".golden", []byte(text.String()))
		})
	}
}

// The helper understands the policy that is written for it.
func TestPolicy(t *testing.T) {
	for _, domain := range []string{"local", "localhost", "test", "svc.cluster.local", "dev.example.com"} {
		w := wish()
		w.Domain = domain
		plan, err := Plan(w)
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(plan, func(i setup.Item) bool { return i.Path == "/etc/tunneld/helper/1000.json" })
		policy, err := rootapi.ParsePolicy(plan[i].Content)
		if err != nil {
			t.Errorf("domain %s: %v\n%s", domain, err, plan[i].Content)
			continue
		}
		if policy.UID != 1000 || !slices.Contains(policy.Suffixes, domain) || policy.Addresses != w.Addresses || !slices.Equal(policy.SharedPorts, []uint16{80}) {
			t.Errorf("domain %s: %+v", domain, policy)
		}
	}
}

// What the packages' units run, those of an installation without a package run from
// where it is.
func TestUnits(t *testing.T) {
	w := wish()
	w.Units = units.Units
	plan, err := Plan(w)
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, i := range plan {
		if filepath.Dir(i.Path) != unitDir {
			continue
		}
		seen++
		for line := range strings.Lines(string(i.Content)) {
			key, command, _ := strings.Cut(line, "=")
			if strings.HasPrefix(key, "Exec") && strings.Contains(command, "tunneld") && !strings.HasPrefix(command, ProgramDir+"/") && !strings.Contains(command, "exec "+ProgramDir+"/") {
				t.Errorf("%s: %s", i.Path, line)
			}
		}
	}
	if seen != 3 {
		t.Errorf("there are %d units", seen)
	}
}

func TestNoUnits(t *testing.T) {
	w := wish()
	w.Units = fstest.MapFS{}
	if _, err := Plan(w); err == nil {
		t.Error("a plan without units")
	}
}

// playedSystemctl answers as systemctl does.
type playedSystemctl struct {
	answers map[string]string // by arguments; a text that begins with "!" is an error
	asked   []string
}

func (p *playedSystemctl) run(_ context.Context, args ...string) ([]byte, error) {
	line := strings.Join(args, " ")
	p.asked = append(p.asked, line)
	if text, ok := strings.CutPrefix(p.answers[line], "!"); ok {
		return nil, errors.New(text)
	}
	return []byte(p.answers[line]), nil
}

func TestManager(t *testing.T) {
	const unit = "tunneld@1000.service"
	tests := []struct {
		name    string
		answers map[string]string
		do      func(m Manager) (any, error)
		want    string   // what it returned, as JSON
		asked   []string // in this order
		fails   bool
	}{
		{
			name:    "one that runs",
			answers: map[string]string{"show --property=UnitFileState,ActiveState " + unit: "ActiveState=active\nUnitFileState=enabled\n"},
			do:      func(m Manager) (any, error) { return m.State(t.Context(), unit) },
			want:    `{"Enabled":true,"Active":true}`,
		},
		{
			name:    "one that is not there",
			answers: map[string]string{"show --property=UnitFileState,ActiveState " + unit: "ActiveState=inactive\nUnitFileState=\n"},
			do:      func(m Manager) (any, error) { return m.State(t.Context(), unit) },
			want:    `{"Enabled":false,"Active":false}`,
		},
		{
			name:    "one that fails again and again",
			answers: map[string]string{"show --property=UnitFileState,ActiveState " + unit: "ActiveState=activating\nUnitFileState=enabled\n"},
			do:      func(m Manager) (any, error) { return m.State(t.Context(), unit) },
			want:    `{"Enabled":true,"Active":false}`,
		},
		{
			name:  "enable",
			do:    func(m Manager) (any, error) { return nil, m.Enable(t.Context(), unit) },
			asked: []string{"enable --quiet " + unit, "start " + unit},
		},
		{
			name:    "one that does not start",
			answers: map[string]string{"start " + unit: "!exit status 1"},
			do:      func(m Manager) (any, error) { return nil, m.Enable(t.Context(), unit) },
			fails:   true,
		},
		{
			name:    "disable",
			answers: map[string]string{"show --property=LoadState --value " + unit: "loaded\n"},
			do:      func(m Manager) (any, error) { return nil, m.Disable(t.Context(), unit) },
			asked: []string{
				"show --property=LoadState --value " + unit, "stop " + unit, "disable --quiet " + unit,
				"clean --what=runtime " + unit, "reset-failed " + unit,
			},
		},
		{
			name: "disable what is not there",
			answers: map[string]string{
				"show --property=LoadState --value " + unit: "not-found\n", "stop " + unit: "!not loaded", "reset-failed " + unit: "!not loaded",
			},
			do: func(m Manager) (any, error) { return nil, m.Disable(t.Context(), unit) },
		},
		{
			name:    "one that cannot be stopped",
			answers: map[string]string{"show --property=LoadState --value " + unit: "loaded\n", "stop " + unit: "!refused"},
			do:      func(m Manager) (any, error) { return nil, m.Disable(t.Context(), unit) },
			fails:   true,
		},
		{
			name:  "settle",
			do:    func(m Manager) (any, error) { return nil, m.Settle(t.Context()) },
			asked: []string{"daemon-reload"},
		},
		{
			name:  "restart",
			do:    func(m Manager) (any, error) { return nil, m.Restart(t.Context(), unit) },
			asked: []string{"restart " + unit},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := &playedSystemctl{answers: tt.answers}
			silent := func(context.Context, string) ([]byte, error) { return nil, errors.New("no journal") }
			got, err := tt.do(Manager{run: p.run, journal: silent, runtime: t.TempDir(), Dir: t.TempDir()})
			if (err != nil) != tt.fails {
				t.Fatalf("failed: %v", err)
			}
			if tt.want != "" {
				if text, _ := json.Marshal(got); string(text) != tt.want {
					t.Errorf("got %s; want %s", text, tt.want)
				}
			}
			if tt.asked != nil {
				if diff := cmp.Diff(tt.asked, p.asked); diff != "" {
					t.Errorf("asked (-want +got):\n%s", diff)
				}
			}
		})
	}
}

// What systemd has made for sockets goes with the last of them.
func TestRuntimeDirectories(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(os.MkdirAll(filepath.Join(dir, "tunneld", "1001"), 0o755), os.Mkdir(filepath.Join(dir, "tunneld-helper"), 0o755)); err != nil {
		t.Fatal(err)
	}
	m := Manager{runtime: dir, Dir: t.TempDir(), run: func(context.Context, ...string) ([]byte, error) { return nil, nil }}
	if err := m.Disable(t.Context(), "tunneld@1000.service"); err != nil {
		t.Fatal(err)
	}
	for name, there := range map[string]bool{"tunneld": true, "tunneld-helper": false} {
		if _, err := os.Stat(filepath.Join(dir, name)); (err == nil) != there {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Why a service does not start, it says itself; systemctl does not.
func TestExplained(t *testing.T) {
	const unit = "tunneld@1000.service"
	said := "Starting...\ntunneld: error: an older one\n" +
		"tunneld: error: another tunneld uses \x1b[2J/home/dev/.local/state/tunneld\ntunneld: hint: use that one\nStopped.\n"
	for _, tt := range []struct{ name, said, want string }{
		{"it said so", said, `exit status 1 It said: "another tunneld uses \x1b[2J/home/dev/.local/state/tunneld"`},
		{"it said nothing", "Starting...\n", "exit status 1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := Manager{
				run: func(_ context.Context, args ...string) ([]byte, error) {
					if args[0] == "start" {
						return nil, errors.New("exit status 1")
					}
					return nil, nil
				},
				journal: func(context.Context, string) ([]byte, error) { return []byte(tt.said), nil },
			}
			if err := m.Enable(t.Context(), unit); err == nil || !strings.HasSuffix(err.Error(), tt.want) {
				t.Errorf("%v; want %s", err, tt.want)
			}
		})
	}
}

// Where systemd does not run, what has a unit start is taken out none the less.
func TestOffline(t *testing.T) {
	const unit = "tunneld@1000.service"
	dir := t.TempDir()
	wants := filepath.Join(dir, "multi-user.target.wants")
	if err := os.Mkdir(wants, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/systemd/system/tunneld@.service", filepath.Join(wants, unit)); err != nil {
		t.Fatal(err)
	}
	m := Manager{Offline: true, Dir: dir, run: func(_ context.Context, args ...string) ([]byte, error) {
		t.Errorf("systemctl %q", args)
		return nil, nil
	}}
	if s, err := m.State(t.Context(), unit); err != nil || !s.Enabled || s.Active {
		t.Errorf("%+v, %v", s, err)
	}
	for range 2 {
		if err := errors.Join(m.Disable(t.Context(), unit), m.Settle(t.Context())); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Lstat(wants); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left: %v", wants, err)
	}
}
