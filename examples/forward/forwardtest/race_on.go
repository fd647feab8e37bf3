//go:build race

package forwardtest

// raceEnabled is whether the race detector is on, which a broker's client may not pass.
const raceEnabled = true
