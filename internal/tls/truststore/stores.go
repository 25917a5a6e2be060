package truststore

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/tunneld/tunneld/internal/tls/truststore/place"
	"github.com/tunneld/tunneld/internal/tls/truststore/program"
)

// Stores are the trust stores of one scope. Its methods must not be called
// concurrently, nor by two processes at a time: see the lock in Receipts.
type Stores struct {
	Scope Scope
	// Home is the user's home directory, for the scope User; it is where
	// everything of that scope is found, whatever the environment says.
	Home string
	// Getenv is os.Getenv or like it: JAVA_HOME and XDG_DATA_HOME say where stores are.
	Getenv func(string) string
	// Receipts is the directory where it is noted what was done; made when the first
	// is written, and removed with the last. Those above it that are named for
	// tunneld are made and removed as well, of the machine.
	Receipts string
	Log      *slog.Logger

	// programs is nil for those of the system.
	programs *program.Programs
	// root is put before the paths of the system; tests have one.
	root string
	// patience is lockPatience where it is 0.
	patience time.Duration
	// reached is told what has been done, by tests that end the process there.
	reached func(what string)
}

func (s *Stores) log() *slog.Logger {
	if s.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return s.Log
}

func (s *Stores) getenv(key string) string {
	if s.Getenv == nil {
		return ""
	}
	return s.Getenv(key)
}

func (s *Stores) reach(what string) {
	if s.reached != nil {
		s.reached(what)
	}
}

func (s *Stores) program() program.Programs {
	if s.programs == nil {
		return program.Real()
	}
	return *s.programs
}

// Install plans that root is in every place of the scope. Whatever else was
// installed for the same source, such as the state directory of a daemon, is
// taken out: a root certificate of it that is no longer used.
func (s *Stores) Install(ctx context.Context, root *x509.Certificate, source string) ([]Step, error) {
	stores, err := s.find()
	if err != nil {
		return nil, fmt.Errorf("look for trust stores: %w", err)
	}
	records, err := s.records()
	if err != nil {
		return nil, err
	}
	var steps []Step
	for _, st := range stores {
		step := s.step(ctx, Add, st, root)
		step.Source = source
		steps = append(steps, step)
	}
	for _, r := range records {
		if r.Source != source || r.fingerprint == place.Fingerprint(root) {
			continue
		}
		old, err := s.removal(ctx, r, stores)
		if err != nil {
			return nil, err
		}
		steps = append(steps, old...)
	}
	return steps, nil
}

// Removal plans that nothing is left of what was installed, and of also, which may
// be nil and may have been put there by hand.
func (s *Stores) Removal(ctx context.Context, also *x509.Certificate) ([]Step, error) {
	stores, err := s.find()
	if err != nil {
		return nil, fmt.Errorf("look for trust stores: %w", err)
	}
	records, err := s.records()
	if err != nil {
		return nil, err
	}
	if len(records) == 0 && s.mayAct() == nil {
		s.tidyUp()
	}
	if also != nil {
		fingerprint := place.Fingerprint(also)
		i := slices.IndexFunc(records, func(r record) bool { return r.fingerprint == fingerprint })
		if i < 0 {
			records = append(records, record{fingerprint: fingerprint, cert: also})
		} else {
			records[i].cert = also // its receipt may be broken
		}
	}
	var steps []Step
	for _, r := range records {
		of, err := s.removal(ctx, r, stores)
		if err != nil {
			return nil, err
		}
		steps = append(steps, of...)
	}
	return steps, nil
}

