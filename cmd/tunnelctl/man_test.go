package main

import (
	"testing"

	"github.com/tunneld/tunneld/internal/localapi"
	"github.com/tunneld/tunneld/internal/manpages"
)

func TestManualPages(t *testing.T) {
	manpages.Check(t, newRoot(&ui{}, &localapi.Client{}), "../../packaging/man")
}
