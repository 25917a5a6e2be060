package daemon

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tunneld/tunneld/internal/config"
	"github.com/tunneld/tunneld/internal/environ"
	"github.com/tunneld/tunneld/internal/forward"
	"github.com/tunneld/tunneld/internal/gateway"
	"github.com/tunneld/tunneld/internal/handover"
	"github.com/tunneld/tunneld/internal/kube"
	"github.com/tunneld/tunneld/internal/localapi"
	"github.com/tunneld/tunneld/internal/logring"
	"github.com/tunneld/tunneld/internal/netwatch"
	"github.com/tunneld/tunneld/internal/statedir"
	"github.com/tunneld/tunneld/internal/status"
	"github.com/tunneld/tunneld/internal/systemd"
	localtls "github.com/tunneld/tunneld/internal/tls"
	"github.com/tunneld/tunneld/internal/tls/truststore/held"
)

const (
	// reviewEvery is how often states are looked at although nothing has
	// happened, since some of them follow from time alone, and how often what
	// could not be bound is tried again; reviewIdle is that while all forwards are
	// idle.
	reviewEvery = 2 * time.Second
	reviewIdle  = 10 * time.Second
	// reviewPause is the least time between two looks: much that happens at
	// once is looked at once.
	reviewPause = 50 * time.Millisecond
	// rewatch is how often the configuration is read where it cannot be
	// watched.
	rewatch = 5 * time.Second
	// drainTimeout is Daemon.DrainTimeout where nobody says otherwise.
	drainTimeout = 3 * time.Second
)

// A Daemon is the whole service. Its fields may not change after Run.
type Daemon struct {
	// ConfigPath, StateDir and Socket say where things are; empty means the
	// defaults of config, statedir and localapi.
	ConfigPath, StateDir, Socket string
	// Service says that it runs as the installed service: with the environment that was
	// captured from the user's shell, which it keeps in StateDir.
	Service bool
	Version status.Version
	Log     *slog.Logger // nil: none
	// Timing is how closely the clusters are watched.
	Timing kube.Timing
	// Started, if set, is called once the first plan is in force and the
	// control socket answers.
	Started func()
	// Helper has names claimed of the operating system, and opens ports that
	// this user may not have. Without one, nil, the system is not concerned.
	Helper Helper
	// NamesLock is what the daemons of a user have in common that has one claim
	// names at a time: a file, in the default state directory if it is empty.
	NamesLock string
	// Lookup resolves names as the programs of this system do; nil means
	// lookup.Names.
	Lookup func(ctx context.Context, names ...string) (map[string][]netip.Addr, error)
	// Manager is who runs this process as a service; nil: nobody does. It is told how
	// things are, and keeps the listening sockets for the next process.
	Manager *systemd.Manager
	// DrainTimeout is how long connections may take to come to their end after
	// Run's context is done; 0 means 3 s: whoever stops a service does not wait
	// long. Hurry, if set, is closed by who does not even want to wait so long.
	DrainTimeout time.Duration
	Hurry        <-chan struct{}

	environment *environment // nil: it is not the service

	records  logring.Ring
	state    *statedir.Dir
	ca       *localtls.CA
	caErr    error
	trust    held.System
	clusters *kube.Clusters
	meters   *forward.Meters
	ports    *forward.Set
	gateway  *gateway.Gateway
	names    names
	binder   *binder
	keeper   *handover.Keeper

	kick chan struct{} // cap 1: something changed in the clusters

	editing    sync.Mutex // one edit of the file at a time
	applying   sync.Mutex // one plan at a time; guards the following
	history    history
	forgetting string // why the state directory cannot be written
	from       inputs // of the plan
	stands     bool   // nothing of the plan is left to be tried again
	told       string // the service manager: the states

	mu        sync.Mutex     // guards the following
	config    *config.Config // the last good one, or else the defaults
	good      bool           // there was a good one
	problem   string         // of the file on disk
	restart   string         // what the file says that takes effect at the next start
	unwatched string         // why a saved file is not seen at once
	unrenewed string         // why the CA cannot be replaced at its end
	plan      *plan
	changed   chan struct{} // closed when a state may have changed
}

// inputs are what a plan is made from, besides what was made of the last one.
type inputs struct {
	config *config.Config
	seen   map[forward.Workload]sighting
}

