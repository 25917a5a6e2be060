package main

import (
	"context"
	"errors"
	"testing"
)

func TestRunService(t *testing.T) {
	failed := errors.New("played to fail")
	tests := []struct {
		name string
		run  func(ctx context.Context, stop func()) error
		want error
	}{
		{"it fails by itself", func(context.Context, func()) error { return failed }, failed},
		{"it ends by itself", func(context.Context, func()) error { return nil }, nil},
		{"it is stopped", func(ctx context.Context, stop func()) error {
			stop()
			<-ctx.Done()
			return nil
		}, nil},
		{"it fails when it is stopped", func(ctx context.Context, stop func()) error {
			stop()
			<-ctx.Done()
			return failed
		}, failed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ctx, stop := context.WithCancel(t.Context())
			err := runService(ctx, func(ctx context.Context) error { return tt.run(ctx, stop) })
			if !errors.Is(err, tt.want) {
				t.Errorf("%v; want %v", err, tt.want)
			}
		})
	}
}

// Start does not wait for the program, and Stop does.
func TestRunner(t *testing.T) {
	drained, began := false, make(chan struct{})
	p := newRunner(t.Context(), func(ctx context.Context) error {
		close(began)
		<-ctx.Done()
		drained = true
		return nil
	})
	p.gone = func() { t.Error("it did not go by itself") }
	if err := p.Start(nil); err != nil {
		t.Fatal(err)
	}
	<-began
	if err := p.Stop(nil); err != nil || !drained {
		t.Errorf("%v, drained: %v", err, drained)
	}
}

func TestRunnerThatGoesByItself(t *testing.T) {
	gone := make(chan struct{})
	p := newRunner(t.Context(), func(context.Context) error { return nil })
	p.gone = func() { close(gone) }
	p.Start(nil)
	<-gone
	p.Stop(nil)
}
