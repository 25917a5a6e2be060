package kube

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"

	"github.com/tunneld/tunneld/internal/forward"
	"github.com/tunneld/tunneld/internal/portforward"
)

// A fakeAPI answers requests in the time of synctest, and notes when they came.
type fakeAPI struct {
	answer func(*http.Request) (*http.Response, error)

	mu   sync.Mutex // guards the following
	came []time.Time
}

func (a *fakeAPI) RoundTrip(r *http.Request) (*http.Response, error) {
	a.mu.Lock()
	a.came = append(a.came, time.Now())
	a.mu.Unlock()
	return a.answer(r)
}

// forget returns when requests came, since it did so last.
func (a *fakeAPI) forget() []time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	came := a.came
	a.came = nil
	return came
}

func refuse(*http.Request) (*http.Response, error) {
	return nil, &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
}

func say(r *http.Request, body io.Reader) (*http.Response, error) {
	return &http.Response{
		StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(body),
	}, nil
}

// An open body is that of a watch in which nothing happens.
type open struct{ ctx context.Context }

func (o open) Read([]byte) (int, error) {
	<-o.ctx.Done()
	return 0, o.ctx.Err()
}

func isWatch(r *http.Request) bool { return r.URL.Query().Get("watch") != "" }

// list answers all but watches with an empty list, or a version.
func list(r *http.Request) (*http.Response, error) {
	if strings.HasSuffix(r.URL.Path, "/version") {
		return say(r, strings.NewReader(`{}`))
	}
	return say(r, strings.NewReader(`{"kind": "ServiceList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": []}`))
}

// newFake returns a cluster of one fakeAPI, with a workload that is configured.
func newFake(t *testing.T, a *fakeAPI) (*cluster, forward.Workload) {
	t.Helper()
	c := &cluster{
		id: ID{Kubeconfig: t.TempDir() + "/none"}, log: slog.New(slog.DiscardHandler), changed: func() {}, outdated: func(*cluster) {},
		timing: Timing{}.withDefaults(), poked: make(chan struct{}, 1), hurried: make(chan struct{}, 1), shaken: make(chan struct{}, 1),
		wake: make(chan struct{}), uses: make(map[forward.Workload]*use), namespaces: make(map[string]*namespace),
		idle: make(map[portforward.Pod]int), asked: make(map[portforward.Pod]time.Time),
		pool: &portforward.Pool{},
	}
	c.link = newLink(c.id, access{rest: &rest.Config{}}, c.notify)
	c.link.waiting = c.poke
	var err error
	if c.client, err = newClient(&rest.Config{Host: "http://api", Transport: a}, "test", c.timing, c.link); err != nil {
		t.Fatal(err)
	}
	w := forward.Workload{Namespace: "ns", Kind: forward.Service, Name: "svc"}
	c.uses[w] = newUse()
	return c, w
}

// checkGaps looks at the times between requests.
func checkGaps(t *testing.T, came []time.Time, least, most time.Duration) {
	t.Helper()
	if len(came) < 2 {
		t.Errorf("%d requests; want more", len(came))
	}
	gaps := make(map[time.Duration]bool)
	for i := range came[:max(len(came)-1, 0)] {
		gap := came[i+1].Sub(came[i])
		if gap < least || gap > most {
			t.Errorf("%v between two requests; want %v to %v", gap, least, most)
		}
		gaps[gap] = true
	}
	if len(gaps) == 1 {
		t.Error("all gaps are the same: there is no jitter")
	}
}

// An API server that is away is asked less and less, but not too seldom, and
// anew when something has happened.
func TestChecksBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &fakeAPI{answer: refuse}
		c, w := newFake(t, a)
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { c.run(ctx) })
		defer running.Wait()
		defer cancel()

		time.Sleep(10 * time.Minute)
		a.forget()
		time.Sleep(10 * time.Minute)
		checkGaps(t, a.forget(), 11*time.Second, 15*time.Second)

		c.touch(w)
		for range 60 {
			time.Sleep(10 * time.Second)
			c.touch(w)
		}
		came := a.forget()
		checkGaps(t, came[len(came)/2:], 1500*time.Millisecond, 2*time.Second)

		time.Sleep(time.Hour) // nobody uses it
		a.forget()
		c.probeNow()
		time.Sleep(time.Second)
		if came := a.forget(); len(came) < 2 || len(came) > 4 {
			t.Errorf("%d requests within a second; want that the waits began anew", len(came))
		}
	})
}

// A link that answers checks and nothing else is no reason to begin anew.
func TestChecksBackOffFromAHalfBrokenLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &fakeAPI{answer: func(r *http.Request) (*http.Response, error) {
			if strings.HasSuffix(r.URL.Path, "/version") {
				return list(r)
			}
			return refuse(r)
		}}
		c, w := newFake(t, a)
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { c.run(ctx) })
		defer running.Wait()
		defer cancel()
		for range 60 {
			c.touch(w)
			time.Sleep(10 * time.Second)
		}
		// Each time a check, a list of each kind, and perhaps a second one.
		if n, most := len(a.forget()), 5*600; n > most {
			t.Errorf("%d requests in ten minutes; want %d at most", n, most)
		}
	})
}

func TestMirrorsBackOff(t *testing.T) {
	const limit = 2 * time.Second
	tests := []struct {
		name        string
		answer      func(*http.Request) (*http.Response, error)
		most, least int // requests in ten minutes; a try has two
	}{
		{"nothing is answered", refuse, 1200, 600},
		{"a watch is refused", func(r *http.Request) (*http.Response, error) {
			if isWatch(r) {
				return nil, errors.New("reset")
			}
			return list(r)
		}, 1200, 600},
		{"a watch ends at once", func(r *http.Request) (*http.Response, error) {
			if isWatch(r) {
				return say(r, strings.NewReader(""))
			}
			return list(r)
		}, 1200, 600},
		{"all is well", func(r *http.Request) (*http.Response, error) {
			if isWatch(r) {
				return say(r, open{r.Context()})
			}
			return list(r)
		}, 20, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := &fakeAPI{answer: tt.answer}
				c, _ := newFake(t, a)
				m := newMirror(c.timing, "ns", "services", c.client.core, &corev1.Service{}, nil, func() time.Duration { return limit }, func() {})
				ctx, cancel := context.WithCancel(t.Context())
				var running sync.WaitGroup
				running.Go(func() { m.run(ctx) })
				defer running.Wait()
				defer cancel()
				time.Sleep(time.Minute)
				a.forget()
				time.Sleep(10 * time.Minute)
				if n := len(a.forget()); n < tt.least || n > tt.most {
					t.Errorf("%d requests in ten minutes; want %d to %d", n, tt.least, tt.most)
				}
				began := time.Now()
				cancel()
				running.Wait()
				if d := time.Since(began); d > 0 {
					t.Errorf("it ends %v after it should", d)
				}
			})
		})
	}
}

// A watch that nobody ends has a deadline all the same. The one that follows it
// is tried as soon as after a first failure.
func TestWatchHasADeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		watches := 0
		a := &fakeAPI{answer: func(r *http.Request) (*http.Response, error) {
			if isWatch(r) {
				watches++
				return say(r, open{r.Context()})
			}
			return list(r)
		}}
		c, _ := newFake(t, a)
		m := newMirror(c.timing, "ns", "services", c.client.core, &corev1.Service{}, nil, c.mirrorLimit, func() {})
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { m.run(ctx) })
		time.Sleep(time.Hour)
		cancel()
		running.Wait()
		if watches < 6 || watches > 30 { // 5 to 10 minutes each
			t.Errorf("%d watches in an hour", watches)
		}
	})
}
