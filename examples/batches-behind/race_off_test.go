//go:build !race

package behind_test

const raceEnabled = false
