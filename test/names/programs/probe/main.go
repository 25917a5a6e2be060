// Probe looks a name up all the time, as libc does, and connects to where it
// leads, until its standard input ends. It prints lines of a time, in nanoseconds,
// and a word. The first for each try is "listens" or "closed": whether something
// listens at the address then. The second, with the same time, is "none" if there
// is no such name, "connected", "refused", or "dangling": refused, found again
// after that, and refused again.
//
//	probe NAME ADDRESS:PORT INTERVAL
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"sync"
	"time"
)

func main() {
	if err := run(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		log.Fatal(err)
	}
}

func run(name, addr, every string) error {
	interval, err := time.ParseDuration(every)
	if err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer cancel()
		io.Copy(io.Discard, os.Stdin)
	}()
	var printing sync.Mutex
	say := func(began time.Time, word string) {
		if ctx.Err() != nil {
			return // interrupted: it says nothing
		}
		printing.Lock()
		defer printing.Unlock()
		fmt.Println(began.UnixNano(), word)
	}
	var tries sync.WaitGroup
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for ctx.Err() == nil {
		tries.Go(func() {
			began := time.Now()
			word := "closed"
			if connect(ctx, addr) {
				word = "listens"
			}
			say(began, word)
			say(began, try(ctx, name, port))
		})
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	tries.Wait()
	return nil
}

func try(ctx context.Context, name, port string) string {
	result := "none"
	for _, bad := range []string{"refused", "dangling"} {
		addrs, err := net.DefaultResolver.LookupHost(ctx, name)
		if err != nil {
			return result
		}
		if connect(ctx, net.JoinHostPort(addrs[0], port)) {
			return "connected"
		}
		result = bad
	}
	return result
}

func connect(ctx context.Context, addr string) bool {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return false
	}
	c.Close()
	return true
}
