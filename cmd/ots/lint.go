package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/watermill-ots/watermill-ots/router"
)

// fileFault is a fault of a pipelines file as "ots lint" prints it.
type fileFault struct {
	File   string `json:"file"`
	Line   int    `json:"line"`   // from 1
	Column int    `json:"column"` // from 1
	Path   string `json:"path,omitempty"`
	Text   string `json:"text"`
}

// line is the fault as a line for people.
func (f fileFault) line() string {
	text := f.Text
	if f.Path != "" {
		text = f.Path + ": " + text
	}
	return fmt.Sprintf("%s:%d:%d: %s", f.File, f.Line, f.Column, text)
}

// githubEscapes are what a message of a GitHub workflow command must escape.
var githubEscapes = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A")

// githubProperty are what a property of one must escape.
var githubProperty = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C")

// annotation is the fault as a GitHub workflow command.
func (f fileFault) annotation() string {
	text := f.Text
	if f.Path != "" {
		text = f.Path + ": " + text
	}
	return fmt.Sprintf("::error file=%s,line=%d,col=%d::%s", githubProperty.Replace(f.File), f.Line, f.Column, githubEscapes.Replace(text))
}

// lint returns the faults of a file. The error is that of reading it.
func lint(name string) ([]fileFault, error) {
	_, err := router.Load(name)
	if err == nil {
		return nil, nil
	}
	invalid, ok := errors.AsType[*router.ConfigError](err)
	if !ok {
		return nil, usageError{err}
	}
	var faults []fileFault
	for _, f := range invalid.Faults {
		faults = append(faults, fileFault{name, max(1, f.Line), max(1, f.Column), f.Path, f.Text})
	}
	return faults, nil
}

func newLint() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "lint FILE...",
		Short: "Print all faults of pipelines files",
		Long: `lint prints all faults of pipelines files (docs/config.md), each with its place and with
what to do. Nothing is connected. Environment variables that a file refers to must be set,
or have a default in the file.

The exit code is 1 if there are faults.`,
		Example: `  ots lint pipelines.yaml
  ots lint --format github pipelines/*.yaml
      in a GitHub workflow: annotates the lines of a pull request`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{fmt.Errorf("%s needs a FILE", cmd.CommandPath())}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if format != "text" && format != "json" && format != "github" {
				return usageError{fmt.Errorf("--format is %q; it takes text, json or github", format)}
			}
			all := []fileFault{}
			for _, name := range args {
				faults, err := lint(name)
				if err != nil {
					return err
				}
				all = append(all, faults...)
			}
			if err := printFaults(cmd.OutOrStdout(), format, all); err != nil {
				return err
			}
			if len(all) > 0 {
				return errFailed
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&format, "format", "text", "`FORMAT`: text, json or github")
	completeWith(cmd, "format", "text", "json", "github")
	return cmd
}

// printFaults prints faults in a format.
func printFaults(w io.Writer, format string, faults []fileFault) error {
	if format == "json" {
		return printJSON(w, faults)
	}
	for _, f := range faults {
		line := f.line()
		if format == "github" {
			line = f.annotation()
		}
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	return nil
}

func newSchema() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON schema of pipelines files, for editors",
		Example: `  ots schema > pipelines.schema.json
      then begin a file with: # yaml-language-server: $schema=pipelines.schema.json`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := cmd.OutOrStdout().Write(router.Schema())
			return err
		},
	}
}
