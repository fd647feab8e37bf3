package router

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// suggest ends an error text about a name that is not among known ones: with
// the one that was probably meant, or with all of them.
func suggest(name string, known []string, kind string) string {
	if best := nearest(name, known); best != "" {
		return "; did you mean " + strconv.Quote(best) + "?"
	}
	if len(known) == 0 {
		return "; there are no " + kind
	}
	known = slices.Sorted(slices.Values(known))
	return "; " + kind + " are: " + strings.Join(known, ", ")
}

// nearest returns the known name that is few typing errors away from name, or "".
func nearest(name string, known []string) string {
	best, least := "", max(1, len(name)/3)+1
	for _, k := range slices.Sorted(slices.Values(known)) {
		if d := distance(strings.ToLower(name), strings.ToLower(k)); d < least {
			best, least = k, d
		}
	}
	return best
}

// distance counts the letters to insert, delete, replace or swap with their
// neighbour to make b of a (optimal string alignment).
func distance(a, b string) int {
	before, above, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range above {
		above[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			replace := 1
			if a[i-1] == b[j-1] {
				replace = 0
			}
			row[j] = min(above[j]+1, row[j-1]+1, above[j-1]+replace)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, above, row = above, row, before
	}
	return above[len(b)]
}

// names returns the keys of m.
func names[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
