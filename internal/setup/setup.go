// Package setup puts tunneld into a machine, and takes it out again: a plan of
// changes, each of which is noted before it is made, so that it can be undone
// however far the installation came, and by another version of this program.
package setup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A Kind says what a Change is made to.
type Kind string

// The kinds of changes. What they have in common: to make one again changes
// nothing, and it is undone only while it is still what was made.
const (
	Directory Kind = "directory" // made if it is missing, removed if it is empty
	File      Kind = "file"
	Link      Kind = "link" // symbolic
	Service   Kind = "service"
	Home      Kind = "home"  // what there is of a user's, which only the user touches
	Trust     Kind = "trust" // the local CA in the trust stores
)

// A Change is one change to the machine. It is plain data, and is what a receipt
// holds.
type Change struct {
	// Step is the part of the plan that it belongs to, by which it may be left out.
	Step string `json:"step"`
	Kind Kind   `json:"kind"`
	// Path is of a directory, file or link, and absolute; of a service it is the
	// name that its manager knows it by.
	Path string `json:"path,omitempty"`
	// Mode is of a file or directory: permission bits.
	Mode uint32 `json:"mode,omitempty"`
	// SHA256 of a file's content, in hexadecimal.
	SHA256 string `json:"sha256,omitempty"`
	// Former are the sums of what was at Path, and ours, until it was replaced, which
	// may not have happened; an empty one says that nothing was. A service may still
	// run it.
	Former []string `json:"former,omitempty"`
	// Target is where a link leads.
	Target string `json:"target,omitempty"`
	// Missing are the directories that were not there before, the outermost first,
	// for Home.
	Missing []string `json:"missing,omitempty"`
	// Why says in a few words what it is for, and Undo how it is undone.
	Why  string `json:"why,omitempty"`
	Undo string `json:"undo,omitempty"`
}

// same reports whether two changes are to the same thing.
func (c Change) same(other Change) bool { return c.Kind == other.Kind && c.Path == other.Path }

// An Item is a Change of a plan, with what it takes to make it.
type Item struct {
	Change
	// Content is what a file shall hold.
	Content []byte
	// Optional: if something else is there, it is left alone.
	Optional bool
	// Runs are the paths of those files that a service runs or is defined by: it is
	// restarted when one of them was replaced.
	Runs []string
}

// An Actor makes and undoes changes of one kind.
type Actor interface {
	// Done reports whether the change is there, made by us or not.
	Done(ctx context.Context, c Change) (bool, error)
	// Do makes it. What it returns in left is for people: what could not be done,
	// and is no reason to stop.
	Do(ctx context.Context, c Change) (left string, err error)
	// Undo takes it back, and says in left what it has left alone and why. What is
	// not there is no error.
	Undo(ctx context.Context, c Change) (left string, err error)
}

// A Restarter is an Actor that can have what runs replaced.
type Restarter interface {
	Restart(ctx context.Context, c Change) error
}

// Services is a machine's manager of services: systemd, launchd, or Windows' task
// scheduler.
type Services interface {
	// State tells what is known of a service. One that is not there is no error.
	State(ctx context.Context, name string) (ServiceState, error)
	// Enable has it started now, and from now on with the machine (or at the
	// user's login, where that is what the manager does). Its definition is in
	// place already.
	Enable(ctx context.Context, name string) error
	// Disable stops it and undoes Enable, while its definition is still there. To
	// disable what is not there is no error.
	Disable(ctx context.Context, name string) error
	// Restart has it run what is installed now.
	Restart(ctx context.Context, name string) error
}

// ServiceState is what a manager knows of a service.
type ServiceState struct {
	Enabled bool // it starts by itself
	Active  bool // it runs, or is listened for
}

// ServiceActor is the Actor for changes of the kind Service.
func ServiceActor(s Services) Actor { return services{s} }

type services struct{ manager Services }

func (s services) Done(ctx context.Context, c Change) (bool, error) {
	state, err := s.manager.State(ctx, c.Path)
	return state.Enabled && state.Active, err
}

func (s services) Do(ctx context.Context, c Change) (string, error) {
	return "", s.manager.Enable(ctx, c.Path)
}

func (s services) Undo(ctx context.Context, c Change) (string, error) {
	return "", s.manager.Disable(ctx, c.Path)
}

func (s services) Restart(ctx context.Context, c Change) error {
	return s.manager.Restart(ctx, c.Path)
}

// A Machine is where changes are made, on behalf of one user.
type Machine struct {
	// UID is the user whose installation it is.
	UID string
	// Receipts is the directory of the receipts of all users.
	Receipts string
	// Root is put before all paths; empty outside of tests.
	Root string
	// Actors are for the kinds that are not of the file system.
	Actors map[Kind]Actor
	// Settle, if set, is called after files were written or removed, before and after
	// services are dealt with: there are managers that have to be told.
	Settle func(context.Context) error
	// Progress, if set, is told of each change that was made or taken back.
	Progress func(c Change, what string)

	changed bool // there are files that Settle has not been told of
	// reached is told where it is, by tests that end there.
	reached func()
}

