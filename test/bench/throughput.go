package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// moved is how much a throughput measurement transfers, in bytes.
const moved = 512 << 20

// throughput is timed to the last byte, not to the end of the stream, which
// container runtimes delay by a second.
func throughput(conns int, move func(context.Context, *running, int64) error) func(context.Context, *running) (values, error) {
	return func(ctx context.Context, at *running) (values, error) {
		if err := move(ctx, at, 1<<20); err != nil { // what the first one costs is measured elsewhere
			return nil, err
		}
		errs := make([]error, conns)
		var all sync.WaitGroup
		before := at.cpu()
		began := time.Now()
		for i := range errs {
			all.Go(func() { errs[i] = move(ctx, at, moved/int64(conns)) })
		}
		all.Wait()
		took, spent := time.Since(began), at.cpu()-before
		if err := errors.Join(errs...); err != nil {
			return nil, err
		}
		v := values{"": moved / float64(1<<20) / took.Seconds()}
		if at.measurable() {
			v[cpu] = spent.Seconds() / (moved / 1e9)
		}
		return v, nil
	}
}

// download has the sample application send n bytes.
func download(ctx context.Context, at *running, n int64) error {
	c, err := dial(at.source)
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := fmt.Fprintf(c, "%d\n", n); err != nil {
		return err
	}
	for block := make([]byte, 256<<10); n > 0; {
		m, err := c.Read(block[:min(n, int64(len(block)))])
		if n -= int64(m); err != nil && n > 0 {
			return err
		}
	}
	return nil
}

// upload has the sample application take n bytes. It goes to the HTTP port
// without the gateway, because the answer to a request with a length is proof
// that the app has got all of it. The raw sink (9002) answers only at the end
// of the stream, and a port-forward does not carry that on its own: the runtime
// closes both sides, and the answer is lost.
func upload(ctx context.Context, at *running, n int64) error {
	c, err := dial(at.raw)
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := fmt.Fprintf(c, "POST /upload HTTP/1.1\r\nHost: task-api\r\nContent-Length: %d\r\n\r\n", n); err != nil {
		return err
	}
	block := make([]byte, 64<<10)
	for left := n; left > 0; {
		m, err := c.Write(block[:min(left, int64(len(block)))])
		if err != nil {
			return err
		}
		left -= int64(m)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && string(body) != fmt.Sprint(n) {
		err = fmt.Errorf("of %d bytes, the app got %q", n, body)
	}
	return err
}
