package launchd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tunneld/tunneld/internal/setup"
	"github.com/tunneld/tunneld/internal/tls/truststore/program"
)

// exited is how a program has ended.
type exited int

func (e exited) Error() string { return fmt.Sprintf("exit status %d", int(e)) }
func (e exited) ExitCode() int { return int(e) }

// A played launchd is one with these domains, which does what launchctl(1) says, and
// answers in its words.
type played struct {
	t       *testing.T
	domains []string
	// jobs are the states of those that are known, by domain/label.
	jobs     map[string]string
	disabled map[string]string
	// fails has what a command exits with instead of being done, the first times.
	fails map[string][]int
	// lasting is for how many looks a job that is ended stays, and one that is
	// started does not run.
	lasting int
	slow    map[string]int
	// did are the commands that change something.
	did []string
}

func play(t *testing.T, domains ...string) *played {
	return &played{t: t, domains: domains, jobs: map[string]string{}, disabled: map[string]string{}, fails: map[string][]int{}, slow: map[string]int{}}
}

func (p *played) services() Services {
	home := p.t.TempDir()
	root := filepath.Join(home, "root")
	s := Services{
		UID: "501", Home: home, Root: root,
		Programs: program.Programs{
			Find: func(name string) (string, error) { return "/bin/" + name, nil },
			Run:  p.run,
		},
		AsUser: func(ctx context.Context, path string, args ...string) error {
			p.did = append(p.did, filepath.Base(path))
			_, err := program.Real().Run(ctx, program.Command{Path: path, Args: args})
			return err
		},
	}
	for path, text := range map[string]string{
		agentSource("501"): "agent", helperPath("501"): "helper", programPath("tunneld-helper"): "",
	} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(root+path), 0o755), os.WriteFile(root+path, []byte(text), 0o644)); err != nil {
			p.t.Fatal(err)
		}
	}
	return s
}

func (p *played) run(_ context.Context, c program.Command) ([]byte, error) {
	if filepath.Base(c.Path) != "launchctl" {
		p.did = append(p.did, filepath.Base(c.Path)+" "+strings.Join(c.Args, " "))
		return nil, nil
	}
	verb, target := c.Args[0], c.Args[1]
	if verb != "print" && verb != "print-disabled" {
		p.did = append(p.did, strings.Join(append([]string{verb, target}, bases(c.Args[2:])...), " "))
	}
	if codes := p.fails[verb]; len(codes) > 0 {
		p.fails[verb] = codes[1:]
		return nil, exited(codes[0])
	}
	switch verb {
	case "print":
		return p.print(target)
	case "print-disabled":
		if !slices.Contains(p.domains, target) {
			return nil, exited(exitNoDomain)
		}
		var b strings.Builder
		fmt.Fprintf(&b, "\tdisabled services = {\n\t\t\"com.apple.ftpd\" => disabled\n")
		for label, word := range p.disabled {
			fmt.Fprintf(&b, "\t\t%q => %s\n", label, word)
		}
		b.WriteString("\t}\n\tlogin item associations = {\n\t}\n")
		return []byte(b.String()), nil
	case "bootstrap":
		label := strings.TrimSuffix(filepath.Base(c.Args[2]), ".plist")
		if _, err := os.Stat(c.Args[2]); err != nil || p.jobs[target+"/"+label] != "" || p.disabled[label] == "disabled" {
			return nil, exited(exitBusy)
		}
		p.jobs[target+"/"+label] = "waiting"
		if !strings.Contains(label, "helper") {
			p.jobs[target+"/"+label] = "running"
			p.slow[target+"/"+label] = p.lasting
		}
	case "bootout":
		if p.jobs[target] == "" {
			return nil, exited(exitNoProcess)
		}
		p.jobs[target] = "ending"
		p.slow[target] = p.lasting
		return nil, exited(exitInProgress)
	case "kickstart":
		p.jobs[target] = "running"
		p.slow[target] = p.lasting
	case "enable":
		p.disabled[filepath.Base(target)] = "enabled"
	default:
		p.t.Errorf("launchctl %v", c.Args)
	}
	return nil, nil
}

func bases(paths []string) (names []string) {
	for _, path := range paths {
		names = append(names, filepath.Base(path))
	}
	return names
}

