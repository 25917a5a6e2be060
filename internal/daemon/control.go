package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tunneld/tunneld/internal/config"
	"github.com/tunneld/tunneld/internal/forward"
	"github.com/tunneld/tunneld/internal/kube"
	"github.com/tunneld/tunneld/internal/localapi"
	"github.com/tunneld/tunneld/internal/nearest"
	"github.com/tunneld/tunneld/internal/status"
)

// findTimeout bounds how long a cluster may take to answer what "add" asks.
const findTimeout = 8 * time.Second

// api is the control API.
func (d *Daemon) api() *localapi.Server {
	return &localapi.Server{
		Version:    d.Version,
		Status:     d.status,
		Add:        d.add,
		Remove:     d.remove,
		Wait:       d.wait,
		Reload:     d.reload,
		Configured: d.configured,
		RootPEM:    d.rootPEM,
		Logs:       d.logs,
		Log:        d.Log,
	}
}

// status reports everything.
func (d *Daemon) status() status.Status {
	d.applying.Lock()
	defer d.applying.Unlock()
	cfg, p := d.current()
	s := status.Status{
		Version:  d.Version.Version,
		Config:   d.configStatus(),
		Clusters: d.clusters.Clusters(),
		Forwards: []status.Forward{},
	}
	b, now := d.bindings(), time.Now()
	for _, f := range p.forwards {
		r := d.report(f, b)
		d.note(&r, now)
		s.Forwards = append(s.Forwards, r)
	}
	s.DNS.Names = d.names.Zone().Len()
	switch {
	case d.namesErr != nil:
		s.DNS.Error = d.namesErr.Error()
	default:
		s.DNS.Listen = d.namesAt.String()
		s.DNS.Hint = fmt.Sprintf("nothing makes this system ask %v for these names: "+
			"browsers resolve the .localhost URLs by themselves, and curl takes --resolve NAME:PORT:ADDRESS", d.namesAt)
	}
	if want := cfg.DNS.Listen; want.Port() != 0 && want != d.namesAt {
		s.DNS.Wanted = want.String()
	}
	switch {
	case d.caErr != nil:
		s.TLS.Error = d.caErr.Error()
	default:
		s.TLS = status.TLS{Fingerprint: d.ca.Fingerprint(), NotAfter: d.ca.NotAfter(), Permitted: d.ca.Permitted()}
	}
	return s
}

func (d *Daemon) configStatus() status.Config {
	d.mu.Lock()
	defer d.mu.Unlock()
	return status.Config{Path: d.ConfigPath, Error: d.problem, Restart: d.restart, Unwatched: d.unwatched}
}

// one reports on one forward.
func (d *Daemon) one(name string) (status.Forward, forward.Workload, error) {
	s := d.status()
	_, p := d.current()
	i := slices.IndexFunc(s.Forwards, func(f status.Forward) bool { return f.Name == name })
	j := slices.IndexFunc(p.forwards, func(f *planned) bool { return f.name == name })
	if i < 0 || j < 0 {
		return status.Forward{}, forward.Workload{}, d.noSuchForward(name)
	}
	return s.Forwards[i], p.forwards[j].workload, nil
}

func (d *Daemon) noSuchForward(name string) error {
	_, p := d.current()
	var names []string
	for _, f := range p.forwards {
		names = append(names, f.name)
	}
	e := &localapi.Error{Code: http.StatusNotFound, Message: "there is no forward " + name, Hint: "tunnelctl ls"}
	switch near := nearest.To(name, names, 3); {
	case len(near) > 0:
		e.Hint = "did you mean " + strings.Join(near, " or ") + "?"
	case len(names) == 0:
		e.Hint = "tunnelctl add SERVICE"
	}
	return e
}

// add writes a forward into the file and brings it into force.
func (d *Daemon) add(ctx context.Context, req localapi.AddRequest) (localapi.AddResponse, error) {
	d.editing.Lock()
	defer d.editing.Unlock()
	if err := d.fileIsGood(); err != nil {
		return localapi.AddResponse{}, err
	}
	f, note, err := d.resolve(ctx, req)
	if err != nil {
		return localapi.AddResponse{}, apiError(err)
	}
	cfg, _ := d.current()
	if pattern, denied := cfg.Contexts.Denies(f.Workload.Context); denied && !f.AllowProduction {
		return localapi.AddResponse{}, &localapi.Error{
			Code:    http.StatusForbidden,
			Message: fmt.Sprintf("context %s is denied by %q in contexts.deny: it looks like production", f.Workload.Context, pattern),
			Hint:    "if you mean it: --allow-production",
		}
	}
	i := slices.IndexFunc(cfg.Forwards, func(g config.Forward) bool { return g.Name == f.Name })
	if i >= 0 && !f.Equal(cfg.Forwards[i]) {
		return localapi.AddResponse{}, nameTaken(f, cfg.Forwards[i])
	}
	if i < 0 {
		if err := config.Edit(d.ConfigPath, func(src []byte) ([]byte, error) { return config.Add(src, f) }); err != nil {
			return localapi.AddResponse{}, editError(err)
		}
		if err := d.readConfig(); err != nil {
			return localapi.AddResponse{}, err
		}
	}
	d.clusters.Reload() // the kubeconfig may have been mended for this
	d.apply()
	s, _, err := d.one(f.Name)
	return localapi.AddResponse{Added: i < 0, Forward: s, Note: note}, err
}

