package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"
)

// settle is how long programs have to become quiet.
const settle = 3 * time.Second

// unused measures what forwards cost that nobody uses. Watches share one
// connection to the API server; upgraded ones would each be another.
func unused(ctx context.Context, at *running) (values, error) {
	if err := rest(ctx, settle); err != nil {
		return nil, err
	}
	const quiet = 10 * time.Second
	before := at.cpu()
	began := time.Now()
	if err := rest(ctx, quiet); err != nil {
		return nil, err
	}
	v := values{cpu: ms(at.cpu()-before) / time.Since(began).Seconds()}
	memory, err := at.memory()
	if err != nil {
		return nil, err
	}
	v["memory"] = float64(memory) / 1e6
	n, err := at.upstream()
	if err != nil {
		return v, err
	}
	v[upstream] = float64(n)
	return v, nil
}

// idleConnections measures what a connection costs that is open and was used
// once.
func idleConnections(ctx context.Context, at *running) (values, error) {
	const n = 200
	if err := errors.Join(echoOnce(at), rest(ctx, settle)); err != nil {
		return nil, err
	}
	before, err := at.memory()
	if err != nil {
		return nil, err
	}
	v := values{"memory before": float64(before) / 1e6}
	conns := make([]net.Conn, 0, n)
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	for i := range n {
		c, err := dial(at.echo)
		if err != nil {
			return v, err
		}
		conns = append(conns, c)
		if err := echo(c, []byte("ping")); err != nil {
			return v, fmt.Errorf("connection %d: %w", i+1, err)
		}
	}
	if err := rest(ctx, settle); err != nil {
		return v, err
	}
	after, err := at.memory()
	if err != nil {
		return v, err
	}
	for i, c := range conns { // those that ended meanwhile would cost nothing
		c.SetDeadline(time.Now().Add(patience))
		if err := echo(c, []byte("ping")); err != nil {
			return v, fmt.Errorf("connection %d, afterwards: %w", i+1, err)
		}
	}
	v["memory each"] = float64(after-before) / n / 1024
	return v, nil
}

func rest(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
