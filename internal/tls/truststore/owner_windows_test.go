package truststore

import (
	"os"
	"testing"

	"golang.org/x/sys/windows"
)

func TestMayAct(t *testing.T) {
	home, err := os.UserHomeDir()
	if err != nil {
		t.Fatal(err)
	}
	if blocked := (&Stores{Scope: User, Home: home}).mayAct(); blocked != nil {
		t.Errorf("in this user's home: %v", blocked)
	}
	if blocked := (&Stores{Scope: User, Home: home + "2"}).mayAct(); blocked == nil || blocked.fix == "" {
		t.Errorf("in another user's home: %v; want why not, and what to do", blocked)
	}
	elevated := windows.GetCurrentProcessToken().IsElevated()
	if blocked := (&Stores{Scope: Machine}).mayAct(); (blocked == nil) != elevated {
		t.Errorf("on the machine, elevated %v: %v", elevated, blocked)
	}
}
