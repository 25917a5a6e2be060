package inflight_test

import (
	"testing"
	"testing/synctest"

	"github.com/tunneld/tunneld/internal/demo/internal/inflight"
)

func TestGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g inflight.Group
		release := make(chan struct{})
		if !g.Enter() || !g.Go(func() { <-release }) {
			t.Fatal("an open group refuses work")
		}
		idle := g.Shut()
		if g.Enter() || g.Go(func() {}) {
			t.Error("a shut group takes work")
		}
		g.Leave()
		synctest.Wait()
		select {
		case <-idle:
			t.Error("idle with work inside")
		default:
		}
		close(release)
		<-idle
		<-g.Shut()
	})
	var empty inflight.Group
	<-empty.Shut()
}

func TestSignal(t *testing.T) {
	var s inflight.Signal
	s.Fire()
	first, second := s.Wait(), s.Wait()
	s.Fire()
	<-first
	<-second
	select {
	case <-s.Wait():
		t.Error("woken without a signal")
	default:
	}
}
