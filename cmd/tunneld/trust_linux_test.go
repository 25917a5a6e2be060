package main

import (
	"bufio"
	"flag"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/tunneld/tunneld/internal/await"
	"github.com/tunneld/tunneld/internal/invoker"
)

// TestAsInstallation has tunnelctl, which is its argument, trust something.
func TestAsInstallation(t *testing.T) {
	if os.Getenv("TUNNELD_TEST_TRUST") != "" {
		t.Log(trust{who: invoker.User{UID: "0"}, client: flag.Arg(0), out: os.Stdout}.tunnelctl(t.Context()))
	}
}

// Of an installation that is killed, nothing goes on to add what its removal takes out.
func TestTrustEndsWithInstallation(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	client := t.TempDir() + "/tunnelctl"
	if err := os.WriteFile(client, []byte("#!/bin/sh\necho pid $$\nexec sleep 1000\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run", "^TestAsInstallation$", "--", client)
	cmd.Env = append(os.Environ(), "TUNNELD_TEST_TRUST=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := 0
	for lines := bufio.NewScanner(out); pid == 0 && lines.Scan(); {
		text, _ := strings.CutPrefix(lines.Text(), "pid ")
		pid, _ = strconv.Atoi(text)
	}
	if pid == 0 {
		t.Fatal("tunnelctl was not run")
	}
	cmd.Process.Kill()
	cmd.Wait()
	defer syscall.Kill(pid, syscall.SIGKILL)
	await.Until(t, "tunnelctl to end", func() bool {
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		return err != nil || strings.Contains(string(stat), ") Z ") // which nobody has waited for
	})
}
