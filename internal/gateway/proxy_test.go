package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/forward"
)

// A leaving is a Backends whose client leaves while a pod is picked.
type leaving struct {
	forward.Backends
	leave context.CancelFunc
}

func (l leaving) Pick(_ context.Context, t forward.Target) (forward.Endpoint, error) {
	l.leave()
	return forward.Endpoint{Target: t, Pod: "pod", UID: "1"}, nil
}

// What was made for a request that never got as far as a connection goes with it.
func TestUpstreamOfARequestThatIsWithdrawn(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	p := newProxy(leaving{leave: cancel}, slog.New(slog.DiscardHandler))
	x := &exchange{row: &Row{Forward: "app", Backends: []Backend{{}}, Hold: time.Minute}}
	r, err := http.NewRequestWithContext(context.WithValue(ctx, exchangeKey{}, x), http.MethodGet, "http://pod/", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.roundTrip(r); !errors.Is(err, context.Canceled) {
		t.Errorf("the request ends with %v", err)
	}
	if n := len(p.upstreams); n != 0 {
		t.Errorf("%d upstreams are left", n)
	}
}
