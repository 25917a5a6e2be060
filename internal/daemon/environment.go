package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/tunneld/tunneld/internal/environ"
	"github.com/tunneld/tunneld/internal/localapi"
	"github.com/tunneld/tunneld/internal/status"
)

const (
	// captureHint is what to do about an environment that does not suit.
	captureHint = "in a shell in which kubectl works: tunnelctl reload --env"
	// agentPatience is how long an agent may take to let somebody in. One that does
	// not is there all the same.
	agentPatience = time.Second
)

// An environment is what was captured of the user's shell, for the service. nil is
// that of a daemon that is no service.
type environment struct {
	path string

	mu      sync.Mutex // guards the following
	process environ.Process
	now     environ.Capture
	problem string // why there is none in force
}

// loadEnvironment brings into force what was captured. Without it the daemon runs,
// too: what goes wrong is told.
func loadEnvironment(path string, log *slog.Logger) *environment {
	e := &environment{path: path}
	c, err := environ.Load(path)
	if err == nil {
		_, err = e.process.Apply(c.Variables)
	}
	switch {
	case err == nil:
		e.now = c
		log.Info("environment", "captured", c.Time, "variables", len(c.Variables))
		return e
	case errors.Is(err, environ.ErrNone):
		e.problem = "none has been captured of your shell's, in which credential plugins are found and know on whose behalf they are asked"
	default:
		e.problem = err.Error()
	}
	log.Warn("credential plugins run without the environment of a shell", "err", err)
	return e
}

// restore takes back what was brought into force.
func (e *environment) restore() {
	if e == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	_ = e.process.Restore() // it was a good environment before
}

// replace writes variables down and brings them into force.
func (e *environment) replace(variables map[string]string) (environ.Changes, error) {
	c := environ.Capture{Time: time.Now(), Variables: variables}
	if err := environ.Save(e.path, c); err != nil {
		return environ.Changes{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	changes, err := e.process.Apply(variables)
	if err != nil {
		return changes, fmt.Errorf("change the environment: %w", err)
	}
	e.now, e.problem = c, ""
	return changes, nil
}

func (e *environment) current() (c environ.Capture, problem string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.now, e.problem
}

// status tells about it; nil where there is nothing to tell. It is asked often, so
// nobody is connected to.
func (e *environment) status() *status.Environment {
	if e == nil {
		return nil
	}
	c, problem := e.current()
	if problem == "" {
		problem = gone(c, func(path string) error { _, err := os.Stat(path); return err })
	}
	s := &status.Environment{Path: e.path, Captured: c.Time, Problem: problem}
	if problem != "" {
		s.Hint = captureHint
	}
	return s
}

// check looks at it for the doctor, who also notices who has died and left a socket.
func (e *environment) check(ctx context.Context) status.Check {
	c, problem := e.current()
	if problem == "" {
		ctx, cancel := context.WithTimeout(ctx, agentPatience)
		defer cancel()
		problem = gone(c, func(path string) error {
			conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
			if err == nil {
				conn.Close()
			}
			return err
		})
	}
	check := status.Check{Name: "environment", Result: status.OK}
	check.Evidence = fmt.Sprintf("%d variables of your shell, captured %s", len(c.Variables), c.Time.Local().Format(time.DateTime))
	if problem != "" {
		check.Result, check.Evidence, check.Fix = status.Warn, problem, captureHint
	}
	return check
}

// gone says which sockets of the session that was captured nobody is at any more.
func gone(c environ.Capture, look func(path string) error) string {
	var all []string
	for _, socket := range c.Sockets() {
		if err := look(socket.Path); errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
			all = append(all, fmt.Sprintf("%s is %s, where nobody answers any more", socket.Variable, socket.Path))
		}
	}
	return strings.Join(all, "; ")
}

// setEnvironment gives the service another environment, and has all that follows from
// one looked at again.
func (d *Daemon) setEnvironment(_ context.Context, req localapi.EnvironmentRequest) (localapi.EnvironmentResponse, error) {
	var answer localapi.EnvironmentResponse
	if d.environment == nil {
		return answer, &localapi.Error{
			Code:    http.StatusConflict,
			Message: "this tunneld is not the installed service: it has the environment that it was started with",
			Hint:    "start it again, in a shell that has what it needs",
		}
	}
	variables, left := environ.Filter(req.Variables)
	if len(variables) == 0 {
		return answer, &localapi.Error{Message: "there is no variable in it that would be kept", Hint: "docs/environment.md has the list"}
	}
	d.editing.Lock()
	defer d.editing.Unlock()
	changes, err := d.environment.replace(variables)
	if err != nil {
		return answer, &localapi.Error{
			Code: http.StatusConflict, Message: err.Error(),
			Hint: "mend that; the former environment stays in force",
		}
	}
	d.Log.Info("environment", "set", changes.Set, "changed", changes.Changed, "unset", changes.Unset)
	d.clusters.Reload()
	d.applyEdit()
	answer = localapi.EnvironmentResponse{Set: changes.Set, Changed: changes.Changed, Unset: changes.Unset, LeftOut: []localapi.LeftOut{}}
	for _, l := range left {
		answer.LeftOut = append(answer.LeftOut, localapi.LeftOut{Name: l.Name, Reason: string(l.Reason)})
	}
	answer.Note = atNextStart(slices.Concat(changes.Set, changes.Changed, changes.Unset))
	return answer, nil
}

// atNextStart says which of the variables tunneld itself has read for this run.
func atNextStart(names []string) string {
	var late []string
	for _, name := range []string{"XDG_CONFIG_HOME", "SSL_CERT_FILE", "SSL_CERT_DIR"} {
		if slices.Contains(names, name) {
			late = append(late, name)
		}
	}
	if len(late) == 0 {
		return ""
	}
	return "for tunneld itself, other than for plugins, this counts from its next start: " + strings.Join(late, ", ")
}
