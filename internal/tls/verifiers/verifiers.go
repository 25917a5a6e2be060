// Package verifiers asks the TLS clients that are installed on this machine whether
// they trust a CA, by a real handshake of each, started as its user would start
// it.
//
// What counts is what the server saw: a client trusts the CA if its request came,
// which it sends only after it has accepted the certificate. What a client prints,
// and how it ends, is for people. Each is given the whole environment, and its own
// configuration, but for proxies, since 127.0.0.1 is not behind one.
//
// Nothing is written to a user's home directory. Browsers would, so they are given a
// home of their own, with a copy of what their trust hangs on; see firefox.go and
// chromium.go.
package verifiers

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// A Verdict is what a client makes of the CA.
type Verdict string

const (
	Trusts  Verdict = "trusts"
	Refuses Verdict = "refuses"
	// Careless is a client that accepts certificates of anybody, so that nothing is
	// known of ours.
	Careless Verdict = "accepts any certificate"
	// Absent is a client that is not installed.
	Absent Verdict = "not installed"
	// Unknown is a client that could not be asked.
	Unknown Verdict = "could not be asked"
)

// A Result is what was found about one client.
type Result struct {
	// Family is what kind of client it is: see Families.
	Family string `json:"family"`
	// Client is the very one, where a family has several: "Firefox (snap)".
	Client string `json:"client"`
	// Program is the path of what was started; empty if nothing was.
	Program string  `json:"program,omitempty"`
	Verdict Verdict `json:"verdict"`
	// Evidence is what it said, in one line, whatever the verdict.
	Evidence string `json:"evidence,omitempty"`
	// Fix says what to do if it does not trust the CA, as a command where one helps.
	Fix string `json:"fix,omitempty"`
}

// Families are the kinds of clients, in the order in which they are reported.
var Families = []string{"curl", "OpenSSL", "Go", "Python", "Node", "Java", "Firefox", "Chromium"}

// A Checker asks clients. The zero value asks all of them, in this process's
// environment.
type Checker struct {
	// Only are the families to ask; none means all.
	Only   []string
	limits limits
}

// limits are for how long a client is waited for; zero means the default.
type limits struct{ program, browser time.Duration }

const (
	programLimit = 10 * time.Second
	browserLimit = 20 * time.Second
)

// Programs that are no browser are started side by side, as many as this; each
// browser has dozens of threads, and they are started one after the other.
const abreast = 4

// Check asks each client with a server of its own on 127.0.0.1 that has this
// certificate, which must be for that address, and for comparison with one whose
// certificate is nobody's. Clients are asked side by side where that changes
// nothing. The error is for what keeps everything from being asked.
//
// Go is asked in this process, which reads the system's roots once: what is
// installed after that is seen only by another process.
//
// When it returns, all processes that it started have been ended, and their files are
// gone.
func (c *Checker) Check(ctx context.Context, cert tls.Certificate) ([]Result, error) {
	if len(cert.Certificate) == 0 || cert.PrivateKey == nil {
		return nil, errors.New("there is no certificate to show to clients")
	}
	for _, family := range c.Only {
		if !slices.Contains(Families, family) {
			return nil, fmt.Errorf("%q is no kind of client: they are %s", family, strings.Join(Families, ", "))
		}
	}
	stranger, err := newStranger()
	if err != nil {
		return nil, fmt.Errorf("make a certificate for comparison: %w", err)
	}
	clients := c.find(ctx)
	results := make([]Result, len(clients))
	programs, browsers := make(chan struct{}, abreast), make(chan struct{}, 1)
	var asked sync.WaitGroup
	for i, client := range clients {
		turn := programs
		if client.browser {
			turn = browsers
		}
		asked.Go(func() {
			turn <- struct{}{}
			defer func() { <-turn }()
			results[i] = client.judge(ctx, cert, stranger)
		})
	}
	asked.Wait()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return results, nil
}

// find looks for the clients of all families that are wanted. One that is not
// there is in the result, too, without a program.
func (c *Checker) find(ctx context.Context) []client {
	look := map[string]func(context.Context) []client{
		"curl":     findCurl,
		"OpenSSL":  findOpenSSL,
		"Go":       findGo,
		"Python":   findPython,
		"Node":     findNode,
		"Java":     findJava,
		"Firefox":  findFirefox,
		"Chromium": findChromium,
	}
	var all []client
	for _, family := range Families {
		if len(c.Only) > 0 && !slices.Contains(c.Only, family) {
			continue
		}
		found := look[family](ctx)
		if len(found) == 0 {
			found = []client{{}}
		}
		for _, one := range found {
			one.family = family
			if one.name == "" {
				one.name = family
			}
			one.limit = c.limit(one.browser)
			all = append(all, one)
		}
	}
	return all
}