func (p *played) print(target string) ([]byte, error) {
	if strings.Count(target, "/") == 1 && target != "system/"+HelperLabel("501") {
		if !slices.Contains(p.domains, target) {
			return nil, exited(exitNoDomain)
		}
		return []byte(target + " = {\n\ttype = user\n}\n"), nil
	}
	if target == "system" {
		return []byte("system = {\n\ttype = system\n}\n"), nil
	}
	state := p.jobs[target]
	late := p.slow[target] > 0
	p.slow[target]--
	switch {
	case state == "ending" && !late:
		delete(p.jobs, target)
		return nil, exited(exitNoService)
	case state == "":
		return nil, exited(exitNoService)
	case state == "ending":
		state = "SIGTERMed"
	case late:
		state = "spawn scheduled"
	}
	return fmt.Appendf(nil, `%s = {
	active count = 1
	path = /somewhere
	type = LaunchAgent
	state = %s

	program = /somewhere
	endpoints = {
		"Listeners" = {
			state = running
		}
	}
}
`, target, state), nil
}

func TestServices(t *testing.T) {
	const gui, user = "gui/501/" + AgentLabel, "user/501/" + AgentLabel
	helper := "system/" + HelperLabel("501")
	define := []string{"mkdir", "install"}
	both := setup.ServiceState{Enabled: true, Active: true}
	steps := func(lists ...[]string) []string { return slices.Concat(lists...) }
	tests := []struct {
		name    string
		domains []string
		prepare func(p *played, s Services)
		do      func(s Services) error
		want    []string
		state   setup.ServiceState
		service string // empty: the agent
	}{
		{name: "enable", domains: []string{"gui/501", "user/501"}, do: enable(AgentLabel),
			want: steps(define, []string{"bootstrap gui/501 io.github.tunneld.tunneld.plist"}), state: both},
		{name: "enable over SSH", domains: []string{"user/501"}, do: enable(AgentLabel),
			want: steps(define, []string{"bootstrap user/501 io.github.tunneld.tunneld.plist"}), state: both},
		{name: "enable twice", domains: []string{"gui/501"}, do: twice(enable(AgentLabel)),
			want: steps(define, []string{"bootstrap gui/501 io.github.tunneld.tunneld.plist"}), state: both},
		{name: "enable after it was enabled over SSH", domains: []string{"gui/501", "user/501"},
			prepare: func(p *played, s Services) { defined(s); p.jobs[user] = "running" }, do: enable(AgentLabel), state: both},
		{name: "enable what waits after a crash", domains: []string{"gui/501"},
			prepare: func(p *played, s Services) { defined(s); p.jobs[gui] = "spawn scheduled" }, do: enable(AgentLabel),
			want: []string{"kickstart " + gui}, state: both},
		{name: "enable another definition", domains: []string{"gui/501"},
			prepare: func(p *played, s Services) {
				defined(s)
				os.WriteFile(s.Root+agentSource("501"), []byte("another"), 0o644)
				p.jobs[gui] = "running"
			}, do: enable(AgentLabel),
			want: steps(define, []string{"bootout " + gui, "bootstrap gui/501 io.github.tunneld.tunneld.plist"}), state: both},
		{name: "enable what the user has disabled", domains: []string{"gui/501"},
			prepare: func(p *played, _ Services) { p.disabled[AgentLabel] = "disabled" }, do: enable(AgentLabel),
			want: steps(define, []string{"enable " + gui, "bootstrap gui/501 io.github.tunneld.tunneld.plist"}), state: both},
		{name: "enable while an old one ends", domains: []string{"gui/501"},
			prepare: func(p *played, _ Services) { p.fails["bootstrap"] = []int{exitBusy, exitBusy} }, do: enable(AgentLabel),
			want: steps(define, slices.Repeat([]string{"bootstrap gui/501 io.github.tunneld.tunneld.plist"}, 3)), state: both},
		{name: "restart", domains: []string{"gui/501"},
			prepare: func(p *played, s Services) { defined(s); p.jobs[gui] = "running" }, do: restart(AgentLabel),
			want: []string{"bootout " + gui, "bootstrap gui/501 io.github.tunneld.tunneld.plist"}, state: both},
		{name: "disable", domains: []string{"gui/501"},
			prepare: func(p *played, s Services) { defined(s); p.jobs[gui] = "running" }, do: disable(AgentLabel),
			want: []string{"bootout " + gui, "rm"}},
		{name: "disable in both domains", domains: []string{"gui/501", "user/501"},
			prepare: func(p *played, s Services) { defined(s); p.jobs[gui], p.jobs[user] = "running", "running" }, do: disable(AgentLabel),
			want: []string{"bootout " + gui, "bootout " + user, "rm"}},
		{name: "disable when it ends by itself", domains: []string{"gui/501"},
			prepare: func(p *played, s Services) {
				defined(s)
				p.jobs[gui] = "ending"
				p.slow[gui] = 1
				p.fails["bootout"] = []int{exitNoProcess}
			}, do: disable(AgentLabel),
			want: []string{"bootout " + gui, "rm"}},
		{name: "disable what is not there", domains: nil, do: twice(disable(AgentLabel)), want: []string{"rm", "rm"}},
		{name: "the helper", service: HelperLabel("501"), do: enable(HelperLabel("501")),
			want: []string{"bootstrap system io.github.tunneld.tunneld-helper.501.plist"}, state: both},
		{name: "restart the helper", service: HelperLabel("501"), prepare: func(p *played, _ Services) { p.jobs[helper] = "running" },
			do: restart(HelperLabel("501")), want: []string{"bootout " + helper, "bootstrap system io.github.tunneld.tunneld-helper.501.plist"}, state: both},
		{name: "disable the helper", service: HelperLabel("501"), prepare: func(p *played, _ Services) { p.jobs[helper] = "waiting" },
			do: disable(HelperLabel("501")), want: []string{"bootout " + helper, "tunneld-helper release --uid 501"}, state: setup.ServiceState{Enabled: true}},
		{name: "disable a helper that is gone", service: HelperLabel("501"),
			prepare: func(_ *played, s Services) {
				os.Remove(s.Root + programPath("tunneld-helper"))
				os.Remove(s.Root + helperPath("501"))
			},
			do: disable(HelperLabel("501"))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for lasting := range 3 {
				p := play(t, tt.domains...)
				p.lasting = lasting
				s := p.services()
				if tt.prepare != nil {
					tt.prepare(p, s)
				}
				var state setup.ServiceState
				var err error
				synctest.Test(t, func(*testing.T) { err = tt.do(s) })
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(tt.want, p.did); diff != "" {
					t.Errorf("did (-want +got):\n%s", diff)
				}
				name := tt.service
				if name == "" {
					name = AgentLabel
				}
				if state, err = s.State(t.Context(), name); err != nil || state != tt.state {
					t.Errorf("state %+v, %v; want %+v", state, err, tt.state)
				}
			}
		})
	}
}

