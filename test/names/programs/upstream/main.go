// Upstream is the DNS server of the network that a test's machine is in. It
// knows example.com and what is below it, a name of one label, and the way back
// from its addresses; all else does not exist.
//
//	upstream ADDRESS:PORT
package main

import (
	"fmt"
	"hash/fnv"
	"log"
	"net"
	"os"
	"strings"

	"github.com/miekg/dns"

	"github.com/tunneld/tunneld/test/names/programs/internal/notify"
)

func main() {
	if err := run(os.Args[1]); err != nil {
		log.Fatal(err)
	}
}

func run(addr string) error {
	udp, err := net.ListenPacket("udp", addr)
	if err != nil {
		return err
	}
	tcp, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	ended := make(chan error)
	for _, s := range []*dns.Server{{PacketConn: udp}, {Listener: tcp}} {
		s.Handler = dns.HandlerFunc(reply)
		go func() { ended <- s.ActivateAndServe() }()
	}
	if err := notify.Ready(); err != nil {
		return err
	}
	return <-ended
}

func reply(w dns.ResponseWriter, query *dns.Msg) {
	m := new(dns.Msg).SetReply(query)
	m.RecursionAvailable = true
	if len(query.Question) == 1 {
		q := query.Question[0]
		rrs, exists := lookUp(strings.ToLower(q.Name), q.Qtype)
		for _, rr := range rrs {
			record, err := dns.NewRR(q.Name + " 60 IN " + rr)
			if err != nil {
				log.Fatal(err)
			}
			m.Answer = append(m.Answer, record)
		}
		if !exists {
			m.Rcode = dns.RcodeNameError
		}
		if len(rrs) == 0 {
			soa, err := dns.NewRR(". 60 IN SOA a.root-servers.net. nstld.example. 1 1800 900 604800 60")
			if err != nil {
				log.Fatal(err)
			}
			m.Ns = append(m.Ns, soa)
		}
	}
	if opt := query.IsEdns0(); opt != nil {
		m.SetEdns0(1232, false)
	}
	w.WriteMsg(m)
}

// lookUp returns records as "TYPE VALUE", and whether there is such a name.
func lookUp(name string, qtype uint16) (rrs []string, exists bool) {
	switch {
	case name == "example.com.", strings.HasSuffix(name, ".example.com."), name == "intranet.":
		h := fnv.New32a()
		h.Write([]byte(name))
		host := h.Sum32() % 200
		switch qtype {
		case dns.TypeA:
			rrs = []string{fmt.Sprintf("A 198.51.100.%d", host)}
		case dns.TypeAAAA:
			rrs = []string{fmt.Sprintf("AAAA 2001:db8::%x", host)}
		}
		return rrs, true
	case strings.HasSuffix(name, ".100.51.198.in-addr.arpa."):
		if qtype == dns.TypePTR {
			rrs = []string{"PTR host-" + name[:strings.IndexByte(name, '.')] + ".example.com."}
		}
		return rrs, true
	}
	return nil, false
}
