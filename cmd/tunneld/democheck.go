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
	"time"
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
		{"fetch " + s.forward.URL + "/health, with the CA verified", func() (text string, err error) {
			if client, err = s.httpsClient(ctx); err != nil {
				return "", err
			}
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

// httpsClient trusts the local CA only, and resolves through our DNS server.
func (s *stage) httpsClient(ctx context.Context) (*http.Client, error) {
	pem, err := s.client.RootPEM(ctx)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, errors.New("the CA's certificate cannot be read")
	}
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
	}, nil
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

// replacePods deletes each pod as a rollout does, while requests are made, and
// waits until the old ones are gone and both new ones have answered. No request
// may fail.
func (s *stage) replacePods(ctx context.Context, client *http.Client) (string, error) {
	old := s.cluster.Pods(demoNamespace, demoService)
	for _, pod := range old {
		if err := s.cluster.DeletePod(demoNamespace, pod, 300*time.Millisecond); err != nil {
			return "", err
		}
	}
	fresh := make(map[string]bool)
	requests := 0
	for gone := false; !gone || len(fresh) < 2; requests++ {
		pod, err := s.podName(ctx, client)
		if err != nil {
			return "", fmt.Errorf("request %d: %w", requests+1, err)
		}
		if !slices.Contains(old, pod) {
			fresh[pod] = true
		}
		gone = !slices.ContainsFunc(s.cluster.Pods(demoNamespace, demoService), func(p string) bool {
			return slices.Contains(old, p)
		})
	}
	return fmt.Sprintf("%d requests, 0 failed; now %s", requests, strings.Join(slices.Sorted(maps.Keys(fresh)), " and ")), nil
}
