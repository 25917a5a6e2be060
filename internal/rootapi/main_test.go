//go:build unix

package rootapi

import (
	"os"
	"testing"

	"github.com/tunneld/tunneld/internal/leakcheck"
)

func TestMain(m *testing.M) {
	if socket := os.Getenv(asClient); socket != "" {
		os.Exit(client(socket))
	}
	leakcheck.Main(m)
}
