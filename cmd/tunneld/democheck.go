package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tunneld/tunneld/internal/status"
)

// steps prints what is done, with how long it took.
type steps struct {
	out   io.Writer
	began time.Time
}

// do does one step. It returns a short text about the outcome.
func (s *steps) do(what string, do func() (string, error)) error {
	if s.began.IsZero() {
		s.began = time.Now()
	}
	start := time.Now()
	text, err := do()
	took := time.Since(start).Round(time.Millisecond)
	if err != nil {
		fmt.Fprintf(s.out, "FAIL %7v  %s: %v\n", took, what, err)
		return fmt.Errorf("%s: %w", what, err)
	}
	if text != "" {
		text = ": " + text
	}
	fmt.Fprintf(s.out, "ok   %7v  %s%s\n", took, what, text)
	return nil
}

// check proves the main job, step by step.
func (s *stage) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	host := s.forward.Hostnames[0]
	var client *http.Client
	for _, step := range []struct {
		what string
		do   func() (string, error)
	}{
		{"ask the DNS server for " + host, func() (string, error) { return s.resolve(ctx, host) }},
		{"be refused by a client that does not trust the CA", func() (string, error) { return "", s.refused(ctx) }},
		{"fetch " + s.forward.URL + "/health, with the CA verified", func() (text string, err error) {
			roots, err := s.roots(ctx)
			if err != nil {
				return "", err
			}
			client = s.httpsClient(roots)
			return get(ctx, client, s.forward.URL+"/health")
		}},
		{"reach both pods with ten requests", func() (string, error) {
			seen, err := s.podsSeen(ctx, client)
			if err == nil && len(seen) < 2 {
				err = fmt.Errorf("only %v answered", seen)
			}
			return strings.Join(seen, ", "), err
		}},
		{"talk to the Service's own port", func() (string, error) {
			return get(ctx, http.DefaultClient, fmt.Sprintf("http://%s/health", s.forward.Ports[0].Listen))
		}},
		{"replace both pods under load", func() (string, error) { return s.replacePods(ctx, client) }},
		{"have no pod ready for a second under load", func() (string, error) { return s.unready(ctx, client) }},
	} {
		if err := s.steps.do(step.what, step.do); err != nil {
			return err
		}
	}
	fmt.Fprintf(s.steps.out, "all held, in %v\n", time.Since(s.steps.began).Round(time.Millisecond))
	return nil
}

// resolve asks our DNS server, and nobody else.
func (s *stage) resolve(ctx context.Context, host string) (string, error) {
	ours := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, s.dns.String())
	}}
	addrs, err := ours.LookupNetIP(ctx, "ip4", host)
	if err != nil {
		return "", err
	}
	if len(addrs) != 1 || addrs[0].Unmap() != netip.MustParseAddr(s.forward.Address) {
		return "", fmt.Errorf("it says %v; want %s", addrs, s.forward.Address)
	}
	return addrs[0].String(), nil
}

// roots holds the local CA's certificate, as clients get it.
func (s *stage) roots(ctx context.Context) (*x509.CertPool, error) {
	pem, err := s.client.RootPEM(ctx)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, errors.New("the CA's certificate cannot be read")
	}
	return roots, nil
}

// httpsClient trusts these roots only, and resolves through our DNS server.
func (s *stage) httpsClient(roots *x509.CertPool) *http.Client {
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		host, port, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		ip, err := s.resolve(ctx, host)
		if err != nil {
			return nil, err
		}
		return new(net.Dialer).DialContext(ctx, network, net.JoinHostPort(ip, port))
	}
	return &http.Client{
		Timeout:   demoWait,
		Transport: &http.Transport{DialContext: dial, TLSClientConfig: &tls.Config{RootCAs: roots}},
	}
}

// refused makes sure that what the other steps verify can fail.
func (s *stage) refused(ctx context.Context) error {
	_, err := get(ctx, s.httpsClient(x509.NewCertPool()), s.forward.URL+"/health")
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); !ok {
		return fmt.Errorf("it got %v; want the certificate to be refused", err)
	}
	return nil
}

// get fetches a URL, and returns the beginning of what it says.
func get(ctx context.Context, client *http.Client, target string) (string, error) {
	body, err := fetch(ctx, client, target)
	return strings.TrimSpace(string(body[:min(len(body), 200)])), err
}

func fetch(ctx context.Context, client *http.Client, target string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json") // of tunneld's own pages, too
	resp, err := client.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // the step says which URL
		}
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, body)
	}
	return body, err
}

