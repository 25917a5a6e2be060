package config

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestBurst(t *testing.T) {
	const ms = time.Millisecond
	every := func(step, until time.Duration) (at []time.Duration) {
		for d := time.Duration(0); d <= until; d += step {
			at = append(at, d)
		}
		return at
	}
	tests := []struct {
		name   string
		events []time.Duration
		want   []time.Duration // when bursts are over
	}{
		{"none", nil, nil},
		{"one", []time.Duration{0}, []time.Duration{100 * ms}},
		{"a few", []time.Duration{0, 50 * ms, 149 * ms}, []time.Duration{249 * ms}},
		{"two bursts", []time.Duration{0, 101 * ms}, []time.Duration{100 * ms, 201 * ms}},
		{"no end of events", every(60*ms, 2500*ms), []time.Duration{1000 * ms, 2020 * ms, 2560 * ms}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBurst(100*ms, time.Second)
				defer b.stop()
				begin := time.Now()
				var got []time.Duration
				events := make(chan struct{})
				go func() {
					for _, at := range tt.events {
						<-time.After(at - time.Since(begin))
						events <- struct{}{}
					}
				}()
				end := time.After(time.Minute)
				for {
					select {
					case <-events:
						b.event()
						continue
					case <-b.over():
						got = append(got, time.Since(begin))
						b.end()
						continue
					case <-end:
					}
					break
				}
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("bursts (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestBurstLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBurst(quiet, limit)
		defer b.stop()
		begin := time.Now()
		b.later(retry)
		<-b.over()
		if got := time.Since(begin); got != retry {
			t.Errorf("over after %v; want %v", got, retry)
		}
		b.later(retry)
		b.event()
		<-b.over()
		if got := time.Since(begin); got != retry+quiet {
			t.Errorf("with an event over after %v; want %v", got, retry+quiet)
		}
	})
}
