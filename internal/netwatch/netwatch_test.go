package netwatch

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A machine is one that is made up. It is used in one bubble of synctest.
type machine struct {
	began time.Time
	deaf  error // why the system does not tell of changes

	mu      sync.Mutex    // guards the following
	asleep  time.Duration // as a kernel counts it
	set     time.Duration // by which the time of day was set
	network string
	broken  error // why the network cannot be looked at

	event func()
	told  []string
}

func (m *machine) run(t *testing.T, f func()) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m.began = time.Now()
		w := &Watcher{
			Changed: func(what string) { m.told = append(m.told, time.Since(m.began).String()+" "+what) },
			system: system{
				clocks: func() clocks {
					m.mu.Lock()
					defer m.mu.Unlock()
					return clocks{time.Now(), time.Now().Round(0).Add(m.set), m.asleep}
				},
				network: func() (string, error) {
					m.mu.Lock()
					defer m.mu.Unlock()
					return m.network, m.broken
				},
				listen: func(ctx context.Context, event func()) error {
					if m.event = event; m.deaf != nil {
						return m.deaf
					}
					<-ctx.Done()
					return nil
				},
			},
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- w.Run(ctx) }()
		synctest.Wait()
		f()
		synctest.Wait()
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func (m *machine) becomes(network string) {
	m.mu.Lock()
	m.network = network
	m.mu.Unlock()
	m.event()
}

func (m *machine) sleeps(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asleep += d
}

func (m *machine) breaks(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.broken = err
}

func TestRun(t *testing.T) {
	tests := []struct {
		name   string
		on     *machine
		happen func(*machine)
		want   []string
	}{
		{"nothing", &machine{}, func(*machine) { time.Sleep(time.Hour) }, nil},
		{"the kernel counts a sleep", &machine{}, func(m *machine) {
			time.Sleep(3 * time.Second)
			m.sleeps(time.Hour)
			time.Sleep(time.Minute)
		}, []string{"4s wake"}},
		{"only the time of day tells of a sleep", &machine{}, func(m *machine) {
			m.mu.Lock()
			m.set += time.Hour
			m.mu.Unlock()
			time.Sleep(time.Minute)
		}, []string{"2s wake"}},
		{"two sleeps", &machine{}, func(m *machine) {
			m.sleeps(time.Hour)
			time.Sleep(3 * time.Second)
			m.sleeps(leap)
			time.Sleep(time.Minute)
		}, []string{"2s wake", "4s wake"}},
		{"a nap", &machine{}, func(m *machine) {
			m.sleeps(leap - 1)
			time.Sleep(time.Minute)
		}, nil},
		{"the network is another", &machine{network: "a"}, func(m *machine) {
			time.Sleep(time.Minute)
			m.becomes("b")
			time.Sleep(time.Minute)
		}, []string{"1m0.25s network"}},
		{"an event that changes nothing", &machine{network: "a"}, func(m *machine) {
			m.becomes("a")
			time.Sleep(time.Minute)
		}, nil},
		{"a burst that ends as it began", &machine{network: "a"}, func(m *machine) {
			m.becomes("")
			m.becomes("b")
			m.becomes("a")
			time.Sleep(time.Minute)
		}, nil},
		{"a storm", &machine{network: "a"}, func(m *machine) {
			time.Sleep(time.Minute)
			for i := range 100 {
				m.becomes(strings.Repeat("b", i))
				time.Sleep(100 * time.Millisecond)
			}
			time.Sleep(time.Minute)
		}, []string{"1m0.25s network", "1m3.25s network", "1m6.25s network", "1m9.25s network", "1m12.25s network"}},
		{"a change soon after a sleep", &machine{network: "a"}, func(m *machine) {
			m.sleeps(time.Hour)
			time.Sleep(3 * time.Second)
			m.becomes("b")
			time.Sleep(time.Minute)
		}, []string{"2s wake", "5s network"}},
		{"a sleep soon after a change", &machine{network: "a"}, func(m *machine) {
			time.Sleep(5 * time.Second)
			m.becomes("b")
			time.Sleep(500 * time.Millisecond)
			m.becomes("c")
			m.sleeps(time.Hour)
			time.Sleep(time.Minute)
		}, []string{"5.25s network", "6s wake"}},
		{"a system that tells nothing", &machine{network: "a", deaf: errors.New("deaf")}, func(m *machine) {
			m.mu.Lock()
			m.network = "b"
			m.mu.Unlock()
			time.Sleep(time.Minute)
		}, []string{"5.25s network"}},
		{"a network that cannot be looked at", &machine{broken: errors.New("broken")}, func(m *machine) {
			m.sleeps(time.Hour)
			time.Sleep(time.Minute)
		}, []string{"2s wake"}},
		{"and then can", &machine{network: "a"}, func(m *machine) {
			time.Sleep(time.Minute)
			m.breaks(errors.New("broken"))
			m.becomes("")
			time.Sleep(time.Minute)
			m.breaks(nil)
			m.becomes("a")
			time.Sleep(time.Minute)
		}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := tt.on
			m.run(t, func() { tt.happen(m) })
			if diff := cmp.Diff(tt.want, m.told); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestMissed(t *testing.T) {
	began := time.Now()
	tests := []struct {
		name        string
		after       time.Duration // on the monotonic clock
		set, asleep time.Duration
		want        time.Duration
	}{
		{"a tick", tick, 0, 0, 0},
		{"a tick on a busy machine", tick + standstill - 1, 0, 0, 0},
		{"the process stood still", tick + standstill, 0, 0, standstill},
		{"asleep", tick, time.Hour, time.Hour, time.Hour},
		{"asleep, where only the time of day tells", tick, time.Hour, 0, time.Hour},
		{"the clock was put forward a little", tick, leap - 1, 0, 0},
		{"the clock was put back", tick, -time.Hour, 0, 0},
		{"asleep, and the clock was put back", tick, -time.Hour, time.Hour, time.Hour},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := clocks{now: began, day: began.Round(0)}
			after := clocks{now: began.Add(tt.after), day: began.Round(0).Add(tt.after + tt.set), asleep: tt.asleep}
			got, missed := after.missed(before)
			if got != tt.want || missed != (tt.want != 0) {
				t.Errorf("missed %v, %v; want %v", got, missed, tt.want)
			}
		})
	}
}

// The clocks of this machine agree with themselves.
func TestReadClocks(t *testing.T) {
	before := readClocks()
	if d, missed := readClocks().missed(before); missed {
		t.Errorf("missed %v between two readings", d)
	}
}
