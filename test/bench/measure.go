package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

const (
	// pulled is how much a throughput measurement transfers, in bytes.
	pulled = 256 << 20
	// during is for how long what happens again and again is counted.
	during = 3 * time.Second
	// patience bounds one exchange: who is not back by then has failed.
	patience = 5 * time.Second
)

// A metric is one line of the comparison.
type metric struct {
	name, unit string
	less       bool // is better
	// measure returns a value even if it returns an error, which says what went
	// wrong meanwhile.
	measure func(ctx context.Context, at addresses) (float64, error)
}

// Throughput is timed to the last byte, not to the end of the stream, which
// container runtimes delay by a second.
var metrics = []metric{
	{"throughput, 1 connection", "MiB/s", false, throughput(1)},
	{"throughput, 8 connections", "MiB/s", false, throughput(8)},
	{"new connection and echo, p50", "ms", true, func(ctx context.Context, at addresses) (float64, error) {
		return medianTime(ctx, 200, func(ctx context.Context) error { return echoOnce(ctx, at.echo) })
	}},
	{"new connections, 32 at a time", "/s", false, func(ctx context.Context, at addresses) (float64, error) {
		return perSecond(ctx, 32, func(ctx context.Context) error { return echoOnce(ctx, at.echo) })
	}},
	{"round trip of 64 bytes, p50", "ms", true, roundTrip},
	{"HTTP keep-alive, 16 at a time", "/s", false, httpRate(true)},
	{"HTTP, a new connection each", "/s", false, httpRate(false)},
	{"echoes beside a stalled client, another port", "of 5", false, besideStalled(func(at addresses) func(context.Context) error {
		return func(ctx context.Context) error { return echoOnce(ctx, at.echo) }
	})},
	{"transfers beside a stalled client, same port", "of 5", false, besideStalled(func(at addresses) func(context.Context) error {
		return func(ctx context.Context) error { return pull(ctx, at.source, 1000) }
	})},
}

// dial connects; the connection is closed when ctx is done.
func dial(ctx context.Context, addr string) (net.Conn, func(), error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { c.Close() })
	return c, func() { stop(); c.Close() }, nil
}

// pull has the sample application send n bytes.
func pull(ctx context.Context, addr string, n int64) error {
	c, done, err := dial(ctx, addr)
	if err != nil {
		return err
	}
	defer done()
	if _, err := fmt.Fprintf(c, "%d\n", n); err != nil {
		return err
	}
	_, err = io.CopyN(io.Discard, c, n)
	return err
}

// echoOnce opens a connection, and has four bytes echoed.
func echoOnce(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c, done, err := dial(ctx, addr)
	if err != nil {
		return err
	}
	defer done()
	if _, err := io.WriteString(c, "ping"); err != nil {
		return err
	}
	_, err = io.ReadFull(c, make([]byte, 4))
	return err
}

func throughput(conns int) func(context.Context, addresses) (float64, error) {
	return func(ctx context.Context, at addresses) (float64, error) {
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		errs := make([]error, conns)
		var all sync.WaitGroup
		began := time.Now()
		for i := range errs {
			all.Go(func() { errs[i] = pull(ctx, at.source, pulled/int64(conns)) })
		}
		all.Wait()
		took := time.Since(began)
		if err := errors.Join(errs...); err != nil {
			return 0, err
		}
		return pulled / float64(1<<20) / took.Seconds(), nil
	}
}

// medianTime does something n times, one after the other, and returns the
// median of how long it took, in milliseconds. Ten failures are enough.
func medianTime(ctx context.Context, n int, do func(context.Context) error) (float64, error) {
	var took []float64
	var failures failed
	for range n {
		began := time.Now()
		if err := do(ctx); err != nil {
			if failures.note(err); failures.n == 10 {
				break
			}
			continue
		}
		took = append(took, time.Since(began).Seconds()*1000)
	}
	if len(took) == 0 {
		return 0, failures.err()
	}
	return slices.Sorted(slices.Values(took))[len(took)/2], failures.err()
}

// perSecond does something again and again, workers at a time, and returns how
// often it succeeds in a second.
func perSecond(ctx context.Context, workers int, do func(context.Context) error) (float64, error) {
	var mu sync.Mutex
	done := 0
	var failures failed
	var all sync.WaitGroup
	began := time.Now()
	for range workers {
		all.Go(func() {
			for time.Since(began) < during && ctx.Err() == nil {
				err := do(ctx)
				mu.Lock()
				if err != nil {
					failures.note(err)
				} else {
					done++
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return float64(done) / time.Since(began).Seconds(), failures.err()
}

// roundTrip is the time that 64 bytes take there and back on one connection.
func roundTrip(ctx context.Context, at addresses) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	c, done, err := dial(ctx, at.echo)
	if err != nil {
		return 0, err
	}
	defer done()
	block := make([]byte, 64)
	return medianTime(ctx, 2000, func(context.Context) error {
		if _, err := c.Write(block); err != nil {
			return err
		}
		_, err := io.ReadFull(c, block)
		return err
	})
}

func httpRate(keepAlive bool) func(context.Context, addresses) (float64, error) {
	return func(ctx context.Context, at addresses) (float64, error) {
		transport := &http.Transport{DisableKeepAlives: !keepAlive, MaxIdleConnsPerHost: 16}
		defer transport.CloseIdleConnections()
		client := &http.Client{Transport: transport, Timeout: patience}
		return perSecond(ctx, 16, func(ctx context.Context) error {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+at.http+"/health", nil)
			if err != nil {
				return err
			}
			resp, err := client.Do(req)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			_, err = io.Copy(io.Discard, resp.Body)
			if err == nil && resp.StatusCode != http.StatusOK {
				err = errors.New(resp.Status)
			}
			return err
		})
	}
}

// besideStalled counts what works, of five tries, while another client has
// asked for more than it reads.
func besideStalled(try func(addresses) func(context.Context) error) func(context.Context, addresses) (float64, error) {
	return func(ctx context.Context, at addresses) (float64, error) {
		c, done, err := dial(ctx, at.source)
		if err != nil {
			return 0, err
		}
		defer done()
		if _, err := fmt.Fprintf(c, "%d\n", pulled); err != nil {
			return 0, err
		}
		select { // until every buffer on the way is full
		case <-time.After(2 * time.Second):
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		worked := 0
		for range 5 {
			limited, cancel := context.WithTimeout(ctx, patience)
			if try(at)(limited) == nil {
				worked++
			}
			cancel()
		}
		return float64(worked), nil
	}
}

// failed counts failures, and remembers the first.
type failed struct {
	n     int
	first error
}

func (f *failed) note(err error) {
	if f.n == 0 {
		f.first = err
	}
	f.n++
}

func (f *failed) err() error {
	if f.n == 0 {
		return nil
	}
	return fmt.Errorf("%d failed, the first with: %w", f.n, f.first)
}
