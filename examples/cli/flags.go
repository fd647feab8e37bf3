// Package cli reads the flags of the examples.
package cli

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

// ParseFlags is flag.Parse with help on stdout, where a pipe finds what was asked for.
// What is wrong with the flags is on stderr.
func ParseFlags() {
	var text bytes.Buffer
	flag.CommandLine.Init(os.Args[0], flag.ContinueOnError)
	flag.CommandLine.SetOutput(&text)
	flag.Usage = func() {
		fmt.Fprintf(&text, "Usage of %s:\n", filepath.Base(os.Args[0]))
		flag.PrintDefaults()
	}
	switch err := flag.CommandLine.Parse(os.Args[1:]); {
	case errors.Is(err, flag.ErrHelp):
		_, _ = os.Stdout.Write(text.Bytes()) // a closed pipe needs no help
		os.Exit(0)
	case err != nil:
		_, _ = os.Stderr.Write(text.Bytes()) // the exit status says it, too
		os.Exit(2)
	}
}
