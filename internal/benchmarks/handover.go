package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// handover is a group of cases that a test measures: package laws measures the
// gaps with the emulator, for our subscriber and the SDK's worker.
const handover = "handover"

// runHandover runs that test with two HeartbeatIntervals and prints its
// measurements.
func runHandover(ctx context.Context) error {
	fmt.Printf("\nHand-over: how long records wait at a split, a rebalance and the switch from base data to the stream\n\n")
	for _, interval := range []string{"5s", "30s"} {
		cmd := exec.CommandContext(ctx, "go", "test", "./internal/laws", "-run", "TestHandover", "-count", "1", "-v", "-timeout", "30m", "-handover.sdk", interval)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			return err
		}
		if err := cmd.Start(); err != nil {
			return err
		}
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if line := lines.Text(); strings.Contains(line, "HeartbeatInterval of") || strings.HasPrefix(strings.TrimSpace(line), "--- ") {
				fmt.Println(line)
			}
		}
		if err := cmd.Wait(); err != nil {
			return fmt.Errorf("go test ./internal/laws -run TestHandover: %w", err)
		}
	}
	return nil
}
