package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/watermill-ots/watermill-ots/internal/emulatorcli"
)

// settings are the values of the flags.
type settings struct {
	*emulatorcli.Settings
	flags   *flag.FlagSet
	version bool
}

// newSettings returns settings with the defaults.
func newSettings() *settings {
	s := &settings{Settings: emulatorcli.New("ots-emulator")}
	s.flags = s.Flags
	s.flags.BoolVar(&s.version, "version", false, "print the version and exit")
	return s
}

// errHelp says that --help was given.
var errHelp = flag.ErrHelp

// oneDash matches flag names as package flag prints them.
var oneDash = regexp.MustCompile(` -([a-z][a-z-]+)`)

// parse reads the flags.
func (s *settings) parse(args []string) error {
	if err := s.flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return errHelp
		}
		text := oneDash.ReplaceAllString(err.Error(), " --$1")
		if strings.Contains(text, "not defined") {
			text += "; the flags are " + strings.Join(s.names(), " ")
		}
		return errors.New(text)
	}
	if s.flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q; all settings are flags", s.flags.Arg(0))
	}
	return s.Check()
}

// names returns the flags as they are written, sorted.
func (s *settings) names() []string {
	var names []string
	s.flags.VisitAll(func(f *flag.Flag) { names = append(names, dashed(f.Name)) })
	return names
}

// dashed is a flag's name with the dashes that help shows.
func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

const (
	purpose = `ots-emulator runs a Tablestore (Aliyun OTS) on this machine: the table API and the
tunnel API, for tests and development without a cloud account.

Usage:
  ots-emulator [flags]

Flags:
`
	examples = `
Examples:
  ots-emulator
      at http://127.0.0.1:8087, in memory, with any instance and credentials
  ots-emulator --data-dir ./data --seed tables.yaml
      keeps everything in ./data, and creates the tables of the file that do not exist yet
  ots-emulator --addr 127.0.0.1:0 --instance test --admin-addr 127.0.0.1:8089
      on a free port, printed on the first line of stdout; inject faults with curl at port 8089

Documentation: https://github.com/watermill-ots/watermill-ots/blob/main/docs/emulator.md
`
)

// writeHelp prints the text of --help.
func (s *settings) writeHelp(w io.Writer) {
	var b strings.Builder
	b.WriteString(purpose)
	s.flags.VisitAll(func(f *flag.Flag) {
		value, usage := flag.UnquoteUsage(f)
		fmt.Fprintf(&b, "%s\n      %s", strings.TrimRight("  "+dashed(f.Name)+" "+value, " "), usage)
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "0" {
			fmt.Fprintf(&b, " (default %s)", f.DefValue)
		}
		b.WriteString("\n")
	})
	b.WriteString(examples)
	io.WriteString(w, b.String()) // a closed pipe needs no help
}

// versionText returns the version of the program and of the Go toolchain that
// built it.
func versionText() string {
	version, commit := "unknown", ""
	if info, ok := debug.ReadBuildInfo(); ok {
		version = info.Main.Version
		for _, setting := range info.Settings {
			switch {
			case setting.Key == "vcs.revision":
				commit = ", commit " + setting.Value
			case setting.Key == "vcs.modified" && setting.Value == "true":
				commit += " with changes"
			}
		}
	}
	return fmt.Sprintf("ots-emulator %s (%s, %s/%s%s)", version, runtime.Version(), runtime.GOOS, runtime.GOARCH, commit)
}
