package strictyaml

import (
	"slices"
	"strconv"
	"strings"

	"github.com/watermill-ots/watermill-ots/internal/oneline"
)

// Suggest returns the end of an error text about a name that is not among the known
// ones: the name that was probably meant, or all of them.
func Suggest(name string, known []string, kind string) string {
	if best := nearest(name, known); best != "" {
		return "; did you mean " + strconv.Quote(best) + "?"
	}
	if len(known) == 0 {
		return "; there are no " + kind
	}
	known = sorted(known)
	more := ""
	if len(known) > maxListed {
		more = " and " + strconv.Itoa(len(known)-maxListed) + " more"
		known = known[:maxListed]
	}
	return "; " + kind + " are: " + oneline.Text(strings.Join(known, ", "), maxListed*maxShown) + more
}

const (
	// maxListed bounds the names that an error lists.
	maxListed = 30

	// maxCompared bounds the names that are compared with a wrong one, and
	// maxComparedLen their length, so that a file with thousands of wrong names is
	// read quickly too.
	maxCompared    = 300
	maxComparedLen = 64
)

// nearest returns the known name that differs from name by few typing errors, or "".
func nearest(name string, known []string) string {
	if len(name) > maxComparedLen || len(known) > maxCompared {
		return ""
	}
	best, least := "", max(1, len(name)/3)+1
	for _, k := range sorted(known) {
		if len(k)-len(name) >= least || len(name)-len(k) >= least {
			continue // too many letters are missing
		}
		if d := distance(strings.ToLower(name), strings.ToLower(k)); d < least {
			best, least = k, d
		}
	}
	return best
}

// sorted returns all in order: all itself if it is sorted already.
func sorted(all []string) []string {
	if slices.IsSorted(all) {
		return all
	}
	return slices.Sorted(slices.Values(all))
}

// maxShown bounds the bytes of a value that an error shows.
const maxShown = 100

// shorten returns the beginning of a value, to be quoted in an error.
func shorten(text string) string {
	if len(text) <= maxShown {
		return text
	}
	return strings.ToValidUTF8(text[:maxShown], "") + "…"
}

// distance counts the letters to insert, delete, replace or swap with their
// neighbour to turn a into b (optimal string alignment).
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
