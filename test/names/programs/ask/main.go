// Ask asks tunneld-helper to claim a name, as whoever runs it.
//
//	ask SOCKET NAME
package main

import (
	"context"
	"log"
	"net/netip"
	"os"

	"github.com/tunneld/tunneld/internal/osdns"
	"github.com/tunneld/tunneld/internal/rootapi"
)

func main() {
	log.SetFlags(0)
	client := rootapi.Client{Socket: os.Args[1]}
	name := osdns.Name{Name: os.Args[2], Addrs: []netip.Addr{netip.MustParseAddr("127.77.0.1")}}
	if _, err := client.Claim(context.Background(), netip.MustParseAddrPort("127.0.0.1:15353"), []osdns.Name{name}, nil); err != nil {
		log.Fatal(err)
	}
}
