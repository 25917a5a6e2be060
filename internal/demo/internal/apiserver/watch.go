package apiserver

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apimachinery/pkg/watch"
)

// defaultWatch is how long a watch lasts whose client did not say.
const defaultWatch = 30 * time.Minute

// A watcher is one watch request being served.
type watcher struct {
	kind      *kind
	namespace string
	match     func(Object) bool
	encoder   *json.Encoder
	flush     func() error
	cut       <-chan struct{} // closed by CutWatches
	sent      uint64          // version up to which the client knows everything
}

// validateWatch refuses what the API server refuses; see
// k8s.io/apimachinery/pkg/apis/meta/internalversion/validation.
func (s *Server) validateWatch(o *metav1.ListOptions) error {
	if o.SendInitialEvents == nil {
		return nil
	}
	var errs field.ErrorList
	if o.ResourceVersionMatch != metav1.ResourceVersionMatchNotOlderThan {
		errs = append(errs, field.Forbidden(field.NewPath("resourceVersionMatch"),
			"sendInitialEvents requires setting resourceVersionMatch to "+string(metav1.ResourceVersionMatchNotOlderThan)))
	}
	if s.options.OldServer {
		errs = append(errs, field.Forbidden(field.NewPath("sendInitialEvents"),
			"sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled"))
	}
	if len(errs) == 0 {
		return nil
	}
	return apierrors.NewInvalid(schema.GroupKind{Group: metav1.GroupName, Kind: "ListOptions"}, "", errs)
}

// serveWatch streams changes until the client's timeout, CutWatches, or the
// end of the connection.
func (s *Server) serveWatch(w http.ResponseWriter, r *http.Request, k *kind, q *Request, o *metav1.ListOptions, match func(Object) bool) error {
	if err := s.validateWatch(o); err != nil {
		return err
	}
	var version uint64
	if o.ResourceVersion != "" {
		v, err := strconv.ParseUint(o.ResourceVersion, 10, 64)
		if err != nil {
			return apierrors.NewBadRequest(fmt.Sprintf("invalid resource version %q: %v", o.ResourceVersion, err))
		}
		version = v
	}
	lasts := defaultWatch
	if o.TimeoutSeconds != nil && *o.TimeoutSeconds > 0 {
		lasts = time.Duration(*o.TimeoutSeconds) * time.Second
	}
	ctx, cancel := context.WithTimeout(r.Context(), lasts)
	defer cancel()

	cut := s.cuts.Wait() // before the client can know that it watches
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	watcher := &watcher{
		kind: k, namespace: q.Namespace, match: match, sent: version, cut: cut,
		encoder: json.NewEncoder(w), flush: http.NewResponseController(w).Flush,
	}
	if q.Name != "" && k.resource == "namespaces" {
		watcher.namespace = ""
	}
	wantsList := o.SendInitialEvents != nil && *o.SendInitialEvents
	if wantsList || (o.SendInitialEvents == nil && version == 0) {
		if err := watcher.sendList(s.Store); err != nil {
			return nil // the client is gone
		}
	} else if version == 0 {
		_, watcher.sent = s.Store.List(k.resource, "", func(Object) bool { return false })
	}
	if wantsList && o.AllowWatchBookmarks {
		if watcher.sendBookmark(true) != nil {
			return nil
		}
	}
	if watcher.flush() != nil {
		return nil
	}
	s.follow(ctx, watcher, o.AllowWatchBookmarks)
	return nil
}

// follow sends events as they come.
func (s *Server) follow(ctx context.Context, w *watcher, bookmarks bool) {
	tick := time.NewTicker(s.options.Bookmarks)
	defer tick.Stop()
	for {
		events, now, changed, ok := s.Store.since(w.kind.resource, w.sent)
		if !ok {
			expired := apierrors.NewResourceExpired(fmt.Sprintf("too old resource version: %d (%d)", w.sent, now))
			w.send(watch.Error, statusOf(expired))
			w.flush()
			return
		}
		for _, e := range events {
			if w.sendEvent(e) != nil {
				return
			}
		}
		w.sent = max(w.sent, now)
		if len(events) > 0 && w.flush() != nil {
			return
		}
		select {
		case <-changed:
		case <-tick.C:
			if bookmarks && (w.sendBookmark(false) != nil || w.flush() != nil) {
				return
			}
		case <-w.cut:
			panic(http.ErrAbortHandler)
		case <-ctx.Done():
			if bookmarks {
				w.sendBookmark(false)
			}
			return
		}
	}
}

// sendList sends what exists as additions.
func (w *watcher) sendList(s *Store) error {
	objects, version := s.List(w.kind.resource, w.namespace, w.match)
	for _, o := range objects {
		if err := w.send(watch.Added, o); err != nil {
			return err
		}
	}
	w.sent = version
	return nil
}

// sendEvent translates a change into what it means to this client's selection.
func (w *watcher) sendEvent(e event) error {
	if w.namespace != "" && e.after.GetNamespace() != w.namespace {
		return nil
	}
	before := e.before != nil && w.match(e.before)
	after := !e.gone && w.match(e.after)
	switch {
	case before && after:
		return w.send(watch.Modified, e.after)
	case after:
		return w.send(watch.Added, e.after)
	case before && e.gone:
		return w.send(watch.Deleted, e.after)
	case before:
		// It left the selection: the client gets what it knew, with the new
		// version.
		last := e.before.DeepCopyObject().(Object)
		last.SetResourceVersion(e.after.GetResourceVersion())
		return w.send(watch.Deleted, last)
	}
	return nil
}

func (w *watcher) sendBookmark(initialEventsEnd bool) error {
	o := w.kind.blank()
	w.kind.settle(o)
	o.SetNamespace("")
	o.SetResourceVersion(strconv.FormatUint(w.sent, 10))
	if initialEventsEnd {
		o.SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
	}
	return w.send(watch.Bookmark, o)
}

func (w *watcher) send(t watch.EventType, o any) error {
	return w.encoder.Encode(struct {
		Type   watch.EventType `json:"type"`
		Object any             `json:"object"`
	}{t, o})
}
