package truststore

import (
	"os"
	"testing"

	"github.com/tunneld/tunneld/internal/leakcheck"
)

func TestMain(m *testing.M) {
	if killed := os.Getenv(killVariable); killed != "" {
		os.Exit(actAndDie(killed))
	}
	leakcheck.Main(m)
}