// Run runs the daemon until ctx is done, which is no error, and then for as long
// as connections take to come to their end: see drain. A configuration
// that cannot be read is no error either: it is reported, and mended while
// running. What Run needs for itself is: its state directory, its socket.
func (d *Daemon) Run(ctx context.Context) (err error) {
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	d.Log = slog.New(d.records.Handler(d.Log.Handler())) // the log API shows all of it
	d.keeper = handover.New(d.Manager, d.Log)
	defer d.keeper.DropRest() // if it does not come to anything
	if err := d.paths(); err != nil {
		return err
	}
	defer d.environment.restore()
	if d.state, err = statedir.Open(d.StateDir); err != nil {
		return err
	}
	defer d.state.Close()
	socket, err := localapi.Listen(d.Socket)
	if err != nil {
		return err
	}
	defer socket.Close()

	d.kick, d.changed, d.history = make(chan struct{}, 1), make(chan struct{}), make(history)
	d.plan = new(plan)
	d.readConfig()
	d.loadCA()
	d.clusters = &kube.Clusters{UserAgent: "tunneld/" + d.Version.Version, Changed: d.somethingChanged, Timing: d.Timing, Log: d.Log}
	defer d.clusters.Close()
	d.meters = new(forward.Meters)
	d.binder = &binder{helper: d.Helper, gate: &gate{onlyMe: d.onlyMe, me: os.Getuid(), log: d.Log}, keeper: d.keeper}
	d.gateway = &gateway.Gateway{Backends: d.clusters, Listen: d.binder.bind, CA: d.ca, NoCA: d.caErr, Meters: d.meters, Log: d.Log}
	defer d.gateway.Close()
	d.ports = &forward.Set{Backends: d.clusters, Listen: d.listen, Meters: d.meters, Log: d.Log}
	defer d.ports.Close()

	running, ctx := errgroup.WithContext(ctx)
	d.startNames(ctx, running)
	d.apply()
	d.keeper.DropRest()
	d.names.answer(running)
	running.Go(func() error { return d.watchConfig(ctx) })
	running.Go(func() error { return d.review(ctx) })
	running.Go(func() error { return d.keepCA(ctx) })
	running.Go(func() error {
		return (&netwatch.Watcher{Changed: func(string) { d.networkChanged() }, Log: d.Log}).Run(ctx)
	})
	running.Go(func() error { return d.api().Serve(ctx, socket) })
	running.Go(func() error {
		<-ctx.Done()
		d.drain()
		return nil
	})
	d.Log.Info("started", "version", d.Version.Version, "config", d.ConfigPath, "state", d.StateDir, "socket", socket.Addr())
	d.tell(systemd.Ready)
	if d.Started != nil {
		d.Started()
	}
	err = running.Wait()
	d.Log.Info("stopped", "err", err)
	return err
}

// drain takes all names back, closes all listeners, and lets what is in the middle
// of something finish, within bounds: answers that are owed, and bytes that move.
// What is left is cut by Run. Where listeners are kept for a next process, so are the
// names, and they are answered to the end.
func (d *Daemon) drain() {
	d.Log.Info("stopping")
	d.tell(systemd.Stopping)
	kept := d.keeper.Leave()
	d.names.drop(kept)
	if !kept {
		d.names.silence()
	}
	defer d.names.silence()
	ctx, cancel := context.WithTimeout(context.Background(), cmp.Or(d.DrainTimeout, drainTimeout))
	defer cancel()
	var draining sync.WaitGroup
	draining.Go(func() { d.ports.Shutdown(ctx) })
	draining.Go(func() { d.gateway.Shutdown(ctx) })
	drained := make(chan struct{})
	go func() {
		draining.Wait()
		close(drained)
	}()
	select {
	case <-drained:
	case <-d.Hurry:
		cancel()
		<-drained
	}
}

// paths finds where things are, and with the state directory the environment of the
// service, before anything looks at that.
func (d *Daemon) paths() (err error) {
	if d.StateDir == "" {
		if d.StateDir, err = statedir.DefaultPath(); err != nil {
			return err
		}
	}
	if d.StateDir, err = filepath.Abs(d.StateDir); err != nil { // tunnelctl is told, which runs elsewhere
		return err
	}
	if d.Service {
		d.environment = loadEnvironment(environ.Path(d.StateDir), d.Log)
	}
	if d.ConfigPath == "" {
		if d.ConfigPath, err = config.DefaultPath(); err != nil {
			return err
		}
	}
	d.ConfigPath, err = filepath.Abs(d.ConfigPath)
	return err
}

// listen binds a raw port.
func (d *Daemon) listen(s forward.Spec, at netip.AddrPort) (net.Listener, error) {
	if s.TLS && d.ca == nil {
		return nil, d.caErr
	}
	l, err := d.binder.bind(at)
	if err != nil || !s.TLS {
		return l, err
	}
	serves := func(name string) bool {
		_, p := d.current()
		return p.serves(at.Addr(), name)
	}
	var protocols []string
	if s.ALPN != "" {
		protocols = []string{s.ALPN}
	}
	return tls.NewListener(l, d.ca.ServerConfig(serves, at.Addr(), protocols...)), nil
}

