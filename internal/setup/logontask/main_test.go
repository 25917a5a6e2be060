package logontask

import (
	"testing"

	"github.com/tunneld/tunneld/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }
