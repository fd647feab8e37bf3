package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// output is the format of standard output.
type output struct{ format string }

// addFlag adds the flag --output.
func (o *output) addFlag(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&o.format, "output", "o", "table", "format of standard output: table or json")
	completeWith(cmd, "output", "table", "json")
}

// check returns a usage error for a format that does not exist.
func (o *output) check() error {
	if o.format != "table" && o.format != "json" {
		return usageError{fmt.Errorf("--output is %q; it takes table or json", o.format)}
	}
	return nil
}

// print prints v as JSON, or the table that the function makes of it.
func (o *output) print(w io.Writer, v any, table func(*tabwriter.Writer)) error {
	if o.format == "json" {
		return printJSON(w, v)
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	table(t)
	return t.Flush()
}

// printJSON prints v as indented JSON.
func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// row prints a row of a table.
func row(t *tabwriter.Writer, cells ...any) {
	for i, cell := range cells {
		if i > 0 {
			fmt.Fprint(t, "\t")
		}
		fmt.Fprint(t, cell)
	}
	fmt.Fprintln(t)
}

// completeWith completes a flag with these values, for shells.
func completeWith(cmd *cobra.Command, flag string, values ...string) {
	if err := cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // there is no such flag: a fault of the program
	}
}

// shownTime returns a time for people, "-" for none.
func shownTime(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}

// shownLag returns a duration for people, "-" for a negative one, which is not known.
func shownLag(d time.Duration) string {
	switch {
	case d < 0:
		return "-"
	case d < 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

// orDash returns a text, "-" if it is empty.
func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

// isTerminal reports whether a stream is a terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// colors returns the colours for a stream: none unless it is a terminal and NO_COLOR is not
// set.
func colors(stream any) palette {
	if !isTerminal(stream) || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return palette{}
	}
	return palette{on: true}
}

// palette colours texts, if it is on.
type palette struct{ on bool }

func (p palette) paint(code, text string) string {
	if !p.on {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (p palette) red(text string) string    { return p.paint("31", text) }
func (p palette) green(text string) string  { return p.paint("32", text) }
func (p palette) yellow(text string) string { return p.paint("33", text) }
func (p palette) dim(text string) string    { return p.paint("2", text) }

// consent asks before something is destroyed.
type consent struct{ yes bool }

// addFlag adds the flag --yes.
func (c *consent) addFlag(cmd *cobra.Command) {
	cmd.Flags().BoolVarP(&c.yes, "yes", "y", false, "do it without asking")
}

// errDeclined ends a command whose question was answered with no.
var errDeclined = errors.New("nothing was changed")

// ask says what will happen, and asks whether to go on unless --yes is given. Without a
// terminal to ask on it refuses.
func (c *consent) ask(cmd *cobra.Command, what string) error {
	if c.yes {
		return nil
	}
	w := cmd.ErrOrStderr()
	fmt.Fprintln(w, what)
	if in, ok := cmd.InOrStdin().(*os.File); ok && !term.IsTerminal(int(in.Fd())) {
		return usageError{errors.New("nothing was changed: there is no terminal to ask on; add --yes to do it without asking")}
	}
	fmt.Fprint(w, "Go on? [y/N] ")
	line, err := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("reading the answer: %w", err)
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return nil
	}
	return errDeclined
}
