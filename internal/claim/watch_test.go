package claim

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

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

func TestFilesThatChangeOnAndOnAreLookedAtNowAndThen(t *testing.T) {
	file := filepath.Join(t.TempDir(), "hosts")
	ctx, cancel := context.WithCancel(t.Context())
	seen := 0
	done := make(chan error, 1)
	go func() { done <- WatchFiles(ctx, []string{file}, func() { seen++ }) }()
	began := time.Now()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range 200 {
		<-tick.C
		if err := os.WriteFile(file, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	took := time.Since(began)
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	// After 0.1, 0.3, 0.7 and 1.5 s, and so on.
	if seen == 0 || seen > int(took/settle)/2 {
		t.Errorf("told %d times in %v", seen, took)
	}
}
