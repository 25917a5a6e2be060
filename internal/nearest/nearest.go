// Package nearest finds what somebody probably meant to type.
package nearest

import (
	"slices"
	"strings"
)

// To returns the candidates that are spelt like word, the closest first and
// at most n of them: those a few edits away, or of which word is a part.
func To(word string, candidates []string, n int) []string {
	type scored struct {
		name  string
		score int
	}
	var near []scored
	for _, c := range candidates {
		d := distance(strings.ToLower(word), strings.ToLower(c))
		switch {
		case d <= 1+len(word)/4:
			near = append(near, scored{c, d})
		case len(word) >= 3 && (strings.Contains(c, word) || len(c) >= 3 && strings.Contains(word, c)):
			near = append(near, scored{c, 100 + d})
		}
	}
	slices.SortStableFunc(near, func(a, b scored) int { return a.score - b.score })
	names := make([]string, 0, n)
	for _, s := range near[:min(n, len(near))] {
		names = append(names, s.name)
	}
	return names
}

// distance is the number of bytes to insert, delete, replace, or swap with
// their neighbour to make b of a (optimal string alignment).
func distance(a, b string) int {
	rows := [3][]int{make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)}
	for j := range rows[1] {
		rows[1][j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, row := rows[0], rows[1], rows[2]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := last[j-1]
			if a[i-1] != b[j-1] {
				change++
			}
			row[j] = min(last[j]+1, row[j-1]+1, change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		rows = [3][]int{last, row, before}
	}
	return rows[1][len(b)]
}
