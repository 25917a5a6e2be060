package claim

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/tunneld/tunneld/internal/await"
)

func TestWatchFiles(t *testing.T) {
	dir := t.TempDir()
	file, missing := filepath.Join(dir, "hosts"), filepath.Join(dir, "none", "resolv.conf")
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("hosts", "a\n")
	changed := make(chan struct{}, 100)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- WatchFiles(ctx, []string{missing, file}, func() { changed <- struct{}{} }) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	told := func(what string) {
		t.Helper()
		await.Until(t, what+" to be told", func() bool { return len(changed) > 0 })
		for len(changed) > 0 {
			<-changed
		}
	}
	// Until the first event is seen, the watch may not have begun.
	await.Until(t, "a write to be told", func() bool {
		write("hosts", "b\n")
		return len(changed) > 0
	})
	write("new", "c\n")
	if err := os.Rename(filepath.Join(dir, "new"), file); err != nil {
		t.Fatal(err)
	}
	told("a file that was replaced")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	told("a file that was removed")
}

func TestWatchNothing(t *testing.T) {
	if err := WatchFiles(t.Context(), []string{filepath.Join(t.TempDir(), "none", "hosts")}, nil); err == nil {
		t.Error("no error where nothing can be watched")
	}
}
