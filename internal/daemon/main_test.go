package daemon

import (
	"testing"

	"github.com/tunneld/tunneld/internal/demo"
	"github.com/tunneld/tunneld/internal/leakcheck"
)

func TestMain(m *testing.M) {
	demo.RedirectKlog(nil)
	leakcheck.Main(m)
}
