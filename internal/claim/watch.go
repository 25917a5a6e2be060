package claim

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settle is for how long events are gathered, which come in bursts.
const settle = 100 * time.Millisecond

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
			due = nil
			changed()
		}
		if happened && due == nil {
			due = time.After(settle)
		}
	}
}
