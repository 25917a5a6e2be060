package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTable(t *testing.T) {
	// Three rounds each; what is missing was not measured.
	rounds := func(v ...float64) []values {
		var all []values
		for _, x := range v {
			all = append(all, values{"": x})
		}
		return all
	}
	none := []values{nil, nil, nil}
	for _, tt := range []struct {
		name             string
		bar              bar
		kubectl, tunneld []values
		want             string
	}{
		{"higher is better, met", ratioAtLeast(1.3), rounds(100, 90, 300), rounds(130, 1, 500), "| x | 100 | 130 | 1.30 | ≥ 1.3 | yes |"},
		{"higher is better, missed", ratioAtLeast(1.3), rounds(100, 100, 100), rounds(129, 129, 129), "| x | 100 | 129 | 1.29 | ≥ 1.3 | no |"},
		{"lower is better, met", ratioAtMost(0.5), rounds(4, 4, 4), rounds(2, 2, 2), "| x | 4 | 2 | 0.50 | ≤ 0.5 | yes |"},
		{"lower is better, missed", ratioAtMost(0.5), rounds(4, 4, 4), rounds(2.2, 2.2, 2.2), "| x | 4 | 2.2 | 0.55 | ≤ 0.5 | no |"},
		{"of tunneld alone, met", atMost(60, ""), none, rounds(60, 60, 60), "| x | - | 60 | - | ≤ 60 | yes |"},
		{"of tunneld alone, missed", atLeast(5, ""), rounds(0, 0, 0), rounds(4, 4, 4), "| x | 0 | 4 | - | ≥ 5 | no |"},
		{"no bar", bar{}, rounds(2, 2, 2), rounds(1, 1, 1), "| x | 2 | 1 | 0.50 | | |"},
		{"a round is missing", ratioAtLeast(1), []values{{"": 1}, nil, {"": 1}}, rounds(3, 3, 3), "| x | 1 | 3 | 3.00 | ≥ 1 | yes |"},
		{"no kubectl", ratioAtLeast(1), none, rounds(3, 3, 3), "| x | - | 3 | - | ≥ 1 | not measured |"},
		{"no tunneld", atMost(1, ""), rounds(1, 1, 1), none, "| x | 1 | - | - | ≤ 1 | not measured |"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			m := []measurement{{name: "x", lines: []line{{"", "", tt.bar}}}}
			err := table(&out, m, []rival{&kubectl{}, &tunneld{}}, [][][]values{{tt.kubectl, tt.tunneld}})
			if err != nil {
				t.Fatal(err)
			}
			row := strings.Join(strings.Fields(strings.Split(out.String(), "\n")[3]), " ")
			if diff := cmp.Diff(tt.want, row); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// A name is what -only chooses by, and a line's what a value is found by.
func TestMeasurementsAreDistinct(t *testing.T) {
	seen := map[string]bool{}
	for _, m := range measurements() {
		for _, l := range m.lines {
			if key := m.name + ": " + l.name; seen[key] {
				t.Errorf("%s is there twice", key)
			} else {
				seen[key] = true
			}
		}
	}
}
