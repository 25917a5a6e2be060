package main

import (
	"io"
	"testing"

	"github.com/tunneld/tunneld/internal/manpages"
)

func TestManualPages(t *testing.T) {
	manpages.Check(t, newRoot(io.Discard, io.Discard), "../../packaging/man")
}