// watchConfig follows the file. Where it cannot be watched (a system has only
// so many watches), it is read every few seconds, and status says so.
func (d *Daemon) watchConfig(ctx context.Context) error {
	for {
		err := config.Watch(ctx, d.ConfigPath, d.Log, func() {
			d.noteWatch(nil)
			d.followConfig()
		})
		if err == nil {
			return nil
		}
		d.noteWatch(err)
		d.followConfig()
		timer := time.NewTimer(rewatch)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
	}
}

// noteWatch notes why the file is not watched, or that it is.
func (d *Daemon) noteWatch(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	was := d.unwatched
	d.unwatched = ""
	if err != nil {
		d.unwatched = fmt.Sprintf("a saved file is seen after up to %v, not at once: %v", rewatch, err)
	}
	if d.unwatched != was && err != nil {
		d.Log.Warn("the configuration cannot be watched", "err", err)
	}
}

// followConfig brings into force what the file says now.
func (d *Daemon) followConfig() {
	d.editing.Lock()
	defer d.editing.Unlock()
	if d.readConfig() == nil {
		d.applyEdit()
	}
}

// readConfig reads the file. A bad one leaves the last good one in force, and
// so does one that has gone, or has been emptied, if there were forwards: that
// is what a save looks like that failed.
func (d *Daemon) readConfig() error {
	cfg, err := config.Load(d.ConfigPath)
	d.mu.Lock()
	before, wasGood := d.problem, d.good
	if err == nil && cfg.Absent && d.good && len(d.config.Forwards) > 0 {
		err = fmt.Errorf("%s is empty, or is not there: write \"version: 1\" into it if nothing shall be forwarded", d.ConfigPath)
	}
	switch {
	case err != nil:
		d.problem = err.Error()
		if d.config == nil {
			d.config = config.Default()
		}
	case d.config == nil:
		d.config, d.good = cfg, true
	default:
		d.problem, d.restart = "", keepUntilRestart(cfg, d.config, d.ca != nil && !d.ca.Permits(cfg.Domain))
		d.config, d.good = cfg, true
	}
	now := d.problem
	d.mu.Unlock()
	switch {
	case err != nil && now != before && wasGood:
		d.Log.Error("the configuration has an error; the last good one stays in force", "err", err)
	case err != nil && now != before:
		d.Log.Error("the configuration has an error; nothing is forwarded until it is mended", "err", err)
	case err == nil && before != "":
		d.Log.Info("the configuration is good again")
	case err == nil && !wasGood && cfg.Absent:
		d.Log.Info("there is no configuration yet", "path", d.ConfigPath)
	}
	return err
}

// keepUntilRestart leaves in force what cannot change while running, and says
// what that is: a new domain may need a new CA, which has to be trusted anew,
// and whoever was told where DNS answers would have to be told again.
func keepUntilRestart(cfg, running *config.Config, newCA bool) string {
	var waiting []string
	if cfg.Domain != running.Domain {
		domain := fmt.Sprintf("domain (%s is in force", running.Domain)
		if newCA {
			domain += "; there will be a new local CA, to be trusted anew"
		}
		waiting = append(waiting, domain+")")
	}
	if cfg.DNS != running.DNS {
		waiting = append(waiting, fmt.Sprintf("dns.listen (%v is in force)", running.DNS.Listen))
	}
	cfg.Domain, cfg.DNS = running.Domain, running.DNS
	if len(waiting) == 0 {
		return ""
	}
	return "takes effect when tunneld is started again: " + strings.Join(waiting, ", ")
}

// networkChanged is called when the machine has another network, or has slept.
func (d *Daemon) networkChanged() {
	d.clusters.ProbeNow()
	if d.names.claimant != nil {
		d.names.claimant.Recheck()
	}
}

// somethingChanged is called by the clusters, and by who claims names.
func (d *Daemon) somethingChanged() {
	select {
	case d.kick <- struct{}{}:
	default:
	}
}

// review applies the plan again whenever something may have changed, and looks
// at the states.
func (d *Daemon) review(ctx context.Context) error {
	tick := time.NewTimer(d.nextReview(false))
	defer tick.Stop()
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.kick:
		case <-tick.C:
		}
		tick.Reset(d.nextReview(d.apply()))
		if d.Manager.Watchdog() > 0 {
			d.tell(systemd.Alive) // whoever hangs does not come here
		}
		pause.Reset(reviewPause)
		select {
		case <-ctx.Done():
			return nil
		case <-pause.C:
		}
	}
}

