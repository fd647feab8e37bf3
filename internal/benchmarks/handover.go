package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// handover is the group of cases that has a test of its own: package laws
// measures the gaps against the emulator, ours and the SDK's worker side by side.
const handover = "handover"

// runHandover runs that test at two HeartbeatIntervals and prints what it measured.
func runHandover(ctx context.Context) error {
	fmt.Printf("\nHand-over: what a split, a rebalance and the switch from base data to the stream keep waiting\n\n")
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