func enable(name string) func(Services) error {
	return func(s Services) error { return s.Enable(context.Background(), name) }
}

func restart(name string) func(Services) error {
	return func(s Services) error { return s.Restart(context.Background(), name) }
}

func disable(name string) func(Services) error {
	return func(s Services) error { return s.Disable(context.Background(), name) }
}

func twice(do func(Services) error) func(Services) error {
	return func(s Services) error { return errors.Join(do(s), do(s)) }
}

// defined has launchd's copy of the definition be there.
func defined(s Services) {
	os.MkdirAll(filepath.Dir(agentPath(s.Home)), 0o755)
	os.WriteFile(agentPath(s.Home), []byte("agent"), 0o644)
}

func TestNothingIsLeftInTheHome(t *testing.T) {
	p := play(t, "gui/501")
	s := p.services()
	synctest.Test(t, func(t *testing.T) {
		if err := s.Enable(t.Context(), AgentLabel); err != nil {
			t.Fatal(err)
		}
		if text, err := os.ReadFile(agentPath(s.Home)); err != nil || string(text) != "agent" {
			t.Errorf("%q, %v; want the definition", text, err)
		}
		for _, file := range []string{Log(s.Home), filepath.Join(socketDir(s.Home), "tunneld.sock.lock")} {
			if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, nil, 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Disable(t.Context(), AgentLabel); err != nil {
			t.Fatal(err)
		}
	})
	for _, path := range []string{agentPath(s.Home), Log(s.Home), socketDir(s.Home)} {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", path, err)
		}
	}
}