// nextReview is when review looks again although nothing happens: soon enough for the
// watchdog, too.
func (d *Daemon) nextReview(idle bool) time.Duration {
	pace := reviewEvery
	if idle {
		pace = reviewIdle
	}
	if watchdog := d.Manager.Watchdog(); watchdog > 0 {
		pace = min(pace, watchdog/3)
	}
	return pace
}

// applyEdit is apply after an edit, which may have ended that all is idle: review
// has to look more often then.
func (d *Daemon) applyEdit() {
	d.apply()
	d.somethingChanged()
}

// apply makes a plan and brings it into force, unless that is so already. It
// reports whether all forwards are idle.
func (d *Daemon) apply() (idle bool) {
	d.applying.Lock()
	defer d.applying.Unlock()
	cfg, old := d.current()

	seen := make(map[forward.Workload]sighting)
	for _, f := range cfg.Forwards {
		if r := d.clusters.Report(f.Workload); r.Seen {
			seen[f.Workload] = sightingOf(r)
		}
	}
	if from := (inputs{cfg, seen}); d.stands && reflect.DeepEqual(from, d.from) {
		return d.noteStates(old, d.bindings())
	}
	p := makePlan(cfg, d.state.Forwards(), seen)
	d.clusters.Use(p.workloads)
	d.remember(p.remember)
	now := d.enforce(p, old)
	d.from = inputs{cfg, seen}
	d.stands = now.complete() && d.forgetting == ""
	return d.noteStates(p, now)
}

// enforce replaces a plan. A name appears when something listens behind it, and
// goes before that does. applying is held.
func (d *Daemon) enforce(p, old *plan) bindings {
	before := d.bindings()
	d.names.keep(old.names(func(at *place) bool { return p.keeps(at) && before.any(at) }))
	d.ports.Retain(p.specs) // the gateway may want what they leave
	d.gateway.SetTable(gateway.NewTable(p.rows))
	d.gateway.Apply(p.listeners)
	d.ports.Apply(p.specs)
	after := d.bindings()
	d.names.set(p.names(after.any))

	d.mu.Lock()
	d.plan = p
	d.mu.Unlock()
	return after
}

// remember writes the state directory. That it fails is said once; the
// addresses stay the same for as long as the daemon runs. As long as there is
// no good configuration, nothing is known of the forwards, so nothing is
// forgotten. applying is held.
func (d *Daemon) remember(forwards map[string]statedir.Forward) {
	d.mu.Lock()
	known := d.good && !d.config.Absent
	d.mu.Unlock()
	if !known {
		return
	}
	problem := ""
	if err := d.state.SetForwards(forwards); err != nil {
		problem = fmt.Sprintf("%s cannot be written: %v", d.state.Path(), bare(err))
	}
	if problem != "" && problem != d.forgetting {
		d.Log.Error("the forwards' addresses will not outlive this run", "err", problem)
	}
	d.forgetting = problem
}

// bare is an error of the file system without the file's name, which is another
// one at each try where the file is a temporary one.
func bare(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	if e, ok := errors.AsType[*os.LinkError](err); ok {
		return e.Err
	}
	return err
}

func (d *Daemon) bindings() bindings {
	return newBindings(d.ports.Bindings(), d.gateway.Bindings())
}

func (d *Daemon) current() (*config.Config, *plan) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.config, d.plan
}

// noteStates logs transitions and wakes who waits for one, and reports whether
// all forwards are idle; applying is held.
func (d *Daemon) noteStates(p *plan, b bindings) (idle bool) {
	now := time.Now()
	idle = true
	have := make(map[string]bool)
	states := make(map[status.State]int)
	for _, f := range p.forwards {
		s := d.report(f, b)
		have[f.name] = true
		states[s.State]++
		idle = idle && s.State == status.Idle
		d.note(&s, now)
	}
	for name := range d.history {
		if !have[name] {
			delete(d.history, name)
			d.meters.Forget(name)
		}
	}
	d.tellStates(states)
	d.mu.Lock()
	close(d.changed)
	d.changed = make(chan struct{})
	d.mu.Unlock()
	return idle
}

// note fills in since when a forward has its state, and logs a new one;
// applying is held.
func (d *Daemon) note(s *status.Forward, now time.Time) {
	if was, changed := d.history.note(s, now); changed {
		d.Log.Info("state", "forward", s.Name, "state", s.State, "was", was, "cause", s.Cause)
	}
}

// report describes a forward but for Since; applying is held.
func (d *Daemon) report(f *planned, b bindings) status.Forward {
	s := f.report(b, d.clusters.Report(f.workload), d.meters.Of(f.name).Counts())
	d.names.tell(&s, f.wildcard)
	if d.forgetting != "" && d.state.Saved(f.name).Address != f.address {
		s.Notes = append(s.Notes, "its address will not outlive this run of tunneld: "+d.forgetting)
	}
	return s
}
