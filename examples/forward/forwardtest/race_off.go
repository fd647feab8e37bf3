//go:build !race

package forwardtest

// raceEnabled reports whether the race detector is on, under which some
// brokers' clients fail.
const raceEnabled = false
