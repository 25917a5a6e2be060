package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"
)

// echoOnce opens a connection, and has four bytes echoed.
func echoOnce(at *running) error {
	c, err := dial(at.echo)
	if err != nil {
		return err
	}
	defer c.Close()
	return echo(c, []byte("ping"))
}

func echo(c net.Conn, block []byte) error {
	if _, err := c.Write(block); err != nil {
		return err
	}
	_, err := io.ReadFull(c, block)
	return err
}

func connectionRate(ctx context.Context, at *running) (values, error) {
	r, err := drive(ctx, at, 32, 0, stateless(func() error { return echoOnce(at) }))
	if err != nil {
		return nil, err
	}
	return r.values(at), r.failures.err()
}

// firstByte is how long a connection and its first answer take, n times, one
// after the other. The forward is in use: the first one is not counted.
func firstByte(n int) func(context.Context, *running) (values, error) {
	return func(ctx context.Context, at *running) (values, error) {
		if err := echoOnce(at); err != nil {
			return nil, fmt.Errorf("the first one: %w", err)
		}
		r, err := drive(ctx, at, 1, n, stateless(func() error { return echoOnce(at) }))
		if err != nil {
			return nil, err
		}
		return r.values(at), r.failures.err()
	}
}

// pingPong is how long 64 bytes take there and back on one connection.
func pingPong(ctx context.Context, at *running) (values, error) {
	block := make([]byte, 64)
	r, err := drive(ctx, at, 1, 3000, func() (worker, error) {
		c, err := dial(at.echo)
		if err != nil {
			return worker{}, err
		}
		if err := echo(c, block); err != nil {
			c.Close()
			return worker{}, fmt.Errorf("the first one: %w", err)
		}
		c.SetDeadline(time.Now().Add(time.Minute))
		return worker{func() error { return echo(c, block) }, func() { c.Close() }}, nil
	})
	if err != nil {
		return nil, err
	}
	return r.values(at), r.failures.err()
}
