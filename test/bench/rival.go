package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A rival forwards the sample application.
type rival interface {
	fmt.Stringer
	takesPart(in scene) bool
	start(ctx context.Context, in setting) (*running, error)
}

// addresses are where a rival serves the sample application: ports 9000, 9001
// and 8000 of its pods, the last one both as its way with HTTP is (with https
// only if it has that), and as bare TCP.
type addresses struct {
	echo, source     string
	http, https, raw string
	host             string // what HTTP clients ask for
	roots            *x509.CertPool
}

// running is a rival at work.
type running struct {
	addresses
	processes []*process
	pids      []int  // of them, and of what somebody else has started
	server    uint16 // the API server's port
	cleanup   func()
}

func (r *running) alive() bool {
	if r == nil {
		return false
	}
	for _, p := range r.processes {
		if !p.alive() {
			return false
		}
	}
	return true
}

// close may be called for a rival that never ran.
func (r *running) close() {
	if r == nil {
		return
	}
	for _, p := range r.processes {
		p.stop()
	}
	if r.cleanup != nil {
		r.cleanup()
	}
}

func (r *running) add(p *process) {
	r.processes = append(r.processes, p)
	r.pids = append(r.pids, p.cmd.Process.Pid)
}

// measurable reports whether cpu means anything.
func (r *running) measurable() bool {
	for _, pid := range r.pids {
		if _, err := cpuTime(pid); err != nil {
			return false
		}
	}
	return len(r.pids) > 0
}

func (r *running) cpu() time.Duration {
	var sum time.Duration
	for _, pid := range r.pids {
		d, _ := cpuTime(pid) // see measurable
		sum += d
	}
	return sum
}

func (r *running) memory() (int64, error) {
	if len(r.pids) == 0 {
		return 0, errors.New("its processes are not known")
	}
	var sum int64
	for _, pid := range r.pids {
		n, err := residentSet(pid)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// upstream counts connections to the API server.
func (r *running) upstream() (int, error) {
	sum := 0
	for _, pid := range r.pids {
		n, err := connectionsTo(pid, r.server)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// another is a forwarder that somebody has started.
type another struct {
	name string
	at   running
}

func parseOther(text string) (*another, error) {
	name, rest, _ := strings.Cut(text, ",")
	o := &another{name: name}
	for field := range strings.SplitSeq(rest, ",") {
		key, value, ok := strings.Cut(field, "=")
		if !ok {
			return nil, fmt.Errorf("%q is not KEY=VALUE", field)
		}
		switch key {
		case "echo":
			o.at.echo = value
		case "source":
			o.at.source = value
		case "http":
			o.at.http, o.at.raw = value, value
			o.at.host = value
		case "pid":
			pid, err := strconv.Atoi(value)
			if err != nil {
				return nil, err
			}
			o.at.pids = append(o.at.pids, pid)
		default:
			return nil, fmt.Errorf("%q is no key", key)
		}
	}
	return o, nil
}

func (o *another) String() string { return o.name }

// takesPart: it is not ours to start anew.
func (o *another) takesPart(in scene) bool { return in == inUse }

func (o *another) start(context.Context, setting) (*running, error) {
	at := o.at
	return &at, nil
}