// removal plans that nothing is left of one certificate: in the stores that there are,
// and in those of its receipt, which may be elsewhere by now.
func (s *Stores) removal(ctx context.Context, r record, stores []place.Store) ([]Step, error) {
	var steps []Step
	places := slices.Clone(stores)
	for _, n := range r.Places {
		if slices.ContainsFunc(stores, func(st place.Store) bool { return samePlace(st.Place(), n.Place) }) {
			continue
		}
		st, err := s.at(n.Place)
		if err != nil {
			step := Step{Action: Remove, Place: n.Place, Cert: r.cert, Fingerprint: r.fingerprint, Source: r.Source, Blocked: err.Error()}
			steps = append(steps, step)
			continue
		}
		places = append(places, st)
	}
	for _, st := range places {
		cert := r.cert
		if cert == nil {
			err := s.mayAct()
			if err != nil && s.Scope == User {
				continue
			}
			if cert, err = search(ctx, st, r.fingerprint); err != nil {
				s.log().Warn("a trust store cannot be searched", "path", st.Place().Path, "err", err)
			}
			if cert == nil {
				continue
			}
		}
		step := s.step(ctx, Remove, st, cert)
		step.Source = r.Source
		if _, noted := r.find(st.Place()); noted {
			// If it is gone, that is still to be noted.
			if step.Done {
				step.Done = false
				step.Blocked, step.Fix = s.blocked(s.mayAct())
			}
		} else if step.Done {
			continue
		}
		steps = append(steps, step)
	}
	if r.all || (len(r.Places) == 0 && s.has(r.fingerprint)) {
		step := Step{Action: Remove, Cert: r.cert, Fingerprint: r.fingerprint, Source: r.Source,
			Place: Place{Kind: place.Receipt, Path: s.receiptPath(r.fingerprint), Scope: s.Scope, Readers: "nobody but this program"}}
		step.Blocked, step.Fix = s.blocked(s.mayAct())
		steps = append(steps, step)
	}
	return steps, nil
}

func (s *Stores) has(fingerprint string) bool {
	_, err := os.Lstat(s.receiptPath(fingerprint))
	return err == nil
}

func search(ctx context.Context, st place.Store, fingerprint string) (*x509.Certificate, error) {
	if st, ok := st.(place.Searcher); ok {
		return st.Search(ctx, fingerprint)
	}
	return nil, nil
}

// step plans one step, from what the store says.
func (s *Stores) step(ctx context.Context, action Action, st place.Store, cert *x509.Certificate) Step {
	step := Step{Action: action, Place: st.Place(), Cert: cert, Fingerprint: place.Fingerprint(cert)}
	if err := s.mayAct(); err != nil && s.Scope == User {
		// Not even to look: certutil may write as it reads.
		step.Blocked, step.Fix = s.blocked(err)
		return step
	}
	there, err := st.Look(ctx, cert)
	if err != nil {
		step.Blocked, step.Fix = s.blocked(err)
		return step
	}
	if action == Add {
		step.Done = there == place.Present
	} else {
		step.Done = there == place.Absent
	}
	if step.Done {
		return step
	}
	if err := s.mayAct(); err != nil {
		step.Blocked, step.Fix = s.blocked(err)
	} else if err := st.Ready(ctx, action, cert); err != nil {
		step.Blocked, step.Fix = s.blocked(err)
	} else if a, ok := st.(place.Asker); ok {
		step.Asks = a.Asks(action)
	}
	return step
}

// blocked is what a step says of an error.
func (s *Stores) blocked(err error) (why, fix string) {
	var b *place.BlockedError
	switch {
	case err == nil:
		return "", ""
	case errors.As(err, &b):
		return b.Why, b.Fix
	}
	return explain(err).Error(), ""
}

// Do does what Install or Removal planned, and looks whether it is so. A step
// that is done already, or was by now, changes nothing.
func (s *Stores) Do(ctx context.Context, step Step) error {
	if step.Place.Scope != s.Scope {
		return fmt.Errorf("%s is of the scope %s, not %s", step.Place.Path, step.Place.Scope, s.Scope)
	}
	// A step may have come from elsewhere, and the fingerprint names a receipt's file.
	if isReceipt := step.Place.Kind == place.Receipt; isReceipt && !isFingerprint(step.Fingerprint) || !isReceipt && step.Cert == nil {
		return errors.New("the step is not for a certificate")
	}
	if err := s.mayAct(); err != nil {
		return err
	}
	release, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer release()
	s.reach("locked")
	if step.Place.Kind == place.Receipt {
		return s.forget(ctx, step.Fingerprint)
	}
	st, err := s.at(step.Place)
	if err != nil {
		return err
	}
	if step.Action == Add {
		if err := s.add(ctx, st, step); err != nil {
			return fmt.Errorf("add the certificate to %s: %w", step.Place.Path, err)
		}
		return nil
	}
	if err := s.remove(ctx, st, step.Cert); err != nil {
		return fmt.Errorf("remove the certificate from %s: %w", step.Place.Path, err)
	}
	return nil
}

