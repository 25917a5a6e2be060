//go:build conformance

package dns_test

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	mdns "github.com/miekg/dns"

	"github.com/tunneld/tunneld/internal/await"
)

// TestLoad asks a server, in a process of its own, as fast as dnsperf can, and
// then at a rate at which it must be quick. No reply may be lost. What depends
// on the machine, which should do nothing else then, counts with TUNNELD_SOAK
// only: 20,000 queries a second on two cores, a 99th percentile of 5 ms, and
// flat memory over ten million.
func TestLoad(t *testing.T) {
	soak := os.Getenv("TUNNELD_SOAK") != ""
	warm, count, seconds := 20_000, 100_000, 1
	if soak {
		warm, count, seconds = 1_000_000, 10_000_000, 20
	}
	addr, pid := startAlone(t)
	questions := writeQuestions(t)

	perf(t, addr, questions, warm, nil)
	before := resident(t, pid)
	rate := perf(t, addr, questions, count, nil)
	after := resident(t, pid)
	t.Logf("%d queries at %.0f a second; %d KiB resident, then %d", count, rate, before>>10, after>>10)

	const offered = 20_000
	var times []float64
	perf(t, addr, questions, offered*seconds, &times, "-Q", fmt.Sprint(offered))
	slices.Sort(times)
	p99 := times[len(times)*99/100]
	t.Logf("at %d a second: median %.3f ms, 99 %% in %.3f ms, all in %.3f ms", offered,
		1000*times[len(times)/2], 1000*p99, 1000*times[len(times)-1])

	if !soak {
		return
	}
	if rate < 20_000 {
		t.Errorf("%.0f queries a second; want at least 20,000", rate)
	}
	if p99 >= 0.005 {
		t.Errorf("99 %% of the replies within %v s; want 5 ms", p99)
	}
	if after-before > 4<<20 {
		t.Errorf("%d KiB more resident after %d queries", (after-before)>>10, count)
	}
}

// startAlone starts a server that is nothing else.
func startAlone(t *testing.T) (addr netip.AddrPort, pid int) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "address")
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), servedAlone+"="+file)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	run(t, cmd)
	await.Until(t, "the server to listen", func() bool {
		b, err := os.ReadFile(file)
		if err == nil {
			addr, err = netip.ParseAddrPort(string(b))
		}
		return err == nil
	})
	return addr, cmd.Process.Pid
}

const questionCount = 1000

// writeQuestions writes questions of all kinds, for dnsperf, and returns the
// file.
func writeQuestions(t *testing.T) string {
	t.Helper()
	g := newGenerator(rand.New(rand.NewPCG(1, 1)))
	var b strings.Builder
	for n := 0; n < questionCount; {
		name := g.name()
		// dnsperf has its own idea of what is escaped.
		if _, ok := mdns.IsDomainName(name); !ok || len(name) > 254 || strings.ContainsAny(name, `\@"`) {
			continue
		}
		n++
		fmt.Fprintln(&b, name, pick(g, "A", "A", "A", "AAAA", "AAAA", "HTTPS", "SOA", "NS", "PTR"))
	}
	path := filepath.Join(t.TempDir(), "questions")
	writeFile(t, path, b.String())
	return path
}

var (
	perfLost = regexp.MustCompile(`(?m)^\s*Queries lost:\s+(\d+)`)
	perfDone = regexp.MustCompile(`(?m)^\s*Queries completed:\s+(\d+)`)
	perfRate = regexp.MustCompile(`(?m)^\s*Queries per second:\s+([\d.]+)`)
)

// perf has dnsperf put so many queries, and returns its rate. Each one's time in
// seconds is appended to times, if that is not nil; writing them down costs
// dnsperf as much as asking.
func perf(t *testing.T, addr netip.AddrPort, questions string, count int, times *[]float64, more ...string) float64 {
	t.Helper()
	args := append([]string{"-s", addr.Addr().String(), "-p", fmt.Sprint(addr.Port()), "-d", questions,
		"-n", fmt.Sprint(count / questionCount), "-e", "-t", "20", "-W"}, more...)
	if times != nil {
		args = append(args, "-v")
	}
	cmd := exec.Command(program(t, "dnsperf"), args...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	run(t, cmd)
	var said strings.Builder
	for lines := bufio.NewScanner(out); lines.Scan(); {
		line := lines.Text()
		if !strings.HasPrefix(line, "> ") { // of a reply: rcode, name, type, time
			fmt.Fprintln(&said, line)
			continue
		}
		seconds, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
		if err != nil {
			t.Fatalf("dnsperf says %q: %v", line, err)
		}
		*times = append(*times, seconds)
	}
	number := func(re *regexp.Regexp) float64 {
		m := re.FindStringSubmatch(said.String())
		if m == nil {
			t.Fatalf("dnsperf said:\n%s", said.String())
		}
		n, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if done := int(number(perfDone)); done != count || number(perfLost) != 0 {
		t.Errorf("%d of %d queries have a reply; dnsperf said:\n%s", done, count, said.String())
	}
	if times != nil && len(*times) != count {
		t.Errorf("%d times for %d replies", len(*times), count)
	}
	return number(perfRate)
}

// resident is how many bytes of memory a process has.
func resident(t *testing.T, pid int) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(b))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}
