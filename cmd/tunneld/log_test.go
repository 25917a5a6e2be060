package main

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// A handler may be given what it has not said that it wants.
func TestMutedRecords(t *testing.T) {
	tests := []struct {
		name    string
		level   slog.Level // of the handler below
		printed bool
	}{
		{"a quiet log", slog.LevelInfo, false},
		{"a verbose log", slog.LevelDebug, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			h := muted{slog.NewTextHandler(&out, &slog.HandlerOptions{Level: tt.level})}
			if err := h.Handle(t.Context(), slog.NewRecord(time.Now(), slog.LevelError, "oops", 0)); err != nil {
				t.Fatal(err)
			}
			if got := strings.Contains(out.String(), "level=DEBUG msg=oops"); got != tt.printed {
				t.Errorf("printed %q", out.String())
			}
		})
	}
}
