package system

import (
	"testing"

	"github.com/tunneld/tunneld/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

func TestLinkName(t *testing.T) {
	for file, want := range map[string]string{
		"tunneld-0123.crt":       "tunneld-0123.pem",
		"my (own) ca, other.crt": "my_=own=_ca__other.pem",
		"below/my ca.crt":        "my_ca.pem",
		"a.crt.crt":              "a.crt.pem",
		"a.pem":                  "a.pem.pem",
	} {
		if got := linkName(file); got != want {
			t.Errorf("%s: %s; want %s", file, got, want)
		}
	}
}
