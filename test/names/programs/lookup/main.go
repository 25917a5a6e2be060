// Lookup resolves names with Go's resolver: with libc's if it is built with cgo
// and $GODEBUG says netdns=cgo, else with Go's own. It prints what
// testdata/lookup.c does.
//
//	lookup ROUNDS NAME...
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

func main() {
	rounds, err := strconv.Atoi(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	out := bufio.NewWriter(os.Stdout)
	for range rounds {
		for _, name := range os.Args[2:] {
			began := time.Now()
			result := lookUp(name)
			fmt.Fprintf(out, "%s\t%d\t%s\n", name, time.Since(began).Microseconds(), result)
		}
	}
	if err := out.Flush(); err != nil {
		log.Fatal(err)
	}
}

func lookUp(name string) string {
	var found []string
	var err error
	if _, perr := netip.ParseAddr(name); perr == nil {
		found, err = net.DefaultResolver.LookupAddr(context.Background(), name)
		for i := range found {
			found[i] = strings.TrimSuffix(found[i], ".")
		}
	} else {
		found, err = net.DefaultResolver.LookupHost(context.Background(), name)
	}
	if err != nil {
		var dnsErr *net.DNSError
		if errors.As(err, &dnsErr) && dnsErr.IsNotFound {
			return "!none"
		}
		return "!" + err.Error()
	}
	slices.Sort(found)
	return strings.Join(slices.Compact(found), ",")
}
