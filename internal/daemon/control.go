package daemon

import (
	"cmp"
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
	"github.com/tunneld/tunneld/internal/systemd"
)

// findTimeout bounds how long a cluster may take to answer what "add" asks.
const findTimeout = 8 * time.Second

// api is the control API.
func (d *Daemon) api() *localapi.Server {
	return &localapi.Server{
		Version:        d.Version,
		Status:         d.status,
		Doctor:         d.doctor,
		Add:            d.add,
		Remove:         d.remove,
		Wait:           d.wait,
		Reload:         d.reload,
		SetEnvironment: d.setEnvironment,
		Configured:     d.configured,
		RootPEM:        d.rootPEM,
		RenewCA:        d.renew,
		CheckLeaf:      d.checkLeaf,
		Logs:           d.logs,
		Log:            d.Log,
	}
}

// status reports everything.
func (d *Daemon) status() status.Status {
	tls, environment := d.tlsStatus(), d.environment.status() // which look at files
	d.applying.Lock()
	defer d.applying.Unlock()
	cfg, p := d.current()
	s := status.Status{
		TLS:      tls,
		Version:  d.Version.Version,
		Config:   d.configStatus(),
		Clusters: d.clusters.Clusters(),
		Forwards: []status.Forward{},

		Environment: environment,
	}
	b, now := d.bindings(), time.Now()
	for _, f := range p.forwards {
		r := d.report(f, b)
		d.note(&r, now)
		s.Forwards = append(s.Forwards, r)
	}
	s.DNS = d.names.status(cfg)
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
	f, note, err := d.resolve(ctx, req)
	if err != nil {
		return localapi.AddResponse{}, apiError(err)
	}
	d.editing.Lock()
	defer d.editing.Unlock()
	if ctx.Err() != nil {
		return localapi.AddResponse{}, ctx.Err() // nobody wants it any more
	}
	if err := d.fileIsGood(); err != nil {
		return localapi.AddResponse{}, err
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
	d.clusters.ReloadFor(f.Workload) // the kubeconfig may have been mended for this
	d.applyEdit()
	d.names.known(ctx)
	s, _, err := d.one(f.Name)
	return localapi.AddResponse{Added: i < 0, Forward: s, Note: note}, err
}

// resolve makes of a request the forward that it means.
func (d *Daemon) resolve(ctx context.Context, req localapi.AddRequest) (config.Forward, string, error) {
	f, q, err := d.query(req)
	if err != nil {
		return f, "", err
	}
	cfg, _ := d.current()
	if i := slices.IndexFunc(cfg.Forwards, func(g config.Forward) bool { return g.Name == f.Name }); i >= 0 {
		q.Known = cfg.Forwards[i].Workload
	}
	limited, cancel := context.WithTimeout(ctx, findTimeout)
	defer cancel()
	found, err := d.clusters.Find(limited, q)
	if err != nil {
		return f, "", err
	}
	f.Workload = found.Workload
	f.HTTP = spelledAsIn(f.Ports, f.HTTP, found.Ports)
	return f, found.Note, nil
}

// query makes of a request what can be made without asking its cluster.
func (d *Daemon) query(req localapi.AddRequest) (config.Forward, kube.Query, error) {
	kind, name, err := forward.ParseRef(req.Target)
	if err != nil {
		return config.Forward{}, kube.Query{}, &localapi.Error{Message: err.Error(), Hint: "tunnelctl help add"}
	}
	if ref, port, ok := strings.Cut(req.Target, ":"); ok {
		return config.Forward{}, kube.Query{}, &localapi.Error{
			Message: fmt.Sprintf("%q has a port in it, which is a flag of its own", req.Target),
			Hint:    fmt.Sprintf("tunnelctl add %s --port %s", ref, cmp.Or(port, "PORT")),
		}
	}
	q := kube.Query{
		Kubeconfig: req.Kubeconfig, Context: req.Context, Namespace: req.Namespace,
		Kind: kind, Name: name, Ports: slices.Clone(req.Ports),
	}
	// What the daemon's own $KUBECONFIG says may be different next time.
	if q.Kubeconfig == kube.DefaultKubeconfig() && os.Getenv("KUBECONFIG") == "" {
		q.Kubeconfig = ""
	}
	f := config.Forward{Name: cmp.Or(req.Name, name), AllowProduction: req.AllowProduction}
	if msg := config.CheckName(f.Name); msg != "" {
		return f, q, &localapi.Error{
			Message: fmt.Sprintf("%q cannot be the name of a forward: it %s", f.Name, msg),
			Hint:    "give it another one: --name NAME",
		}
	}
	for _, p := range req.Ports {
		port, err := portRef("--port", p)
		if err != nil {
			return f, q, err
		}
		f.Ports = append(f.Ports, port)
	}
	switch req.HTTP {
	case "":
	case "none":
		f.HTTP.Off = true
	default:
		p, err := portRef("--http", req.HTTP)
		if err != nil {
			return f, q, err
		}
		f.HTTP = config.HTTP{Number: p.Number, Name: p.Name}
		q.Ports = append(q.Ports, req.HTTP)
	}
	return f, q, nil
}

// spelledAsIn names the HTTP port as it is named among the ports, where it may
// stand by its number and is given by its name, or the other way round.
func spelledAsIn(ports []config.Port, http config.HTTP, known []kube.Port) config.HTTP {
	for _, k := range known {
		if http.Name != k.Name && http.Number != k.Number || http == (config.HTTP{}) {
			continue
		}
		for _, p := range ports {
			if p.Number == k.Number || p.Number == 0 && p.Name == k.Name {
				return config.HTTP{Number: p.Number, Name: p.Name}
			}
		}
	}
	return http
}

// portRef reads a port's number or name, as the flag gives it.
func portRef(flag, s string) (config.Port, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	switch {
	case err == nil && n >= 1 && n <= 65535:
		return config.Port{Number: uint16(n)}, nil
	case err != nil && config.CheckPortName(s) == "":
		return config.Port{Name: s}, nil
	}
	return config.Port{}, &localapi.Error{
		Message: fmt.Sprintf("%s %q is no port", flag, s),
		Hint:    "a port is a number from 1 to 65535, or the name that it has in the Service",
	}
}

func nameTaken(want, have config.Forward) error {
	e := &localapi.Error{
		Code:    http.StatusConflict,
		Message: fmt.Sprintf("the name %s is taken by %s", have.Name, have.Workload),
		Hint:    fmt.Sprintf("give the new one another name: --name %s-%s", want.Name, want.Workload.Namespace),
	}
	switch h, w := have.Workload, want.Workload; {
	case h == w:
		e.Message = fmt.Sprintf("there is a forward %s to the same target, with other ports or settings", have.Name)
		e.Hint = fmt.Sprintf("tunnelctl rm %s first, or edit the configuration, or use --name for a second one", have.Name)
	case h.Kind == w.Kind && h.Name == w.Name: // perhaps the first one was a mistake
		e.Hint = fmt.Sprintf("tunnelctl rm %s first, or %s", have.Name, e.Hint)
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
	e := &localapi.Error{
		Code: http.StatusConflict, Message: "the configuration was not changed: " + err.Error(),
		Hint: "mend that, or change the file yourself: it is read when it is saved",
	}
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
	d.applyEdit()
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
	d.applyEdit()
	return nil
}

// Reload does what the control API's reload does, for SIGHUP. An error is in
// the log and in status.
func (d *Daemon) Reload(ctx context.Context) {
	d.tell(systemd.Reloading())
	defer d.tell(systemd.Ready)
	if err := d.reload(ctx); err == nil {
		d.Log.Info("reloaded")
	}
}

// configured is the configured forwards in the form of the file.
func (d *Daemon) configured() ([]byte, error) {
	cfg, _ := d.current()
	return config.Marshal(cfg.Forwards)
}

func (d *Daemon) logs(ctx context.Context, name string, n int, follow bool) iter.Seq[status.LogRecord] {
	match := func(r status.LogRecord) bool { return name == "" || r.Forward == name }
	if follow {
		return d.records.Follow(ctx, n, match)
	}
	return slices.Values(d.records.Last(n, match))
}