func TestServicesFail(t *testing.T) {
	denied := func(verb string, codes ...int) func(*played, Services) {
		return func(p *played, _ Services) { p.fails[verb] = codes }
	}
	tests := []struct {
		name    string
		domains []string
		prepare func(*played, Services)
		do      func(Services) error
		want    string
	}{
		{"nobody is logged in", nil, nil, enable(AgentLabel), "user 501: the user is not logged in"},
		{"another user's", nil, nil, enable(HelperLabel("502")), "io.github.tunneld.tunneld-helper.502 is no job of user 501"},
		{"not to be disabled either", nil, nil, disable("com.apple.ftpd"), "com.apple.ftpd is no job of user 501"},
		{"print fails", []string{"gui/501"}, denied("print", 1), enable(AgentLabel), "launchctl print gui/501/" + AgentLabel + ": exit status 1"},
		{"print-disabled fails", []string{"gui/501"}, denied("print-disabled", 1), enable(AgentLabel), "launchctl print-disabled gui/501: exit status 1"},
		{"bootstrap is not allowed", []string{"gui/501"}, denied("bootstrap", 1), enable(AgentLabel), "bootstrap gui/501 "},
		{"bootstrap never works", []string{"gui/501"}, denied("bootstrap", slices.Repeat([]int{exitBusy}, 1000)...), enable(AgentLabel), "exit status 5"},
		{"bootout fails", []string{"gui/501"}, func(p *played, _ Services) {
			p.jobs["gui/501/"+AgentLabel] = "running"
			p.fails["bootout"] = []int{1}
		}, disable(AgentLabel), "launchctl bootout gui/501/" + AgentLabel + ": exit status 1"},
		{"it does not end", []string{"gui/501"}, func(p *played, _ Services) {
			p.jobs["gui/501/"+AgentLabel] = "running"
			p.lasting = 1000
		}, disable(AgentLabel), "stop " + AgentLabel + ": it has not come to that within 15s"},
		{"it does not run", []string{"gui/501"}, func(p *played, _ Services) { p.lasting = 1000 }, enable(AgentLabel),
			"start " + AgentLabel + ": it has not come to that within 15s"},
		{"the definition was changed", []string{"gui/501"}, func(_ *played, s Services) {
			defined(s)
			os.WriteFile(agentPath(s.Home), []byte("mine"), 0o644)
		}, disable(AgentLabel), "was changed since it was installed"},
		{"the helper's definition is missing", nil, func(_ *played, s Services) { os.Remove(s.Root + helperPath("501")) },
			enable(HelperLabel("501")), ".plist is missing"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := play(t, tt.domains...)
			s := p.services()
			if tt.prepare != nil {
				tt.prepare(p, s)
			}
			var err error
			var took time.Duration
			synctest.Test(t, func(*testing.T) {
				start := time.Now()
				err = tt.do(s)
				took = time.Since(start)
			})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v; want %q", err, tt.want)
			}
			if took > 2*patience {
				t.Errorf("it took %v", took)
			}
			if tt.name == "nobody is logged in" && !errors.Is(err, ErrNoSession) {
				t.Error("it is not ErrNoSession")
			}
		})
	}
	if _, err := (Services{UID: "501"}).State(t.Context(), "com.apple.ftpd"); err == nil {
		t.Error("the state of a job of others is told")
	}
}

// What print and print-disabled say, of macOS before 13 and since.
func TestOutput(t *testing.T) {
	for text, want := range map[string]bool{
		"{\n\t\t\"a\" => true\n}": true, "{\n\t\t\"a\" => disabled\n}": true,
		"{\n\t\t\"a\" => false\n}": false, "{\n\t\t\"a\" => enabled\n}": false, "{\n\t\t\"ab\" => true\n}": false, "": false,
	} {
		if got := listed([]byte(text), "a"); got != want {
			t.Errorf("%q: %t; want %t", text, got, want)
		}
	}
	for text, want := range map[string]bool{
		"x = {\n\tstate = running\n": true, "x = {\n\tstate = not running\n": false, "x = {\n\tstate = waiting\n\tq = {\n\t\tstate = running\n": false, "": false,
	} {
		if got := runs([]byte(text)); got != want {
			t.Errorf("%q: %t; want %t", text, got, want)
		}
	}
}

func FuzzOutput(f *testing.F) {
	f.Add([]byte("{\n\t\t\"a\" => true\n\tstate = running\n"), "a")
	f.Fuzz(func(_ *testing.T, out []byte, label string) {
		runs(out)
		listed(out, label)
	})
}
