package main

import (
	"testing"

	"github.com/spf13/cobra"
)

// commandPaths returns the words of every command.
func commandPaths(t *testing.T, cmd *cobra.Command, at []string) (paths [][]string) {
	t.Helper()
	paths = append(paths, at)
	for _, sub := range cmd.Commands() {
		paths = append(paths, commandPaths(t, sub, append(append([]string(nil), at...), sub.Name()))...)
	}
	return paths
}