func (c *Checker) limit(browser bool) time.Duration {
	limit, standard := c.limits.program, programLimit
	if browser {
		limit, standard = c.limits.browser, browserLimit
	}
	if limit == 0 {
		return standard
	}
	return limit
}

// A client is one program that can be asked.
type client struct {
	family, name string
	// program is the path of what is started, or empty if it is not installed.
	program string
	// command says how to have it fetch a URL. The directory is empty, for this once, and
	// removed afterwards.
	command func(url, dir string) (command, error)
	// fetch is for what is asked in this process, without a command.
	fetch func(ctx context.Context, url string) error
	// browser is one that has a limit and a turn of its own.
	browser bool
	// stays is true if it does not end when it is done, or only late. So it is ended when
	// its request has come, or when it has refused the certificate.
	stays bool
	// workspace is where its directory is made, if it cannot see temporary ones.
	workspace string
	// telling are parts of the lines of its output that say most, if that is not the
	// first one.
	telling []string
	// note is added to its evidence.
	note string
	// fix says what to do if it refuses, and has what it printed. careless is what to
	// do about one that accepts anything.
	fix      func(stdout string) string
	careless string

	limit time.Duration
}

// judge asks a client, and once more for comparison if it accepts.
func (c *client) judge(ctx context.Context, cert, stranger tls.Certificate) Result {
	result := Result{Family: c.family, Client: c.name, Program: c.program}
	if c.program == "" {
		result.Verdict = Absent
		return result
	}
	if ctx.Err() != nil {
		return result // of which nothing is told
	}
	if _, err := os.Stat(c.workspace); c.workspace != "" && err != nil {
		result.Verdict, result.Evidence = Unknown, "it was never started"
		return result
	}
	ours := c.ask(ctx, cert)
	result.Verdict, result.Evidence = ours.verdict, ours.evidence
	switch ours.verdict {
	case Refuses:
		result.Fix = c.fix(ours.stdout)
	case Trusts:
		switch others := c.ask(ctx, stranger); others.verdict {
		case Trusts:
			result.Verdict, result.Fix = Careless, c.careless
			result.Evidence = "it sent its request to a server with a certificate of nobody's, too"
		case Unknown:
			result.Verdict = Unknown
			result.Evidence = "it accepts the certificate, but could not be asked about another: " + others.evidence
		}
	}
	if c.note != "" && result.Verdict != Absent {
		result.Evidence += " (" + c.note + ")"
	}
	return result
}

// An answer is what came of asking once. The verdict is none but Trusts, Refuses,
// Unknown and Absent.
type answer struct {
	verdict  Verdict
	evidence string
	stdout   string
}

// ask has a client open one URL of a server with this certificate.
func (c *client) ask(ctx context.Context, cert tls.Certificate) answer {
	server, err := listen(cert)
	if err != nil {
		return answer{verdict: Unknown, evidence: err.Error()}
	}
	defer server.close()
	ctx, cancel := context.WithTimeout(ctx, c.limit)
	defer cancel()

	var end end
	if c.fetch != nil {
		end = fetched(ctx, c.fetch(ctx, server.url))
	} else {
		dir, err := os.MkdirTemp(c.workspace, "tunnelctl-check-")
		if err != nil {
			return answer{verdict: Unknown, evidence: err.Error()}
		}
		defer remove(dir)
		cmd, err := c.command(server.url, dir)
		if err != nil {
			return answer{verdict: Unknown, evidence: err.Error()}
		}
		var settled <-chan struct{}
		if c.stays {
			settled = server.settled
		}
		end = cmd.run(ctx, c.program, settled)
	}
	server.close()
	return c.weigh(server.saw(), end)
}

// weigh finds out what a client meant. That it trusts a certificate is said by
// nobody but the server; that it does not takes that it broke off a handshake.
func (c *client) weigh(seen sight, end end) answer {
	said := oneLine(pick(end.stderr, c.telling))
	switch {
	case seen.request:
		return answer{Trusts, "its request came", end.stdout}
	case end.status == absentStatus:
		return answer{verdict: Absent}
	case seen.refusal != "" || seen.shown && end.status > 0 && !end.killed:
		if said == "" {
			said = "it ended the handshake: " + cmp.Or(seen.refusal, end.how)
		}
		return answer{Refuses, said, end.stdout}
	case end.killed:
		said = join(fmt.Sprintf("it did not answer within %v", c.limit), said)
	case seen.shown:
		said = join("it was shown the certificate and sent no request", cmp.Or(said, end.how))
	default:
		said = join("it did not come as far as to be shown the certificate", cmp.Or(said, end.how))
	}
	return answer{verdict: Unknown, evidence: said}
}

func join(what, why string) string {
	if why == "" {
		return what
	}
	return what + ": " + why
}

// remove removes a directory that processes which were killed may still have been
// writing to.
func remove(dir string) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range 200 {
		if os.RemoveAll(dir) == nil {
			return
		}
		<-tick.C
	}
}
