// Package testsize says how long tests may take: go test has a short form only.
package testsize

import "os"

// Variable is the environment variable that asks for the full form of tests. CI sets it.
const Variable = "WATERMILL_OTS_FULL_TESTS"

// Full reports whether tests should take their full form: more seeds, more random
// histories, all of Watermill's suite. Without it go test ./... takes a few minutes.
func Full() bool { return os.Getenv(Variable) != "" }
