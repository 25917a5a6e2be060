package main

import (
	"os"
	"runtime/debug"
	"syscall"
	"testing"
)

func TestProc(t *testing.T) {
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

	debug.FreeOSMemory() // not meanwhile
	memory, err := residentSet(pid)
	if err != nil {
		t.Fatal(err)
	}
	// Not of the heap, which may take what other tests have left.
	held, err := syscall.Mmap(-1, 0, 64<<20, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Munmap(held)
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
}
