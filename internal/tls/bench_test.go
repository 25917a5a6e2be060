package tls_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	localtls "github.com/tunneld/tunneld/internal/tls"
)

// BenchmarkHandshake takes the time of a connection over TCP, from the client's
// connect to the first byte that the server sends after the handshake. Both are
// Go's, in one process; the client verifies the chain. The figures that
// docs/performance.md has are from -benchtime=2000x.
func BenchmarkHandshake(b *testing.B) {
	sessions := tls.NewLRUClientSessionCache(1)
	for _, bb := range []struct {
		name string
		host func(i int) string
		set  func(*tls.Config)
	}{
		{"first", func(i int) string { return fmt.Sprintf("n%d.task-api.local", i) }, func(*tls.Config) {}},
		{"again", func(int) string { return "task-api.local" }, func(*tls.Config) {}},
		{"resumed", func(int) string { return "task-api.local" }, func(c *tls.Config) { c.ClientSessionCache = sessions }},
	} {
		b.Run(bb.name, func(b *testing.B) {
			ca := load(b, b.TempDir(), "local")
			addr := serveBytes(b, ca)
			connect := func(i int) time.Duration {
				conf := client(ca, bb.host(i))
				bb.set(conf)
				began := time.Now()
				conn, err := tls.Dial("tcp", addr, conf)
				if err != nil {
					b.Fatal(err)
				}
				defer conn.Close()
				if _, err := conn.Read(make([]byte, 1)); err != nil {
					b.Fatal(err)
				}
				took := time.Since(began)
				if resumed := conn.ConnectionState().DidResume; resumed != (bb.name == "resumed") && i > 0 {
					b.Fatalf("resumed: %v", resumed)
				}
				return took
			}
			connect(0)
			var took []time.Duration
			for i := 1; b.Loop(); i++ {
				took = append(took, connect(i))
			}
			slices.Sort(took)
			ms := func(d time.Duration) float64 { return d.Seconds() * 1000 }
			b.ReportMetric(ms(took[len(took)/2]), "p50-ms")
			b.ReportMetric(ms(took[len(took)*99/100]), "p99-ms")
			b.ReportMetric(ms(took[len(took)-1]), "max-ms")
		})
	}
}

// serveBytes sends a byte after each handshake, for any name, until the benchmark ends.
func serveBytes(b *testing.B, ca *localtls.CA) string {
	b.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	conf := ca.ServerConfig(func(string) bool { return true }, ln.Addr().(*net.TCPAddr).AddrPort().Addr())
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				c := tls.Server(conn, conf)
				defer c.Close()
				if c.HandshakeContext(ctx) == nil { // the client tells
					c.Write([]byte{'x'})
				}
			})
		}
	})
	b.Cleanup(func() {
		cancel()
		ln.Close()
		serving.Wait()
	})
	return ln.Addr().String()
}

// BenchmarkThousandNames mints for a thousand new names, one after the other.
func BenchmarkThousandNames(b *testing.B) {
	ca := load(b, b.TempDir(), "local")
	round := 0
	for b.Loop() {
		round++
		for i := range 1000 {
			if _, err := ca.Leaf(b.Context(), fmt.Sprintf("n%d.r%d.local", i, round)); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(b.Elapsed().Seconds()/float64(round), "s/1000names")
}

// BenchmarkTenThousandNames asks for as many names below a wildcard, and tells what is
// kept of them: see TestCacheIsBounded.
func BenchmarkTenThousandNames(b *testing.B) {
	heap := func() float64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc) / (1 << 20)
	}
	ca := load(b, b.TempDir(), "local")
	before := heap()
	for b.Loop() {
		for i := range 10_000 {
			if _, err := ca.Leaf(b.Context(), fmt.Sprintf("n%d.task-api.local", i)); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(heap()-before, "MiB-kept")
	runtime.KeepAlive(ca)
}

// BenchmarkRenewal makes a new CA, on disk, too.
func BenchmarkRenewal(b *testing.B) {
	ca := load(b, b.TempDir(), "local")
	for b.Loop() {
		renew(b, ca)
	}
}
