//go:build !race

package pubsubtest

// suppressRaces does nothing: there is no race detector.
func suppressRaces() error { return nil }
