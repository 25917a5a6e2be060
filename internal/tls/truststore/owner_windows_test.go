package truststore

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/windows"

	"github.com/tunneld/tunneld/internal/tls/truststore/place"
)

func TestMayAct(t *testing.T) {
	home, err := os.UserHomeDir()
	if err != nil {
		t.Fatal(err)
	}
	if err := (&Stores{Scope: User, Home: home}).mayAct(); err != nil {
		t.Errorf("in this user's home: %v", err)
	}
	var blocked *place.BlockedError
	if err := (&Stores{Scope: User, Home: home + "2"}).mayAct(); !errors.As(err, &blocked) || blocked.Fix == "" {
		t.Errorf("in another user's home: %v; want why not, and what to do", err)
	}
	elevated := windows.GetCurrentProcessToken().IsElevated()
	if err := (&Stores{Scope: Machine}).mayAct(); (err == nil) != elevated {
		t.Errorf("on the machine, elevated %v: %v", elevated, err)
	}
}
