// Command testlog reads what "go test -json" writes and shows what "go test"
// would have shown. It appends the tests that were skipped to a file, one line
// each with the reason, so that CI can list them without running a test twice:
//
//	go test -json ./... | go run .ci/testlog/main.go skips.txt
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

// event is a line of "go test -json"; see "go doc test2json".
type event struct{ Action, Package, Test, Output string }

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "testlog:", err)
		os.Exit(1)
	}
}

func run(file string) error {
	skips, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer skips.Close()
	written := make(map[[2]string][]string) // what tests wrote that have not ended
	lines := bufio.NewReader(os.Stdin)
	for {
		line, readErr := lines.ReadString('\n')
		var e event
		if !strings.HasPrefix(line, "{") || json.Unmarshal([]byte(line), &e) != nil {
			fmt.Print(line) // of the go command itself
		}
		test := [2]string{e.Package, e.Test}
		switch {
		case e.Action == "build-output", e.Action == "output" && e.Test == "" && e.Output != "PASS\n":
			fmt.Print(e.Output)
		case e.Action == "output":
			written[test] = append(written[test], e.Output)
		case e.Action == "fail" && e.Test != "":
			fmt.Print(strings.Join(written[test], ""))
			delete(written, test)
		case e.Action == "skip" && e.Test != "":
			if _, err := fmt.Fprintf(skips, "%s %s: %s\n", e.Package, e.Test, reason(written[test])); err != nil {
				return err
			}
			delete(written, test)
		case e.Action == "fail": // the package: a panic ends it and no test
			for _, output := range ended(written, e.Package) {
				fmt.Print(output)
			}
		case e.Action == "pass":
			delete(written, test)
		}
		if readErr != nil {
			return nil
		}
	}
}

// ended takes out what tests of a package wrote that did not say how they ended.
func ended(written map[[2]string][]string, pkg string) (outputs []string) {
	for test, w := range written {
		if test[0] == pkg {
			outputs = append(outputs, strings.Join(w, ""))
			delete(written, test)
		}
	}
	return outputs
}

// reason is what a skipped test said, without the lines of package testing.
func reason(written []string) string {
	var said []string
	for _, w := range written {
		if w = strings.TrimSpace(w); w != "" && !strings.HasPrefix(w, "===") && !strings.HasPrefix(w, "---") {
			said = append(said, w)
		}
	}
	if len(said) == 0 {
		return "no reason"
	}
	return strings.Join(said, " ")
}
