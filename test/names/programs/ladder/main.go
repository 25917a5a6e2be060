//go:build linux

// Ladder claims and releases names as tunneld-helper does, and is killed (SIGKILL)
// before the change to the system with the given number. It prints the changes.
//
//	ladder RECEIPTS OWNER KILL claim SERVER ADDRESS SKIP NAME...
//	ladder RECEIPTS OWNER KILL release
//
// KILL counts from 1; 0 lets it live. SKIP is a rung that is not to be taken, or
// "-".
package main

import (
	"context"
	"fmt"
	"log"
	"net/netip"
	"os"
	"strconv"
	"syscall"

	"github.com/tunneld/tunneld/internal/osdns"
	"github.com/tunneld/tunneld/internal/osdns/machine"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		log.Fatal(err)
	}
}

func run(args []string) error {
	receipts, owner := args[0], args[1]
	kill, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	changes := 0
	system := machine.New().Before(func(what string) error {
		if changes++; changes == kill {
			return syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
		fmt.Println(what)
		return nil
	})
	l := &osdns.Ladder{System: system, Receipts: receipts}
	if args[3] == "release" {
		return l.Release(context.Background(), owner)
	}
	server, err := netip.ParseAddrPort(args[4])
	if err != nil {
		return err
	}
	addr, err := netip.ParseAddr(args[5])
	if err != nil {
		return err
	}
	c := osdns.Claim{Owner: owner, Server: server}
	for _, name := range args[7:] {
		c.Names = append(c.Names, osdns.Name{Name: name, Addrs: []netip.Addr{addr}})
	}
	_, err = l.Claim(context.Background(), c, []string{args[6]})
	return err
}
