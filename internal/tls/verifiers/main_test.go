package verifiers

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"log"
	"os"
	"testing"

	"github.com/tunneld/tunneld/internal/leakcheck"
)

// TestMain is another program, too, for a test that needs a Go which has not yet
// read the system's roots: see goAlone.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "ask-go" {
		askGo(os.Args[2])
		return
	}
	leakcheck.Main(m)
}

// askGo prints what Go makes of the certificate in a file.
func askGo(file string) {
	cert, err := tls.LoadX509KeyPair(file, file)
	if err != nil {
		log.Fatal(err)
	}
	results, err := (&Checker{Only: []string{"Go"}, limits: patient}).Check(context.Background(), cert)
	if err != nil {
		log.Fatal(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(results); err != nil {
		log.Fatal(err)
	}
}
