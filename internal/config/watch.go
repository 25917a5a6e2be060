package config

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	quiet = 100 * time.Millisecond // without events, before a change counts
	limit = time.Second            // after which it counts anyway
	retry = 5 * time.Second        // after a directory could not be watched
)

// Watch calls changed whenever the file at path may have other contents than
// before: it was written, replaced, removed, made again, or a link on the way
// to it leads elsewhere. The first call comes as soon as Watch sees changes, so
// that none is lost between a Load before it and the start. Neighbours of the
// file do not count, and changes in quick succession count once.
//
// Calls are made on this goroutine. Watch makes the directory of path if there
// is none, and returns when ctx is done, with nil, or when it cannot watch at
// all. A nil log discards.
func Watch(ctx context.Context, path string, log *slog.Logger, changed func()) error {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("watch configuration: %w", err)
	}
	w := &watcher{path: path}
	defer w.close()
	if err := w.update(); err != nil {
		return fmt.Errorf("watch configuration: %w", err)
	}
	seen := look(path)
	changed()

	burst := newBurst(quiet, limit)
	defer burst.stop()
	var trouble string
	for {
		select {
		case <-ctx.Done():
			return nil
		case ev, ok := <-w.events():
			// A directory that is made again can have the inode of the old one,
			// so update would not notice.
			if _, own := w.dirs[ev.Name]; !ok || own && (ev.Has(fsnotify.Remove) || ev.Has(fsnotify.Rename)) {
				w.close()
			}
			burst.event()
		case err := <-w.errors():
			// An overflow, most likely. What is lost may have been about the
			// file, or about a directory.
			log.Debug("watching the configuration: events were lost", "err", err)
			w.close()
			burst.event()
		case <-burst.over():
			burst.end()
			if err := w.update(); err != nil {
				if err.Error() != trouble {
					log.Warn("watching the configuration: trying again", "err", err, "every", retry)
				}
				trouble = err.Error()
				burst.later(retry)
			} else {
				trouble = ""
			}
			now := look(path)
			log.Debug("looked at the configuration", "changed", now != seen)
			if now != seen {
				seen = now
				changed()
			}
		}
	}
}

// A sighting is what can be seen of a file: equal sightings need no attention.
type sighting struct {
	trail string
	state string // what it is, or why that cannot be told
	sum   [sha256.Size]byte
}

func look(path string) sighting {
	t, err := follow(path)
	if err != nil {
		return sighting{state: err.Error()}
	}
	s := sighting{trail: fmt.Sprint(t.final, t.links)}
	src, info, err := readRegular(t.final)
	switch {
	case err != nil:
		s.state = err.Error()
	case info == nil:
		s.state = "absent"
	default:
		s.state, s.sum = "present", sha256.Sum256(src)
	}
	return s
}

// A watcher watches the directories that matter for a file: those that hold it
// and the links to it, never the file itself, which may be replaced. Where the
// file's directory is missing, it is the last one that exists.
type watcher struct {
	path string
	fs   *fsnotify.Watcher // nil if it does not watch
	dirs map[string]fs.FileInfo
}

// update makes the watcher watch the directories that matter now. It starts
// anew if they are others, or others of the same name, which the old watches
// would not tell.
func (w *watcher) update() error {
	for range 10 {
		dirs, main, err := directories(w.path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it was there a moment ago
		}
		if err != nil {
			return err
		}
		if w.fs != nil && maps.EqualFunc(dirs, w.dirs, os.SameFile) {
			return nil
		}
		if err := w.start(dirs, main); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		// Once more: they may have been replaced before they were watched.
	}
	return fmt.Errorf("%s: its directories do not stay the same", w.path)
}

// start starts anew; after an error nothing is watched.
func (w *watcher) start(dirs map[string]fs.FileInfo, main string) (err error) {
	w.close()
	if w.fs, err = fsnotify.NewWatcher(); err != nil {
		w.fs = nil
		return err
	}
	w.dirs = dirs
	for dir := range dirs {
		err := w.fs.Add(dir)
		// A directory with a link in it may be hidden from this user.
		if err != nil && (dir == main || errors.Is(err, fs.ErrNotExist)) {
			w.close()
			return fmt.Errorf("%s: %w", dir, err)
		}
	}
	return nil
}

// directories are those that a watcher needs; main is the one that it cannot do
// without.
func directories(path string) (dirs map[string]fs.FileInfo, main string, err error) {
	t, err := follow(path)
	if err != nil {
		return nil, "", err
	}
	main = t.missing
	if main == "" {
		main = filepath.Dir(t.final)
	}
	dirs = map[string]fs.FileInfo{}
	for _, l := range t.links {
		dirs[filepath.Dir(l.path)] = nil
	}
	dirs[main] = nil
	for dir := range dirs {
		if dirs[dir], err = os.Stat(dir); err != nil {
			return nil, "", err
		}
	}
	return dirs, main, nil
}

func (w *watcher) close() {
	if w.fs != nil {
		w.fs.Close()
		w.fs = nil
	}
}

func (w *watcher) events() <-chan fsnotify.Event {
	if w.fs == nil {
		return nil
	}
	return w.fs.Events
}

func (w *watcher) errors() <-chan error {
	if w.fs == nil {
		return nil
	}
	return w.fs.Errors
}

// A burst is a number of events with less than quiet between them, but not
// longer than limit. It is for one goroutine.
type burst struct {
	quiet, limit time.Duration
	timer        *time.Timer
	start        time.Time // zero if none is under way
}

func newBurst(quiet, limit time.Duration) *burst {
	b := &burst{quiet: quiet, limit: limit, timer: time.NewTimer(time.Hour)}
	b.timer.Stop()
	return b
}

func (b *burst) event() {
	now := time.Now()
	if b.start.IsZero() {
		b.start = now
	}
	b.timer.Reset(min(b.quiet, b.start.Add(b.limit).Sub(now)))
}

// over gives a value when the burst is over; then end is to be called.
func (b *burst) over() <-chan time.Time { return b.timer.C }

func (b *burst) end() { b.start = time.Time{} }

// later makes as if a burst were over in d, if no event comes.
func (b *burst) later(d time.Duration) { b.timer.Reset(d) }

func (b *burst) stop() { b.timer.Stop() }