func (m *Machine) reach() {
	if m.reached != nil {
		m.reached()
	}
}

// A Standing is how far a change of a plan is.
type Standing struct {
	Item
	// Done says that it is there, and noted as ours; or a directory.
	Done bool
	// Blocked is why it cannot be made.
	Blocked string
}

// Look says how far each item of a plan is.
func (m *Machine) Look(ctx context.Context, plan []Item) ([]Standing, error) {
	r, err := m.receipt()
	if err != nil {
		return nil, err
	}
	all := make([]Standing, 0, len(plan))
	for _, item := range plan {
		s := Standing{Item: item}
		there, err := m.actor(item, r).Done(ctx, item.Change)
		if err != nil {
			s.Blocked = err.Error()
		}
		s.Done = there && (r.has(item.Change) || item.Kind == Directory)
		all = append(all, s)
	}
	return all, nil
}

// Apply makes what is missing of a plan, in order, and then takes back what an
// earlier plan made and this one does not have, of the steps that steps names. What
// is not essential and could not be done is in left.
func (m *Machine) Apply(ctx context.Context, plan []Item, steps []string) (left []string, err error) {
	r, err := m.receipt()
	if err != nil {
		return nil, err
	}
	var good []Change
	replaced := make(map[string]bool) // files
	var running []Item                // services that run what they did before
	for _, item := range plan {
		if err := ctx.Err(); err != nil {
			return left, err
		}
		what, text, err := m.apply(ctx, r, item)
		if err != nil {
			return left, fmt.Errorf("%s %s: %w", item.Kind, item.Path, err)
		}
		if text != "" {
			left = append(left, text)
		} else {
			good = append(good, item.Change)
		}
		// Others may have replaced it, or an installation that did not come so far as
		// to restart what runs it.
		if item.Kind == File && (what == made || r.unsettled(item.Change)) {
			replaced[item.Path], m.changed = true, true
		}
		if what == there {
			if what, err = m.restart(ctx, item, func(path string) bool { return replaced[path] }); err != nil {
				return left, err
			}
		}
		if what == there {
			running = append(running, item)
		}
		m.progress(item.Change, what)
	}
	stale := r.where(func(c Change) bool {
		return slices.Contains(steps, c.Step) && !slices.ContainsFunc(plan, func(i Item) bool { return i.same(c) })
	})
	more, err := m.undo(ctx, r, stale)
	left = append(left, more...)
	if err != nil {
		return left, err
	}
	for _, item := range running {
		_, err := m.restart(ctx, item, func(path string) bool {
			return slices.ContainsFunc(stale, func(c Change) bool { return c.Kind == File && c.Path == path })
		})
		if err != nil {
			return left, err
		}
	}
	return left, r.settled(good)
}

// restart has a service that runs already run what is there now, if one of the files
// that it is made of was replaced. It says what became of it.
func (m *Machine) restart(ctx context.Context, item Item, replaced func(path string) bool) (what string, err error) {
	restarter, ok := m.Actors[item.Kind].(Restarter)
	if !ok || !slices.ContainsFunc(item.Runs, replaced) {
		return there, nil
	}
	if err := m.settle(ctx); err != nil {
		return "", err
	}
	if err := restarter.Restart(ctx, item.Change); err != nil {
		return "", fmt.Errorf("restart %s: %w", item.Path, err)
	}
	return restarted, nil
}

// What became of a change.
const (
	made      = "done"
	there     = "is there"
	skipped   = "left as it is"
	restarted = "restarted"
	undone    = "undone"
	seeBelow  = "see below"
	kept      = "kept"
)

func (m *Machine) apply(ctx context.Context, r *receipt, item Item) (what, left string, err error) {
	actor := m.actor(item, r)
	done, err := actor.Done(ctx, item.Change)
	if err != nil {
		if item.Optional {
			return skipped, "", nil // the plan has said why
		}
		return "", "", err
	}
	if done && item.Kind == Directory {
		// It is another user's installation's, too, or was there before, or is noted already.
		shared, err := m.shared(item.Change)
		if err == nil && shared {
			err = r.note(item.Change)
		}
		return there, "", err
	}
	if err := r.note(item.Change); err != nil {
		return "", "", err
	}
	m.reach()
	if done && item.Kind != Trust { // to trust twice changes nothing, and mends what a look cannot see
		return there, "", nil
	}
	if item.Kind == Service {
		if err := m.settle(ctx); err != nil {
			return "", "", err
		}
	}
	if left, err = actor.Do(ctx, item.Change); err != nil {
		return "", "", err
	}
	m.reach()
	if left != "" {
		return skipped, left, nil
	}
	if done, err = actor.Done(ctx, item.Change); err == nil && !done {
		err = errNotThere
	}
	if err != nil {
		return "", "", fmt.Errorf("it was done, but: %w", err)
	}
	return made, "", nil
}

