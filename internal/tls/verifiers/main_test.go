package verifiers

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/tunneld/tunneld/internal/leakcheck"
)

// TestMain is a Go program that calls Get, too, as Checker.Self is.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "get" {
		if err := Get(context.Background(), os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	leakcheck.Main(m)
}
