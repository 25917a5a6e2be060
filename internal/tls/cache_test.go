package tls

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// lasting mints certificates that are nothing but a validity that begins now.
func lasting(d time.Duration) func() (*tls.Certificate, error) {
	return func() (*tls.Certificate, error) {
		now := time.Now()
		return &tls.Certificate{Leaf: &x509.Certificate{NotBefore: now, NotAfter: now.Add(d)}}, nil
	}
}

func unexpected(t *testing.T) func() (*tls.Certificate, error) {
	return func() (*tls.Certificate, error) {
		t.Error("minted")
		return nil, errors.New("minted")
	}
}

func TestOldLeafIsServedWhileTheNewOneIsMinted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c cache
		old, err := c.get(t.Context(), "a", lasting(3*time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(2*time.Hour + time.Second)

		finish := make(chan struct{})
		renewed := make(chan *tls.Certificate, 1)
		go func() {
			cert, err := c.get(t.Context(), "a", func() (*tls.Certificate, error) {
				<-finish
				return lasting(3 * time.Hour)()
			})
			if err != nil {
				t.Error(err)
			}
			renewed <- cert
		}()
		synctest.Wait()
		if got, err := c.get(t.Context(), "a", unexpected(t)); got != old || err != nil {
			t.Fatalf("during the renewal: %p, %v; want the old one, %p", got, err, old)
		}

		// Past the old one's end others have to wait, as long as they like.
		time.Sleep(time.Hour)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if got, err := c.get(ctx, "a", unexpected(t)); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("with the old one expired: %v, %v; want a wait to the deadline", got, err)
		}
		waited := make(chan *tls.Certificate, 1)
		go func() {
			got, err := c.get(t.Context(), "a", unexpected(t))
			if err != nil {
				t.Error(err)
			}
			waited <- got
		}()
		synctest.Wait()
		close(finish)
		if a, b := <-renewed, <-waited; a != b || a == old {
			t.Errorf("who minted got %p, who waited %p; want one that is not %p", a, b, old)
		}
	})
}

func TestFailedRenewalKeepsTheOldLeaf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c cache
		old, err := c.get(t.Context(), "a", lasting(3*time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		broken := errors.New("broken")
		fails := func() (*tls.Certificate, error) { return nil, broken }

		time.Sleep(150 * time.Minute)
		if got, err := c.get(t.Context(), "a", fails); got != old || err != nil {
			t.Errorf("before its end: %p, %v; want %p", got, err, old)
		}
		time.Sleep(time.Hour)
		if _, err := c.get(t.Context(), "a", fails); !errors.Is(err, broken) {
			t.Errorf("after its end: %v; want %v", err, broken)
		}
		if got, err := c.get(t.Context(), "a", lasting(time.Hour)); got == nil || got == old || err != nil {
			t.Errorf("once it works again: %p, %v", got, err)
		}
	})
}

func TestLeafFromTheFutureIsReplaced(t *testing.T) {
	var c cache
	early, err := c.get(t.Context(), "a", func() (*tls.Certificate, error) {
		cert, err := lasting(100 * time.Hour)()
		cert.Leaf.NotBefore = cert.Leaf.NotBefore.Add(time.Hour)
		return cert, err
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.get(t.Context(), "a", lasting(time.Hour)); got == early || err != nil {
		t.Errorf("got %p, %v; want another than %p", got, err, early)
	}
}

func TestCacheIsBounded(t *testing.T) {
	var c cache
	ctx := t.Context()
	minted := 0
	mint := func() (*tls.Certificate, error) {
		minted++
		return lasting(time.Hour)()
	}
	use := func(name string) {
		if _, err := c.get(ctx, name, mint); err != nil {
			t.Fatal(err)
		}
	}
	use("popular")
	use("forgotten")
	for i := range maxLeaves {
		use("popular")
		use(fmt.Sprint(i))
	}
	if len(c.byName) != maxLeaves || c.recent.Len() != maxLeaves || len(c.minting) != 0 {
		t.Errorf("keeps %d, %d and %d; want %d, as many, and 0", len(c.byName), c.recent.Len(), len(c.minting), maxLeaves)
	}
	if want := maxLeaves + 2; minted != want {
		t.Errorf("minted %d; want %d: the one that is used most stays", minted, want)
	}
	minted = 0
	if use("forgotten"); minted != 1 {
		t.Error("the one that was used least is still there")
	}
}
