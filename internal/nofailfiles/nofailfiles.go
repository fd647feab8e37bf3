// Package nofailfiles keeps rapid from writing files of failed runs to testdata.
// Such a file makes every later run fail until it is deleted. The seed that a failed
// run prints is enough to reproduce it (-rapid.seed).
//
// Tests import the package for its side effect.
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
