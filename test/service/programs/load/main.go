// Load fetches a URL all the time, until its standard input ends: with a new
// connection for each request, whose name is looked up, and on one connection that is
// kept. It then prints what became of them, as JSON.
//
//	load URL
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"sync"
	"time"
)

// every is how often a request with a new connection begins, whatever becomes of those
// before.
const every = 20 * time.Millisecond

// A tally is what became of one client's requests.
type tally struct {
	Done    int           `json:"done"`
	Failed  []string      `json:"failed"`
	Slowest time.Duration `json:"slowest"`

	mu sync.Mutex // guards the above
}

func (t *tally) fetch(client *http.Client, url string) {
	began := time.Now()
	err := get(client, url)
	took := time.Since(began)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.Slowest = max(t.Slowest, took)
	if err != nil {
		t.Failed = append(t.Failed, fmt.Sprintf("%s, after %v: %v", began.Format("15:04:05.000"), took, err))
		return
	}
	t.Done++
}

func get(client *http.Client, url string) error {
	resp, err := client.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, body)
	}
	return err
}

func main() {
	url := os.Args[1]
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer cancel()
		io.Copy(io.Discard, os.Stdin)
	}()
	fresh := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}
	kept := &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxConnsPerHost: 1}}
	var result struct {
		Fresh tally `json:"fresh"`
		Kept  tally `json:"kept"`
	}
	var running sync.WaitGroup
	running.Go(func() {
		for ctx.Err() == nil {
			result.Kept.fetch(kept, url)
		}
	})
	tick := time.NewTicker(every)
	defer tick.Stop()
	for ctx.Err() == nil {
		running.Go(func() { result.Fresh.fetch(fresh, url) })
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	running.Wait()
	if err := json.NewEncoder(os.Stdout).Encode(&result); err != nil {
		log.Fatal(err)
	}
}