// podName asks which pod answers.
func (s *stage) podName(ctx context.Context, client *http.Client) (string, error) {
	body, err := fetch(ctx, client, s.forward.URL+"/")
	if err != nil {
		return "", err
	}
	var answer struct{ Pod string }
	if err := json.Unmarshal(body, &answer); err != nil {
		return "", fmt.Errorf("read the pod's answer: %w", err)
	}
	return answer.Pod, nil
}

// podsSeen makes ten requests, and returns the pods that answered.
func (s *stage) podsSeen(ctx context.Context, client *http.Client) ([]string, error) {
	var seen []string
	known := make(map[string]bool)
	for range 10 {
		pod, err := s.podName(ctx, client)
		if err != nil {
			return seen, err
		}
		if !known[pod] {
			known[pod] = true
			seen = append(seen, pod)
		}
	}
	return seen, nil
}

// underLoad does something while several clients make requests, of which none
// may fail, until done reports that it is over.
func (s *stage) underLoad(ctx context.Context, client *http.Client, do func() error, done func(*requests) bool) (*requests, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	over := make(chan struct{})
	load := new(requests)
	var clients errgroup.Group
	for range 4 {
		clients.Go(func() error {
			for n := 1; ; n++ {
				pod, err := s.podName(ctx, client)
				if err != nil {
					cancel()
					return fmt.Errorf("request %d of a client: %w", n, err)
				}
				load.note(pod)
				select {
				case <-over:
					return nil
				default:
				}
			}
		})
	}
	failed := do()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for failed == nil && ctx.Err() == nil && !done(load) {
		<-tick.C
	}
	close(over)
	return load, errors.Join(failed, clients.Wait())
}

// replacePods deletes each pod as a rollout does, and waits until the old ones
// are gone and both new ones have answered.
func (s *stage) replacePods(ctx context.Context, client *http.Client) (string, error) {
	old := s.cluster.Pods(demoNamespace, demoService)
	load, err := s.underLoad(ctx, client, func() error {
		for _, pod := range old {
			if err := s.cluster.DeletePod(demoNamespace, pod, 300*time.Millisecond); err != nil {
				return err
			}
		}
		return nil
	}, func(load *requests) bool {
		left := slices.ContainsFunc(s.cluster.Pods(demoNamespace, demoService), func(p string) bool { return slices.Contains(old, p) })
		return !left && len(load.from(old)) == 2
	})
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d requests by 4 clients, 0 failed; now %s", load.total(), strings.Join(load.from(old), " and ")), nil
}

// unready makes all pods unready for a moment, in which requests wait.
func (s *stage) unready(ctx context.Context, client *http.Client) (string, error) {
	set := func(ready bool) error {
		var errs []error
		for _, pod := range s.cluster.Pods(demoNamespace, demoService) {
			errs = append(errs, s.cluster.SetReady(demoNamespace, pod, ready))
		}
		return errors.Join(errs...)
	}
	waited := 0
	load, err := s.underLoad(ctx, client, func() error {
		if err := set(false); err != nil {
			return err
		}
		return errors.Join(s.awaitNoEndpoints(ctx), set(true))
	}, func(load *requests) bool {
		if waited == 0 {
			waited = load.total()
		}
		return load.total() > waited // they go on
	})
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d requests by 4 clients, 0 failed: they waited", load.total()), nil
}

// awaitNoEndpoints waits until the daemon has seen that no pod is ready, and a
// second more, in which none becomes so.
func (s *stage) awaitNoEndpoints(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for {
		f, err := s.client.Wait(limited, demoService, time.Second)
		if err != nil || f.State == status.NoEndpoints {
			return err
		}
		select {
		case <-look.C:
		case <-limited.Done():
			return fmt.Errorf("it is %s; want %s", f.State, status.NoEndpoints)
		}
	}
}

// requests are counted by the pod that answered.
type requests struct {
	mu    sync.Mutex // guards the following
	byPod map[string]int
}

func (r *requests) note(pod string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byPod == nil {
		r.byPod = make(map[string]int)
	}
	r.byPod[pod]++
}

// from lists the pods that answered, but for the old ones.
func (r *requests) from(old []string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.DeleteFunc(slices.Sorted(maps.Keys(r.byPod)), func(p string) bool { return slices.Contains(old, p) })
}

func (r *requests) total() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, count := range r.byPod {
		n += count
	}
	return n
}
