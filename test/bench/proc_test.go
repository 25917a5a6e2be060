package main

import (
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"testing"
)

func TestProc(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("it reads /proc")
	}
	pid := os.Getpid()
	before, err := cpuTime(pid)
	if err != nil {
		t.Fatal(err)
	}
	for block := make([]byte, 1<<20); ; { // it would go on for ever if nothing were counted
		after, err := cpuTime(pid)
		if err != nil {
			t.Fatal(err)
		}
		if after > before {
			break
		}
		for i := range block {
			block[i]++
		}
	}

	debug.FreeOSMemory() // or what follows may take what other tests have left
	memory, err := residentSet(pid)
	if err != nil {
		t.Fatal(err)
	}
	held := make([]byte, 64<<20)
	for i := 0; i < len(held); i += 4 << 10 {
		held[i] = 1
	}
	more, err := residentSet(pid)
	if err != nil {
		t.Fatal(err)
	}
	if more-memory < 48<<20 {
		t.Errorf("memory went from %d to %d with 64 MiB more", memory, more)
	}
	runtime.KeepAlive(held)
}

func TestConnectionsTo(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("it reads /proc")
	}
	addr := echoServer(t)
	a, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	count := func(pid int) int {
		n, err := connectionsTo(pid, uint16(a.Port))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := count(os.Getpid()); n != 0 {
		t.Errorf("%d connections before there was one", n)
	}
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if n := count(os.Getpid()); n != 1 {
		t.Errorf("%d connections; want 1", n)
	}
	if n := count(os.Getppid()); n != 0 {
		t.Errorf("%d connections of another process", n)
	}
}
