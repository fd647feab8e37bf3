//go:build race

package behind_test

const raceEnabled = true
