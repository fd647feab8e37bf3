// Package nofailfiles keeps rapid from writing files of failed runs to testdata.
// Such a file makes each later run fail until it is deleted; the seed that
// a failed run prints reproduces it as well (-rapid.seed).
//
// Tests import it for its effect.
package nofailfiles

import (
	"flag"

	_ "pgregory.net/rapid" // registers the flag before init sets it
)

func init() {
	if err := flag.Set("rapid.nofailfile", "true"); err != nil {
		panic(err)
	}
}
