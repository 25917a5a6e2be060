package main

import (
	"context"
	"io"
	"log/slog"

	"k8s.io/klog/v2"
)

// newLog makes the process's logger: Info and above, or Debug too if verbose.
// Kubernetes' libraries, which log through klog whatever the caller does about
// the error, are heard at Debug.
func newLog(stderr io.Writer, verbose bool) *slog.Logger {
	level := slog.LevelInfo
	if verbose {
		level = slog.LevelDebug
	}
	h := slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level})
	klog.SetSlogLogger(slog.New(muted{h}))
	return slog.New(h)
}

// muted makes every record a Debug one, and drops klog's verbose ones.
type muted struct{ slog.Handler }

func (m muted) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo && m.Handler.Enabled(ctx, slog.LevelDebug)
}

func (m muted) Handle(ctx context.Context, r slog.Record) error {
	r.Level = slog.LevelDebug
	if !m.Handler.Enabled(ctx, r.Level) { // klog's errors come without being asked for
		return nil
	}
	return m.Handler.Handle(ctx, r)
}

func (m muted) WithAttrs(attrs []slog.Attr) slog.Handler { return muted{m.Handler.WithAttrs(attrs)} }
func (m muted) WithGroup(name string) slog.Handler       { return muted{m.Handler.WithGroup(name)} }
