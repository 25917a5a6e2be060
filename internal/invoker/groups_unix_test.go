//go:build unix

package invoker

import (
	"slices"
	"testing"
)

func TestAtMost(t *testing.T) {
	all := []uint32{20, 12, 61, 80}
	for n, want := range map[int][]uint32{0: {}, 3: {20, 12, 61}, 4: all, 16: all} {
		if got := atMost(n, all); !slices.Equal(got, want) {
			t.Errorf("at most %d: %v; want %v", n, got, want)
		}
	}
}
