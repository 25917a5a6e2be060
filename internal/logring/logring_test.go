package logring_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tunneld/tunneld/internal/logring"
	"github.com/tunneld/tunneld/internal/status"
)

func any(status.LogRecord) bool { return true }

func messages(records []status.LogRecord) []string {
	var all []string
	for _, r := range records {
		all = append(all, r.Msg)
	}
	return all
}

func TestRingKeepsTheLast(t *testing.T) {
	ring := &logring.Ring{Size: 3}
	log := slog.New(ring.Handler(slog.DiscardHandler))
	for i := range 5 {
		log.Debug(fmt.Sprint(i))
	}
	if diff := cmp.Diff([]string{"2", "3", "4"}, messages(ring.Last(0, any))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"4"}, messages(ring.Last(1, any))); diff != "" {
		t.Errorf("last one (-want +got):\n%s", diff)
	}
}

func TestRecordsCarryTheirAttributes(t *testing.T) {
	ring := new(logring.Ring)
	var text strings.Builder
	log := slog.New(ring.Handler(slog.NewTextHandler(&text, &slog.HandlerOptions{Level: slog.LevelInfo})))
	log.With("forward", "task-api").WithGroup("request").Info("served", "status", 200, slog.Group("from", "port", 1))
	log.Debug("only in the ring")

	want := []status.LogRecord{
		{Level: "INFO", Msg: "served", Forward: "task-api", Attrs: [][2]string{{"request.status", "200"}, {"request.from.port", "1"}}},
		{Level: "DEBUG", Msg: "only in the ring"},
	}
	if diff := cmp.Diff(want, ring.Last(0, any), cmpopts.IgnoreFields(status.LogRecord{}, "Time")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := text.String(); !strings.Contains(got, "forward=task-api") || strings.Contains(got, "only in the ring") {
		t.Errorf("the next handler got %q", got)
	}
}

func TestFollow(t *testing.T) {
	ring := new(logring.Ring)
	log := slog.New(ring.Handler(slog.DiscardHandler))
	log.Info("a", "forward", "x")
	log.Info("b", "forward", "y")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ofX := func(r status.LogRecord) bool { return r.Forward == "x" }
	var got []string
	for r := range ring.Follow(ctx, 0, ofX) {
		got = append(got, r.Msg)
		switch r.Msg {
		case "a":
			log.Info("c", "forward", "y")
			log.Info("d", "forward", "x")
		case "d":
			cancel()
		}
	}
	if diff := cmp.Diff([]string{"a", "d"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
