package daemon

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tunneld/tunneld/internal/status"
)

func TestAwaitReady(t *testing.T) {
	gone := errors.New("no such forward")
	tests := []struct {
		name   string
		state  func(since time.Duration, probes int) (status.State, error)
		probe  bool // that a pod can be reached
		want   status.State
		err    error
		took   time.Duration
		probes int // at most
	}{
		{"a probe makes it ready", func(_ time.Duration, probes int) (status.State, error) {
			if probes == 0 {
				return status.Idle, nil
			}
			return status.Ready, nil
		}, true, status.Ready, nil, 0, 1},
		{"ready is not believed without a probe", func(time.Duration, int) (status.State, error) { return status.Ready, nil },
			true, status.Ready, nil, 0, 1},
		{"degraded is not waited out", func(time.Duration, int) (status.State, error) { return status.Degraded, nil },
			false, status.Degraded, nil, 0, 1},
		{"failed is not probed", func(time.Duration, int) (status.State, error) { return status.Failed, nil },
			true, status.Failed, nil, 0, 0},
		{"a pod can be reached, but a port is missing", func(time.Duration, int) (status.State, error) { return status.NotFound, nil },
			true, status.NotFound, nil, 10 * time.Second, 21},
		{"no pod", func(time.Duration, int) (status.State, error) { return status.NoEndpoints, nil },
			false, status.NoEndpoints, nil, 10 * time.Second, 21},
		{"pods come", func(since time.Duration, _ int) (status.State, error) {
			if since < 3*time.Second {
				return status.NoEndpoints, nil
			}
			return status.Ready, nil
		}, true, status.Ready, nil, 3 * time.Second, 8},
		{"it is removed", func(since time.Duration, _ int) (status.State, error) {
			if since < time.Second {
				return status.Offline, nil
			}
			return "", gone
		}, false, "", gone, time.Second, 3},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				began, probes := time.Now(), 0
				look := func() (status.Forward, <-chan struct{}, error) {
					state, err := tt.state(time.Since(began), probes)
					// Something changes all the time, but not this.
					changed := make(chan struct{})
					time.AfterFunc(50*time.Millisecond, func() { close(changed) })
					return status.Forward{Condition: status.Condition{State: state}}, changed, err
				}
				f, err := awaitReady(ctx, look, func() bool { probes++; return tt.probe })
				if f.State != tt.want || !errors.Is(err, tt.err) {
					t.Errorf("%s, %v; want %s, %v", f.State, err, tt.want, tt.err)
				}
				if took := time.Since(began); took.Round(time.Second) != tt.took {
					t.Errorf("it took %v; want %v", took, tt.took)
				}
				if probes > tt.probes {
					t.Errorf("%d probes; want at most %d", probes, tt.probes)
				}
			})
		})
	}
}
