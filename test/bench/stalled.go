package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

func anEcho(_ context.Context, at *running) error { return echoOnce(at) }

func aDownload(ctx context.Context, at *running) error { return download(ctx, at, 1000) }

// besideStalled counts what works, of five tries at once, while another client
// has asked for more than it reads.
func besideStalled(try func(context.Context, *running) error) func(context.Context, *running) (values, error) {
	return func(ctx context.Context, at *running) (values, error) {
		c, err := dial(at.source)
		if err != nil {
			return nil, err
		}
		defer c.Close()
		if _, err := fmt.Fprintf(c, "%d\n", moved); err != nil {
			return nil, err
		}
		if err := rest(ctx, 2*time.Second); err != nil { // until every buffer on the way is full
			return nil, err
		}
		var worked atomic.Int64
		var tries sync.WaitGroup
		for range 5 {
			tries.Go(func() {
				limited, cancel := context.WithTimeout(ctx, patience)
				defer cancel()
				if try(limited, at) == nil {
					worked.Add(1)
				}
			})
		}
		tries.Wait()
		return values{"": float64(worked.Load())}, nil
	}
}
