package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// A door is where a rival serves HTTP.
type door int

const (
	gatewayPlain door = iota
	gatewayTLS
	rawPort
)

// httpRate is how many requests 16 clients get answered. The client is a small
// one, as wrk is, so that it takes little of the machine that all share: it
// knows beforehand what it asks, and does not verify the certificate, but for
// once.
func httpRate(through door, keepAlive bool) func(context.Context, *running) (values, error) {
	return func(ctx context.Context, at *running) (values, error) {
		addr, config := at.http, (*tls.Config)(nil)
		switch {
		case through == rawPort:
			addr = at.raw
		case through == gatewayTLS && at.https != "":
			addr, config = at.https, &tls.Config{
				ServerName: at.host,
				RootCAs:    at.roots,
				// As OpenSSL 3.0 does, and so curl and wrk on many systems; Go's
				// own choice, a post-quantum one, costs both sides more.
				CurvePreferences: []tls.CurveID{tls.X25519},
			}
		}
		request := fmt.Appendf(nil, "GET /health HTTP/1.1\r\nHost: %s\r\n\r\n", at.host)
		if !keepAlive {
			request = fmt.Appendf(nil, "GET /health HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", at.host)
		}
		open := func() (net.Conn, error) {
			c, err := dial(addr)
			if err != nil || config == nil {
				return c, err
			}
			return tls.Client(c, config), nil
		}
		once := func() error {
			c, err := open()
			if err != nil {
				return err
			}
			defer c.Close()
			return get(c, bufio.NewReaderSize(c, 1<<10), request)
		}
		if err := once(); err != nil {
			return nil, err
		}
		if config != nil {
			config.InsecureSkipVerify = true
		}
		newWorker := stateless(once)
		if keepAlive {
			newWorker = func() (worker, error) {
				c, err := open()
				if err != nil {
					return worker{}, err
				}
				replies := bufio.NewReaderSize(c, 1<<10)
				return worker{func() error {
					c.SetDeadline(time.Now().Add(patience))
					return get(c, replies, request)
				}, func() { c.Close() }}, nil
			}
		}
		r, err := drive(ctx, at, 16, 0, newWorker)
		if err != nil {
			return nil, err
		}
		return r.values(at), r.failures.err()
	}
}

func get(c net.Conn, replies *bufio.Reader, request []byte) error {
	if _, err := c.Write(request); err != nil {
		return err
	}
	resp, err := http.ReadResponse(replies, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	return err
}
