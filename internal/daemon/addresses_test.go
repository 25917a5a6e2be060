package daemon

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAssign(t *testing.T) {
	small := netip.MustParsePrefix("127.77.0.0/28")
	ip := func(last int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf("127.77.0.%d", last)) }
	var sixteen []string
	for i := range 16 {
		sixteen = append(sixteen, fmt.Sprint("n", i))
	}

	t.Run("an address of its own for each", func(t *testing.T) {
		got := assign(sixteen, small, nil)
		seen := make(map[netip.Addr]string)
		for name, a := range got {
			if other, twice := seen[a]; twice {
				t.Errorf("%s and %s share %v", name, other, a)
			}
			if seen[a] = name; !small.Contains(a) || a == ip(0) {
				t.Errorf("%s has %v", name, a)
			}
		}
		if len(got) != 15 { // all but 127.77.0.0
			t.Errorf("%d of 15 possible addresses were assigned", len(got))
		}
	})
	t.Run("the same one for ever", func(t *testing.T) {
		known := map[string]netip.Addr{"b": ip(9)}
		first := assign([]string{"a", "b", "c"}, small, known)
		if first["b"] != ip(9) {
			t.Errorf("b moved from %v to %v", ip(9), first["b"])
		}
		again := assign([]string{"z", "c", "b", "a"}, small, first)
		delete(again, "z")
		if diff := cmp.Diff(first, again, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Errorf("others came and they moved (-first +again):\n%s", diff)
		}
	})
	t.Run("likely the same one after it was forgotten", func(t *testing.T) {
		wide := netip.MustParsePrefix("127.77.0.0/16")
		if a, b := assign([]string{"x", "task-api"}, wide, nil), assign([]string{"task-api"}, wide, nil); a["task-api"] != b["task-api"] {
			t.Errorf("%v, then %v", a["task-api"], b["task-api"])
		}
	})
	t.Run("another range", func(t *testing.T) {
		elsewhere := netip.MustParsePrefix("127.99.0.0/24")
		if a := assign([]string{"a"}, elsewhere, map[string]netip.Addr{"a": ip(3)})["a"]; !elsewhere.Contains(a) {
			t.Errorf("%v is not in %v", a, elsewhere)
		}
	})
	t.Run("one address claimed twice", func(t *testing.T) {
		got := assign([]string{"a", "b"}, small, map[string]netip.Addr{"a": ip(5), "b": ip(5)})
		if got["a"] != ip(5) || got["b"] == ip(5) || !got["b"].IsValid() {
			t.Errorf("%v; want a to keep it, and another one for b", got)
		}
	})
}
