package claim

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// settle is for how long events are gathered, which come in bursts.
	settle = 100 * time.Millisecond
	// settleMost is that while they do not end: it doubles.
	settleMost = 5 * time.Second
)

// WatchFiles calls changed whenever one of the files was written, replaced, made
// or removed, until ctx is done, which is no error. Directories that do not exist
// are left out: with no resolver of a kind, nobody changes its files. An error
// means that nothing can be watched.
func WatchFiles(ctx context.Context, files []string, changed func()) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch the system's resolver: %w", err)
	}
	defer w.Close()
	watched := make(map[string]bool)
	var failed error
	for _, file := range files {
		watched[filepath.Clean(file)] = true
		// The directory, since files are replaced by renaming.
		if err := w.Add(filepath.Dir(file)); err != nil {
			failed = err
		}
	}
	if len(w.WatchList()) == 0 {
		return failed
	}
	var due <-chan time.Time // nil: nothing has happened
	wait, last := settle, time.Time{}
	for {
		happened := false
		select {
		case <-ctx.Done():
			return nil
		case event := <-w.Events:
			happened = watched[event.Name] && event.Op != fsnotify.Chmod
		case err := <-w.Errors:
			happened = errors.Is(err, fsnotify.ErrEventOverflow) // what was lost may have been about a file
		case <-due:
			due, last = nil, time.Now()
			changed()
		}
		if happened && due == nil {
			if wait = min(2*wait, settleMost); time.Since(last) > settleMost {
				wait = settle
			}
			due = time.After(wait)
		}
	}
}
