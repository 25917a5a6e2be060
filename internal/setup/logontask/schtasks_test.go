package logontask

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/tunneld/tunneld/internal/setup"
	"github.com/tunneld/tunneld/internal/tls/truststore/program"
)

// A played scheduler has one task, or none.
type played struct {
	t                        *testing.T
	there, disabled, running bool
	// slow is for how many looks what was told takes.
	slow, left int
	// fails is the command that does not work.
	fails string
	// answer, if set, is what is said of the task.
	answer string
	did    []string
}

func (p *played) services() Services {
	return Services{SID: sid, ProgramFiles: programFiles, Programs: program.Programs{
		Find: func(name string) (string, error) { return `C:\Windows\System32\` + name + ".exe", nil },
		Run:  p.run,
	}}
}

func (p *played) run(_ context.Context, c program.Command) ([]byte, error) {
	if strings.HasSuffix(c.Path, `\v1.0\powershell.exe`) {
		if p.fails == "powershell" {
			return nil, errors.New("powershell: exit status 1")
		}
		return p.look(c.Args[len(c.Args)-1])
	}
	p.did = append(p.did, strings.Join(c.Args, " "))
	if c.Args[0] == p.fails {
		return nil, errors.New("schtasks: exit status 1")
	}
	if c.Args[0] != "/Create" && !p.there {
		p.t.Errorf("%v: there is no task", c.Args)
	}
	switch c.Args[0] {
	case "/Create":
		p.there, p.disabled = true, false
	case "/Run":
		p.running, p.left = true, p.slow
	case "/Change":
		p.disabled = true
	case "/End":
		p.running, p.left = false, p.slow
	case "/Delete":
		p.there = false
	default:
		p.t.Errorf("schtasks %v", c.Args)
	}
	return []byte("SUCCESS"), nil
}

func (p *played) look(asked string) ([]byte, error) {
	if !strings.Contains(asked, "-eq '"+TaskName(sid)+"' }") {
		p.t.Errorf("PowerShell is asked %s", asked)
	}
	switch {
	case p.answer != "":
		return []byte(p.answer), nil
	case !p.there:
		return []byte("end\r\n"), nil
	}
	running := p.running == (p.left == 0)
	p.left = max(p.left-1, 0)
	enabled, state := "True", 3
	if p.disabled {
		enabled = "False"
	}
	if running {
		state = 4
	}
	return fmt.Appendf(nil, "task %s %d\r\nend\r\n", enabled, state), nil
}

func TestServices(t *testing.T) {
	name := TaskName(sid)
	create := "/Create /TN " + name + ` /XML C:\Program Files\tunneld\` + name + ".xml /F"
	run, end, remove, disable := "/Run /TN "+name, "/End /TN "+name, "/Delete /TN "+name+" /F", "/Change /TN "+name+" /DISABLE"
	both := setup.ServiceState{Enabled: true, Active: true}
	tests := []struct {
		name   string
		before played
		do     func(context.Context, Services) error
		want   []string
		state  setup.ServiceState
	}{
		{"nothing", played{}, func(context.Context, Services) error { return nil }, nil, setup.ServiceState{}},
		{"enable", played{}, func(ctx context.Context, s Services) error { return s.Enable(ctx, name) }, []string{create, run}, both},
		{"enable what runs", played{there: true, running: true}, func(ctx context.Context, s Services) error { return s.Enable(ctx, name) }, []string{create}, both},
		{"enable what the user has disabled", played{there: true, disabled: true}, func(ctx context.Context, s Services) error { return s.Enable(ctx, name) }, []string{create, run}, both},
		{"restart", played{there: true, running: true}, func(ctx context.Context, s Services) error { return s.Restart(ctx, name) }, []string{disable, end, create, run}, both},
		{"stop", played{there: true, running: true}, func(ctx context.Context, s Services) error { return s.Stop(ctx, name) }, []string{disable, end}, setup.ServiceState{}},
		{"stop nothing", played{}, func(ctx context.Context, s Services) error { return s.Stop(ctx, name) }, nil, setup.ServiceState{}},
		{"disable", played{there: true, running: true}, func(ctx context.Context, s Services) error { return s.Disable(ctx, name) }, []string{disable, end, remove}, setup.ServiceState{}},
		{"disable what does not run", played{there: true}, func(ctx context.Context, s Services) error { return s.Disable(ctx, name) }, []string{disable, remove}, setup.ServiceState{}},
		{"disable nothing", played{}, func(ctx context.Context, s Services) error { return s.Disable(ctx, name) }, nil, setup.ServiceState{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for slow := range 3 {
				synctest.Test(t, func(t *testing.T) {
					p := tt.before
					p.t, p.slow = t, slow
					s := p.services()
					if err := tt.do(t.Context(), s); err != nil {
						t.Fatal(err)
					}
					if diff := cmp.Diff(tt.want, p.did); diff != "" {
						t.Errorf("did (-want +got):\n%s", diff)
					}
					if state, err := s.State(t.Context(), name); err != nil || state != tt.state {
						t.Errorf("state %+v, %v; want %+v", state, err, tt.state)
					}
				})
			}
		})
	}
}

func TestServicesFail(t *testing.T) {
	name := TaskName(sid)
	tests := []struct {
		name   string
		before played
		do     func(context.Context, Services) error
		want   string
	}{
		{"create", played{fails: "/Create"}, func(ctx context.Context, s Services) error { return s.Enable(ctx, name) }, "schtasks /Create"},
		{"run", played{fails: "/Run"}, func(ctx context.Context, s Services) error { return s.Enable(ctx, name) }, "schtasks /Run"},
		{"it does not run", played{slow: 1000}, func(ctx context.Context, s Services) error { return s.Enable(ctx, name) }, "start " + name + ": it has not come to that within 15s"},
		{"it does not end", played{there: true, running: true, slow: 1000}, func(ctx context.Context, s Services) error { return s.Disable(ctx, name) }, "end " + name + ": it has not come to that within 15s"},
		{"delete", played{there: true, fails: "/Delete"}, func(ctx context.Context, s Services) error { return s.Disable(ctx, name) }, "schtasks /Delete"},
		{"powershell", played{there: true, fails: "powershell"}, func(ctx context.Context, s Services) error { return s.Disable(ctx, name) }, "ask for the task: powershell: exit status 1"},
		{"another's", played{}, func(ctx context.Context, s Services) error { return s.Enable(ctx, "tunneld-S-1-5-18") }, "tunneld-S-1-5-18 is no task of user " + sid},
		{"no SID", played{}, func(ctx context.Context, s Services) error {
			s.SID = "' -or '1"
			return s.Disable(ctx, TaskName(s.SID))
		}, "is no task of user"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := tt.before
				p.t = t
				if err := tt.do(t.Context(), p.services()); err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("%v; want %q", err, tt.want)
				}
			})
		})
	}
}

// Where an answer is not what it should be, nothing is done.
func TestAnswers(t *testing.T) {
	for _, answer := range []string{"", "task True 4", "task True", "end end", "Get-ScheduledTask : Zugriff verweigert", "task True 4 end\ntask True 4 end"} {
		p := played{t: t, answer: answer + " "}
		if err := p.services().Disable(t.Context(), TaskName(sid)); err == nil || len(p.did) > 0 {
			t.Errorf("%q: %v, and did %v", answer, err, p.did)
		}
	}
	p := played{t: t}
	s := p.services()
	s.Programs.Find = func(name string) (string, error) { return "", &exec.Error{Name: name, Err: exec.ErrNotFound} }
	if _, err := s.State(t.Context(), TaskName(sid)); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("%v; want ErrNotFound", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("task True 4\r\nend\r\n"))
	f.Fuzz(func(t *testing.T, out []byte) {
		if at, err := parse(out); err != nil && at != (standing{}) {
			t.Errorf("%+v with %v", at, err)
		}
	})
}
