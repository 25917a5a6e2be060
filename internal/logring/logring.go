// Package logring keeps the last log records in memory, so that somebody who
// asks later, or who waits for the next ones, can have them.
package logring

import (
	"cmp"
	"context"
	"iter"
	"log/slog"
	"slices"
	"sync"

	"github.com/tunneld/tunneld/internal/status"
)

// A Ring keeps the last records of all the handlers made from it. The zero
// value keeps 1,000. Its methods may be called concurrently.
type Ring struct {
	// Size is how many are kept; zero means 1,000. It may not change after the
	// first record.
	Size int

	mu    sync.Mutex // guards the following
	ring  []status.LogRecord
	count uint64        // records ever: the next goes to count % len(ring)
	added chan struct{} // closed at the next record
}

// Handler returns a handler that keeps every record, debug ones too, and
// passes on to next those that it is enabled for.
func (r *Ring) Handler(next slog.Handler) slog.Handler {
	return &handler{ring: r, next: next}
}

func (r *Ring) add(rec status.LogRecord) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ring == nil {
		r.ring = make([]status.LogRecord, cmp.Or(r.Size, 1000))
	}
	r.ring[r.count%uint64(len(r.ring))] = rec
	r.count++
	if r.added != nil {
		close(r.added)
		r.added = nil
	}
}

// after returns the records since the given count that are still there, the
// count now, and a channel that is closed when there are more.
func (r *Ring) after(seen uint64) ([]status.LogRecord, uint64, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.added == nil {
		r.added = make(chan struct{})
	}
	var records []status.LogRecord
	for i := r.count - min(r.count-seen, uint64(len(r.ring))); i < r.count; i++ {
		records = append(records, r.ring[i%uint64(len(r.ring))])
	}
	return records, r.count, r.added
}

// Last returns at most n records that match, the oldest first; n of 0 means
// all.
func (r *Ring) Last(n int, match func(status.LogRecord) bool) []status.LogRecord {
	records, _, _ := r.after(0)
	return last(n, records, match)
}

func last(n int, records []status.LogRecord, match func(status.LogRecord) bool) []status.LogRecord {
	records = slices.DeleteFunc(records, func(rec status.LogRecord) bool { return !match(rec) })
	if n > 0 && len(records) > n {
		records = records[len(records)-n:]
	}
	return records
}

// Follow yields what Last returns, and then each new record that matches,
// until ctx is done. A reader that is slower than the ring loses records.
func (r *Ring) Follow(ctx context.Context, n int, match func(status.LogRecord) bool) iter.Seq[status.LogRecord] {
	return func(yield func(status.LogRecord) bool) {
		records, seen, more := r.after(0)
		for records = last(n, records, match); ; records = last(0, records, match) {
			for _, rec := range records {
				if !yield(rec) {
					return
				}
			}
			select {
			case <-ctx.Done():
				return
			case <-more:
			}
			records, seen, more = r.after(seen)
		}
	}
}

// A handler implements slog.Handler.
type handler struct {
	ring  *Ring
	next  slog.Handler
	group string
	attrs [][2]string
}

func (h *handler) Enabled(context.Context, slog.Level) bool { return true }

func (h *handler) Handle(ctx context.Context, rec slog.Record) error {
	out := status.LogRecord{Time: rec.Time, Level: rec.Level.String(), Msg: rec.Message}
	attrs := slices.Clone(h.attrs)
	rec.Attrs(func(a slog.Attr) bool {
		attrs = appendAttr(attrs, h.group, a)
		return true
	})
	for _, a := range attrs {
		if a[0] == "forward" {
			out.Forward = a[1]
		} else {
			out.Attrs = append(out.Attrs, a)
		}
	}
	h.ring.add(out)
	if !h.next.Enabled(ctx, rec.Level) {
		return nil
	}
	return h.next.Handle(ctx, rec)
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	with := *h
	with.attrs = slices.Clone(h.attrs)
	for _, a := range attrs {
		with.attrs = appendAttr(with.attrs, h.group, a)
	}
	with.next = h.next.WithAttrs(attrs)
	return &with
}

func (h *handler) WithGroup(name string) slog.Handler {
	with := *h
	with.group = h.group + name + "."
	with.next = h.next.WithGroup(name)
	return &with
}

func appendAttr(dst [][2]string, group string, a slog.Attr) [][2]string {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		for _, inner := range v.Group() {
			dst = appendAttr(dst, group+a.Key+".", inner)
		}
		return dst
	}
	return append(dst, [2]string{group + a.Key, v.String()})
}
