package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"
)

const (
	// during is for how long what happens again and again is counted.
	during = 3 * time.Second
	// patience bounds one exchange: who is not back by then has failed.
	patience = 5 * time.Second
)

// A worker does one thing again and again. What it keeps for that, close ends.
type worker struct {
	do    func() error
	close func()
}

// stateless is a worker that keeps nothing.
func stateless(do func() error) func() (worker, error) {
	return func() (worker, error) { return worker{do, func() {}}, nil }
}

// A result is what became of a load.
type result struct {
	took     time.Duration
	times    []time.Duration // of what succeeded, ascending
	cpu      time.Duration   // of the rival
	failures failed
}

// drive has workers do their thing, each until it did it n times, or, if n is
// 0, for as long as is counted. Ten failures in a row end a worker.
func drive(ctx context.Context, at *running, workers, n int, newWorker func() (worker, error)) (result, error) {
	all := make([]worker, 0, workers)
	defer func() {
		for _, w := range all {
			w.close()
		}
	}()
	for range workers {
		w, err := newWorker()
		if err != nil {
			return result{}, err
		}
		all = append(all, w)
	}
	var r result
	var mu sync.Mutex
	var busy sync.WaitGroup
	before := at.cpu()
	began := time.Now()
	for _, w := range all {
		busy.Go(func() {
			var times []time.Duration
			var failures failed
			inARow := 0
			last := time.Now()
			for i := 0; (n == 0 && last.Sub(began) < during || i < n) && inARow < 10 && ctx.Err() == nil; i++ {
				err := w.do()
				now := time.Now()
				if err != nil {
					failures.note(err)
					inARow++
				} else {
					times = append(times, now.Sub(last))
					inARow = 0
				}
				last = now
			}
			mu.Lock()
			defer mu.Unlock()
			r.times = append(r.times, times...)
			r.failures.add(failures)
		})
	}
	busy.Wait()
	r.took = time.Since(began)
	r.cpu = at.cpu() - before
	slices.Sort(r.times)
	if len(r.times) == 0 {
		return r, errors.Join(errors.New("nothing succeeded"), r.failures.err())
	}
	return r, nil
}

// values are the rate, in 1/s, and the times and the rival's CPU for each, in
// milliseconds.
func (r result) values(at *running) values {
	v := values{"": float64(len(r.times)) / r.took.Seconds(), p50: ms(r.quantile(0.5)), p99: ms(r.quantile(0.99))}
	if at.measurable() {
		v[cpu] = ms(r.cpu) / float64(len(r.times)+r.failures.n)
	}
	return v
}

func (r result) quantile(q float64) time.Duration {
	return r.times[min(int(q*float64(len(r.times))), len(r.times)-1)]
}

func ms(d time.Duration) float64 { return d.Seconds() * 1000 }

// dial connects, for one exchange or many: whoever wants more than patience
// sets another deadline.
func dial(addr string) (*net.TCPConn, error) {
	if addr == "" {
		return nil, errors.New("it does not serve that")
	}
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), c.SetDeadline(time.Now().Add(patience))
}

// failed counts failures, and remembers the first.
type failed struct {
	n     int
	first error
}

func (f *failed) note(err error) { f.add(failed{1, err}) }

func (f *failed) add(other failed) {
	if f.n == 0 {
		f.first = other.first
	}
	f.n += other.n
}

func (f *failed) err() error {
	if f.n == 0 {
		return nil
	}
	return fmt.Errorf("%d failed, the first with: %w", f.n, f.first)
}
