package main

import (
	"net"
	"os"
	"runtime"
	"testing"
)

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