// resolve makes of a request the forward that it means.
func (d *Daemon) resolve(ctx context.Context, req localapi.AddRequest) (config.Forward, string, error) {
	kind, name, err := forward.ParseRef(req.Target)
	if err != nil {
		return config.Forward{}, "", &localapi.Error{Message: err.Error()}
	}
	q := kube.Query{
		Kubeconfig: req.Kubeconfig, Context: req.Context, Namespace: req.Namespace,
		Kind: kind, Name: name, Ports: slices.Clone(req.Ports),
	}
	// What the daemon's own $KUBECONFIG says may be different next time.
	if q.Kubeconfig == kube.DefaultKubeconfig() && os.Getenv("KUBECONFIG") == "" {
		q.Kubeconfig = ""
	}
	f := config.Forward{Name: req.Name, AllowProduction: req.AllowProduction}
	if f.Name == "" {
		f.Name = name
	}
	for _, p := range req.Ports {
		f.Ports = append(f.Ports, portRef(p))
	}
	switch req.HTTP {
	case "":
	case "none":
		f.HTTP.Off = true
	default:
		p := portRef(req.HTTP)
		f.HTTP = config.HTTP{Number: p.Number, Name: p.Name}
		q.Ports = append(q.Ports, req.HTTP)
	}
	limited, cancel := context.WithTimeout(ctx, findTimeout)
	defer cancel()
	found, err := d.clusters.Find(limited, q)
	f.Workload = found.Workload
	return f, found.Note, err
}

// portRef reads a port's number or name.
func portRef(s string) config.Port {
	if n, err := strconv.ParseUint(s, 10, 16); err == nil {
		return config.Port{Number: uint16(n)}
	}
	return config.Port{Name: s}
}

func nameTaken(want, have config.Forward) error {
	e := &localapi.Error{
		Code:    http.StatusConflict,
		Message: fmt.Sprintf("the name %s is taken by %s", have.Name, have.Workload),
		Hint:    fmt.Sprintf("give the new one another name: --name %s-%s", want.Name, want.Workload.Namespace),
	}
	if have.Workload == want.Workload {
		e.Message = fmt.Sprintf("there is a forward %s to the same target, with other ports or settings", have.Name)
		e.Hint = fmt.Sprintf("tunnelctl rm %s first, or edit the configuration, or use --name for a second one", have.Name)
	}
	return e
}

// fileIsGood refuses an edit of a file with an error in it: nobody could tell
// what it would do to the rest. editing is held.
func (d *Daemon) fileIsGood() error {
	if err := d.readConfig(); err != nil {
		return &localapi.Error{
			Code:    http.StatusConflict,
			Message: "the configuration has an error, so nothing was changed: " + err.Error(),
			Hint:    "mend it; the last good configuration stays in force meanwhile",
		}
	}
	return nil
}

func editError(err error) error {
	e := &localapi.Error{Code: http.StatusConflict, Message: "the configuration was not changed: " + err.Error()}
	if errors.Is(err, fs.ErrPermission) {
		e.Hint = "make the file writable, or add the forward to it yourself"
	}
	return e
}

// apiError gives an error of the clusters the form in which it is sent.
func apiError(err error) error {
	if e, ok := errors.AsType[*forward.Error](err); ok {
		return &localapi.Error{Code: http.StatusUnprocessableEntity, Message: e.Error(), Hint: e.Hint}
	}
	return err
}

// remove takes a forward out of the file, and ends it.
func (d *Daemon) remove(_ context.Context, name string) error {
	d.editing.Lock()
	defer d.editing.Unlock()
	if err := d.fileIsGood(); err != nil {
		return err
	}
	err := config.Edit(d.ConfigPath, func(src []byte) ([]byte, error) { return config.Remove(src, name) })
	if errors.Is(err, config.ErrNoForward) {
		return d.noSuchForward(name)
	}
	if err != nil {
		return editError(err)
	}
	if err := d.readConfig(); err != nil {
		return err
	}
	d.apply()
	return nil
}

// wait forces one probe, and returns when the forward is ready or degraded, or
// as it is when ctx is done.
func (d *Daemon) wait(ctx context.Context, name string) (status.Forward, error) {
	var w forward.Workload
	look := func() (f status.Forward, changed <-chan struct{}, err error) {
		d.mu.Lock()
		changed = d.changed
		d.mu.Unlock()
		f, w, err = d.one(name)
		return f, changed, err
	}
	return awaitReady(ctx, look, func() bool { return d.clusters.Probe(ctx, w) == nil })
}

// reload reads the configuration and the kubeconfigs again.
func (d *Daemon) reload(context.Context) error {
	d.editing.Lock()
	defer d.editing.Unlock()
	if err := d.readConfig(); err != nil {
		return &localapi.Error{
			Code:    http.StatusUnprocessableEntity,
			Message: err.Error(),
			Hint:    "the last good configuration stays in force until it is mended",
		}
	}
	d.clusters.Reload()
	d.apply()
	return nil
}

// Reload does what the control API's reload does, for SIGHUP. An error is in
// the log and in status.
func (d *Daemon) Reload(ctx context.Context) {
	if err := d.reload(ctx); err == nil {
		d.Log.Info("reloaded")
	}
}

// configured is the configured forwards in the form of the file.
func (d *Daemon) configured() ([]byte, error) {
	cfg, _ := d.current()
	return config.Marshal(cfg.Forwards)
}

func (d *Daemon) rootPEM() ([]byte, error) {
	if d.ca == nil {
		return nil, &localapi.Error{
			Code: http.StatusServiceUnavailable, Message: d.caErr.Error(), Hint: "mend it, and start tunneld again",
		}
	}
	return d.ca.RootPEM(), nil
}

func (d *Daemon) logs(ctx context.Context, name string, n int, follow bool) iter.Seq[status.LogRecord] {
	match := func(r status.LogRecord) bool { return name == "" || r.Forward == name }
	if follow {
		return d.records.Follow(ctx, n, match)
	}
	return slices.Values(d.records.Last(n, match))
}