func (s *Stores) add(ctx context.Context, st place.Store, step Step) error {
	cert := step.Cert
	there, err := st.Look(ctx, cert)
	if err != nil || there == place.Present {
		return err
	}
	if err := st.Ready(ctx, Add, cert); err != nil {
		return err
	}
	fingerprint := place.Fingerprint(cert)
	n := noted{Place: st.Place()}
	if m, ok := st.(place.Maker); ok {
		n.Made = m.Makes()
	}
	undo := func(ctx context.Context) error { return s.remove(ctx, st, cert) }
	if r, _ := s.record(fingerprint); there == place.Partly {
		if _, ours := r.find(n.Place); !ours {
			if undo, err = s.restore(ctx, st, cert, undo); err != nil {
				return err
			}
		}
	}
	if err := s.note(cert, step.Source, n); err != nil {
		return err
	}
	s.reach("noted")
	err = st.Add(ctx, cert)
	if err == nil {
		there, err = st.Look(ctx, cert)
		if err == nil && there != place.Present {
			err = errors.New("it was put there, but those who read it do not see it")
		}
	}
	if err == nil {
		s.log().Info("a certificate is trusted", "fingerprint", fingerprint, "path", st.Place().Path)
		return nil
	}
	// Whoever gave up waiting still wants nothing half done.
	if failed := undo(context.WithoutCancel(ctx)); failed != nil {
		return fmt.Errorf("%w; nor could it be taken back: %w", explain(err), explain(failed))
	}
	return explain(err)
}

// restore is how an add is undone where somebody else has put a part of the certificate before; or
// as otherwise if the store has no such parts.
func (s *Stores) restore(ctx context.Context, st place.Store, cert *x509.Certificate, otherwise func(context.Context) error) (undo func(context.Context) error, err error) {
	r, ok := st.(place.Restorer)
	if !ok {
		return otherwise, nil
	}
	restore, err := r.Before(ctx, cert)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		if err := restore(ctx); err != nil {
			return err
		}
		return s.strike(place.Fingerprint(cert), st.Place())
	}, nil
}

func (s *Stores) remove(ctx context.Context, st place.Store, cert *x509.Certificate) error {
	fingerprint := place.Fingerprint(cert)
	there, err := st.Look(ctx, cert)
	if err != nil {
		return err
	}
	if there != place.Absent {
		if err := st.Ready(ctx, Remove, cert); err != nil {
			return err
		}
		if err := st.Remove(ctx, cert); err != nil {
			return explain(err)
		}
		if there, err = st.Look(ctx, cert); err != nil {
			return err
		}
		if there != place.Absent {
			return errors.New("it was taken out, and is still there")
		}
		s.log().Info("a certificate is trusted no more", "fingerprint", fingerprint, "path", st.Place().Path)
	}
	s.reach("removed")
	r, _ := s.record(fingerprint)
	n, _ := r.find(st.Place())
	if m, ok := st.(place.Maker); ok && len(n.Made) > 0 {
		if err := m.Unmake(ctx, n.Made); err != nil {
			return fmt.Errorf("remove what was made for it: %w", explain(err))
		}
	}
	return s.strike(fingerprint, st.Place())
}

// forget removes a receipt that could not be read, if its certificate is nowhere any more.
func (s *Stores) forget(ctx context.Context, fingerprint string) error {
	r, ok := s.record(fingerprint)
	if !ok {
		return nil
	}
	stores, err := s.find()
	if err != nil {
		return fmt.Errorf("look for trust stores: %w", err)
	}
	for _, st := range stores {
		cert := r.cert
		if cert == nil {
			if cert, err = search(ctx, st, fingerprint); err != nil {
				return err
			} else if cert == nil {
				continue
			}
		}
		there, err := st.Look(ctx, cert)
		if err != nil {
			return err
		}
		if there != place.Absent {
			return fmt.Errorf("the receipt is kept: %s still has the certificate", st.Place().Path)
		}
	}
	return s.discard(fingerprint)
}

// explain says in words what users meet and can do something about. Where it was, whoever wraps it says.
func explain(err error) error {
	switch {
	case errors.Is(err, syscall.EROFS):
		return &explainedError{"the file system is read-only", err}
	case errors.Is(err, syscall.ENOSPC):
		return &explainedError{"the disk is full", err}
	}
	return err
}

type explainedError struct {
	words string
	err   error
}

func (e *explainedError) Error() string { return e.words }
func (e *explainedError) Unwrap() error { return e.err }