// errNotThere: what was made is not found.
var errNotThere = errors.New("it is not there")

// Remove takes back all that the receipt has, in the order of Noted, and what of the plan
// is there although it is not noted: receipts may have been lost. It says in left
// what was left alone, and why. It goes on after what fails, but for the programs,
// and what the user has in their home: they are what it takes to try again.
func (m *Machine) Remove(ctx context.Context, plan []Item) (left []string, err error) {
	r, err := m.receipt()
	if err != nil {
		return nil, err
	}
	if r.changes = m.noted(ctx, r, plan); len(r.changes) == 0 {
		return nil, r.remove()
	}
	left, err = m.undo(ctx, r, slices.Clone(r.changes))
	if err != nil {
		return left, err
	}
	return left, r.remove()
}

// undo takes changes back, in the order of backward.
func (m *Machine) undo(ctx context.Context, r *receipt, changes []Change) (left []string, err error) {
	var failed []error
	for _, c := range backward(changes) {
		if err := ctx.Err(); err != nil {
			return left, errors.Join(append(failed, err)...)
		}
		if len(failed) > 0 && (c.Kind == Home || program(c, changes)) {
			m.progress(c, kept)
			continue
		}
		shared, err := m.leave(c)
		if err != nil {
			return left, errors.Join(append(failed, err)...)
		}
		if shared {
			if err := r.forget(c); err != nil {
				return left, errors.Join(append(failed, err)...)
			}
			m.progress(c, kept)
			continue
		}
		text, err := m.actorOf(c.Kind, nil, r).Undo(ctx, c)
		if err != nil {
			failed = append(failed, fmt.Errorf("take back %s %s: %w", c.Kind, c.Path, err))
			continue
		}
		m.reach()
		m.changed = m.changed || c.Kind == File || c.Kind == Link
		if err := r.forget(c); err != nil {
			return left, errors.Join(append(failed, err)...)
		}
		m.reach()
		if text != "" {
			left = append(left, text)
			m.progress(c, seeBelow)
			continue
		}
		m.progress(c, undone)
	}
	if err := m.settle(ctx); err != nil {
		failed = append(failed, err)
	}
	return left, errors.Join(failed...)
}

// program reports whether a change is to a program, a link to one, or a directory that
// is there for one.
func program(c Change, all []Change) bool {
	switch c.Kind {
	case Link:
		return true
	case File:
		return c.Mode&0o111 != 0
	case Directory:
		return slices.ContainsFunc(all, func(p Change) bool {
			return p.Kind != Directory && program(p, nil) && strings.HasPrefix(p.Path, c.Path+"/")
		})
	}
	return false
}

func (m *Machine) settle(ctx context.Context) error {
	if !m.changed || m.Settle == nil {
		return nil
	}
	m.changed = false
	return m.Settle(ctx)
}

func (m *Machine) progress(c Change, what string) {
	if m.Progress != nil {
		m.Progress(c, what)
	}
}

// backward is the order to take changes back in: the latest first, but whatever takes
// programs before these, and directories after what is in them. Later installations
// may have added to the first one's changes.
func backward(changes []Change) []Change {
	rank := func(c Change) int {
		switch c.Kind {
		case Trust:
			return 0
		case Service:
			return 1
		case Home:
			return 2
		case Directory:
			return 4
		}
		return 3
	}
	changes = slices.Clone(changes)
	slices.Reverse(changes)
	slices.SortStableFunc(changes, func(a, b Change) int {
		if rank(a) != rank(b) || rank(a) != 4 {
			return cmp.Compare(rank(a), rank(b))
		}
		return cmp.Compare(strings.Count(b.Path, "/"), strings.Count(a.Path, "/"))
	})
	return changes
}

// Noted is what Remove would take back, in the order in which it does.
func (m *Machine) Noted(ctx context.Context, plan []Item) ([]Change, error) {
	r, err := m.receipt()
	if err != nil {
		return nil, err
	}
	return backward(m.noted(ctx, r, plan)), nil
}

// noted are the changes of a receipt, and those of the plan that are there although
// nobody's receipt has them: receipts may have been lost.
func (m *Machine) noted(ctx context.Context, r *receipt, plan []Item) []Change {
	changes := slices.Clone(r.changes)
	for _, item := range plan {
		if r.has(item.Change) || item.Kind == Directory && !strings.Contains(item.Path, "tunneld") {
			continue // of directories, those that are named for us are nobody else's
		}
		if shared, err := m.shared(item.Change); err != nil || shared {
			continue // that a receipt cannot be read is said where something is taken back
		}
		if done, err := m.actor(item, r).Done(ctx, item.Change); err == nil && done {
			changes = append(changes, item.Change)
		}
	}
	return changes
}
