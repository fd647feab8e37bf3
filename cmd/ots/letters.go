package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/spf13/cobra"

	"github.com/watermill-ots/watermill-ots/internal/letters"
	"github.com/watermill-ots/watermill-ots/internal/service"
)

// newLetters returns the command letters.
func newLetters() *cobra.Command {
	cmd := group("letters", "List, show and delete the dead letters of a table")
	cmd.AddCommand(newLettersList(), newLettersShow(), newLettersPurge())
	return cmd
}

// letterSelection says which letters of a table are meant.
type letterSelection struct {
	connection
	pipeline, id, errorText string
	keys, types             []string
	since, before           string

	keyTexts []string  // of keys
	from, to time.Time // of since and before; zero: no bound
}

// addFlags adds the flags of a selection.
func (s *letterSelection) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&s.pipeline, "pipeline", "", "only letters of this pipeline (`NAME` in its pipelines file)")
	f.StringVar(&s.id, "id", "", "only the letter with this `ID`, as list shows it")
	f.StringArrayVar(&s.keys, "key", nil, "only letters of the record with this primary `KEY`, such as 7, u1 or '[\"u1\",7]'; repeat it for more")
	f.StringArrayVar(&s.types, "type", nil, "only letters of these changes: put, update or delete; repeat it for more")
	f.StringVar(&s.errorText, "error", "", "only letters whose error contains this `TEXT`")
	f.StringVar(&s.since, "since", "", "only letters that failed since this `TIME`, or since a duration ago such as 1h")
	f.StringVar(&s.before, "before", "", "only letters that failed before this `TIME`, or before a duration ago such as 24h")
	completeWith(cmd, "type", "put", "update", "delete")
	s.connection.addFlags(cmd)
}

// selects reports whether any flag narrows the selection.
func (s *letterSelection) selects() bool {
	return s.pipeline != "" || s.id != "" || s.errorText != "" || len(s.keys)+len(s.types) > 0 || s.since != "" || s.before != ""
}

// check reads the flags.
func (s *letterSelection) check(now time.Time) error {
	for _, key := range s.keys {
		texts, err := keyText(key)
		if err != nil {
			return err
		}
		s.keyTexts = append(s.keyTexts, texts...)
	}
	for _, typ := range s.types {
		if typ != "put" && typ != "update" && typ != "delete" {
			return usageError{fmt.Errorf("--type is %q; it takes put, update or delete", typ)}
		}
	}
	var err error
	if s.from, err = pointInTime("--since", s.since, now); err != nil {
		return err
	}
	s.to, err = pointInTime("--before", s.before, now)
	return err
}

// pointInTime reads a time, or a duration ago. An empty text is the zero time.
func pointInTime(flag, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at, nil
	}
	ago, err := time.ParseDuration(text)
	if err != nil || ago <= 0 {
		return time.Time{}, usageError{fmt.Errorf("%s is %q; it takes a time such as 2026-01-31T00:00:00Z, or a duration ago such as 1h", flag, text)}
	}
	return now.Add(-ago), nil
}

// matches reports whether a row is selected. Rows that are not letters are selected only by
// flags that they can fulfil.
func (s *letterSelection) matches(row *letters.Stored) bool {
	l := row.Letter()
	switch {
	case s.id != "" && row.Row() != s.id,
		s.errorText != "" && !strings.Contains(l.Error, s.errorText),
		len(s.keyTexts) > 0 && !slices.Contains(s.keyTexts, l.Key),
		len(s.types) > 0 && !slices.Contains(s.types, l.Type),
		!s.from.IsZero() && l.FailedAt.Before(s.from),
		!s.to.IsZero() && !l.FailedAt.Before(s.to):
		return false
	}
	return true
}

// open checks the flags and the table, and returns it.
func (s *letterSelection) open(cmd *cobra.Command, name string) (*letters.Table, *instance, error) {
	if err := s.check(time.Now()); err != nil {
		return nil, nil, err
	}
	if err := checkTable("the argument", name); err != nil {
		return nil, nil, err
	}
	in, err := s.connection.open(cmd)
	if err != nil {
		return nil, nil, err
	}
	table := letters.NewTable(*in.tables, name, watermill.NopLogger{})
	if err := table.Check(cmd.Context()); err != nil {
		in.close()
		if service.HasCode(err, service.CodeObjectNotExist) || errors.Is(err, letters.ErrTable) {
			return nil, nil, err
		}
		return nil, nil, in.advise(err)
	}
	return table, in, nil
}

// each calls f for each selected row.
func (s *letterSelection) each(ctx context.Context, table *letters.Table, f func(*letters.Stored) error) error {
	pipelines := []string{s.pipeline}
	if s.pipeline == "" {
		var err error
		if pipelines, err = table.Pipelines(ctx); err != nil {
			return err
		}
	}
	for _, name := range pipelines {
		err := table.Each(ctx, name, func(row *letters.Stored) error {
			if !s.matches(row) {
				return nil
			}
			return f(row)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// letterView is a letter as "ots letters list" shows it.
type letterView struct {
	Pipeline string    `json:"pipeline"`
	ID       string    `json:"id"`
	Table    string    `json:"table"`
	Tunnel   string    `json:"tunnel"`
	Key      string    `json:"key"`
	Type     string    `json:"type"`
	Sequence string    `json:"sequence,omitempty"`
	FailedAt time.Time `json:"failed_at"`
	Attempts int       `json:"attempts"`
	Error    string    `json:"error"`
	Bytes    int       `json:"bytes"`
	Claimed  bool      `json:"claimed"`         // a Replay works on it
	Fault    string    `json:"fault,omitempty"` // why it is not a letter that can be read
}

// viewOfLetter returns what list shows of a row.
func viewOfLetter(row *letters.Stored) letterView {
	l := row.Letter()
	v := letterView{
		Pipeline: l.Pipeline, ID: row.Row(), Table: l.Table, Tunnel: l.Tunnel, Key: l.Key, Type: l.Type, Sequence: l.Sequence,
		FailedAt: l.FailedAt, Attempts: l.Attempts, Error: l.Error, Bytes: row.Bytes(), Claimed: row.Claimed(),
	}
	if err := row.Fault(); err != nil {
		v.Fault = err.Error()
	}
	return v
}

func newLettersList() *cobra.Command {
	var s letterSelection
	var out output
	cmd := &cobra.Command{
		Use:   "list TABLE",
		Short: "List dead letters",
		Long: `list lists the letters of a dead-letter table (failure.dead_letter.table in a pipelines
file), by pipeline and in the order of their changes.`,
		Example: `  ots letters list dead_letters
  ots letters list dead_letters --pipeline orders --since 1h --error timeout -o json`,
		Args: oneArgument("the name of a dead-letter TABLE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := out.check(); err != nil {
				return err
			}
			table, in, err := s.open(cmd, args[0])
			if err != nil {
				return err
			}
			defer in.close()
			views := []letterView{}
			if err := s.each(cmd.Context(), table, func(row *letters.Stored) error {
				views = append(views, viewOfLetter(row))
				return nil
			}); err != nil {
				return err
			}
			return out.print(cmd.OutOrStdout(), views, func(t *tabwriter.Writer) {
				row(t, "PIPELINE", "FAILED", "TYPE", "KEY", "ATTEMPTS", "ID", "ERROR")
				for _, v := range views {
					text := oneLine(v.Error, 80)
					switch {
					case v.Fault != "":
						text = "NOT A LETTER: " + oneLine(v.Fault, 80)
					case v.Claimed:
						text = "(being replayed) " + text
					}
					row(t, v.Pipeline, shownTime(v.FailedAt), orDash(v.Type), orDash(v.Key), v.Attempts, v.ID, text)
				}
			})
		},
	}
	s.addFlags(cmd)
	out.addFlag(cmd)
	return cmd
}

// oneLine returns the beginning of a text on one line.
func oneLine(text string, most int) string {
	text = strings.Join(strings.Fields(text), " ")
	if len(text) <= most {
		return text
	}
	for most > 0 && !utf8.RuneStart(text[most]) {
		most--
	}
	return text[:most] + "…"
}

func newLettersShow() *cobra.Command {
	var s letterSelection
	var out output
	cmd := &cobra.Command{
		Use:   "show TABLE",
		Short: "Show dead letters whole: error, metadata and payload",
		Long: `show shows letters whole. With -o json it prints the form in which letters are published,
with the typed record, which router.ParseDeadLetter reads.`,
		Example: `  ots letters show dead_letters --id 5f3c…
  ots letters show dead_letters --pipeline orders --key 7 -o json`,
		Args: oneArgument("the name of a dead-letter TABLE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := out.check(); err != nil {
				return err
			}
			if !s.selects() {
				return usageError{errors.New("no letter is selected: give --id, --key or another flag that says which, see ots letters list")}
			}
			table, in, err := s.open(cmd, args[0])
			if err != nil {
				return err
			}
			defer in.close()
			w := cmd.OutOrStdout()
			shown := 0
			err = s.each(cmd.Context(), table, func(row *letters.Stored) error {
				if row.Fault() != nil {
					return nil // list shows it
				}
				if err := table.Load(cmd.Context(), row); err != nil {
					return err
				}
				shown++
				if out.format == "json" {
					return printJSON(w, row.Letter())
				}
				if shown > 1 {
					fmt.Fprintln(w)
				}
				return printLetter(w, row)
			})
			if err == nil && shown == 0 {
				fmt.Fprintln(cmd.ErrOrStderr(), "No letter is selected by these flags.")
				return errFailed
			}
			return err
		},
	}
	s.addFlags(cmd)
	out.addFlag(cmd)
	return cmd
}

// printLetter prints a letter for people.
func printLetter(w io.Writer, row *letters.Stored) error {
	l := row.Letter()
	payload := "(not text) " + fmt.Sprint(len(l.Payload)) + " bytes; -o json has them in base64"
	if utf8.Valid(l.Payload) {
		payload = string(l.Payload)
	}
	claimed := ""
	if row.Claimed() {
		claimed = " (being replayed)"
	}
	if _, err := fmt.Fprintf(w, "Letter     %s%s\nPipeline   %s\nTunnel     %s/%s, channel %s\nChange     %s of %s, sequence %s\nFailed     %s, after %d attempts\nError      %s\n",
		row.Row(), claimed, l.Pipeline, l.Table, l.Tunnel, l.Channel, l.Type, l.Key, orDash(l.Sequence), shownTime(l.FailedAt), l.Attempts, strings.ReplaceAll(l.Error, "\n", "\n           ")); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(l.Metadata)) {
		if _, err := fmt.Fprintf(w, "Metadata   %s: %s\n", name, l.Metadata[name]); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "Payload    %s\n", payload)
	return err
}

func newLettersPurge() *cobra.Command {
	var s letterSelection
	var ask consent
	var dryRun, all bool
	cmd := &cobra.Command{
		Use:   "purge TABLE",
		Short: "Delete dead letters for good",
		Long: `purge deletes the selected letters for good: their changes are then handled nowhere. A
letter that a Replay works on, or that is written again meanwhile, stays. So do rows that
are not letters.`,
		Example: `  ots letters purge dead_letters --before 720h --dry-run
      says how many letters failed more than 30 days ago
  ots letters purge dead_letters --pipeline orders --error "no such column" --yes`,
		Args: oneArgument("the name of a dead-letter TABLE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case !s.selects() && !all:
				return usageError{errors.New("no letter is selected: give --pipeline, --before or another flag that says which, or --all")}
			case s.selects() && all:
				return usageError{errors.New("--all selects every letter, so the other flags have no effect: leave --all or them out")}
			}
			table, in, err := s.open(cmd, args[0])
			if err != nil {
				return err
			}
			defer in.close()
			var selected []*letters.Stored
			foreign := 0
			if err := s.each(cmd.Context(), table, func(row *letters.Stored) error {
				if row.Fault() != nil {
					foreign++
					return nil
				}
				selected = append(selected, row)
				return nil
			}); err != nil {
				return err
			}
			w := cmd.OutOrStdout()
			if foreign > 0 {
				fmt.Fprintf(cmd.ErrOrStderr(), "%d rows are not letters that can be read; they stay.\n", foreign)
			}
			if dryRun || len(selected) == 0 {
				_, err := fmt.Fprintf(w, "%s selected; nothing was deleted.\n", count(len(selected), "letter is", "letters are"))
				return err
			}
			if err := ask.ask(cmd, fmt.Sprintf("This deletes %s of the table %s of instance %s for good.", count(len(selected), "letter", "letters"), args[0], in.instance())); err != nil {
				return err
			}
			return purge(cmd, table, selected)
		},
	}
	s.addFlags(cmd)
	ask.addFlag(cmd)
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say how many letters are selected, and delete none")
	cmd.Flags().BoolVar(&all, "all", false, "select every letter of the table")
	return cmd
}

// count returns a number with its noun.
func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// purge deletes letters, with a progress bar on a terminal.
func purge(cmd *cobra.Command, table *letters.Table, selected []*letters.Stored) error {
	bar := newProgress(cmd.ErrOrStderr(), len(selected))
	deleted, stayed := 0, 0
	err := table.Purge(cmd.Context(), selected, func(_ *letters.Stored, ok bool) {
		if ok {
			deleted++
		} else {
			stayed++
		}
		bar.step()
	})
	bar.end()
	text := fmt.Sprintf("Deleted %s.", count(deleted, "letter", "letters"))
	if stayed > 0 {
		text += fmt.Sprintf(" %s: being replayed, or written again meanwhile.", count(stayed, "stays", "stay"))
	}
	_, printing := fmt.Fprintln(cmd.OutOrStdout(), text)
	return errors.Join(err, printing)
}

// progress is a progress bar on a terminal; elsewhere it is nothing.
type progress struct {
	w           io.Writer // nil: not a terminal
	done, total int
}

func newProgress(w io.Writer, total int) *progress {
	if !isTerminal(w) {
		w = nil
	}
	return &progress{w: w, total: total}
}

// barWidth is how many characters a full bar has.
const barWidth = 30

// step advances the bar by one.
func (p *progress) step() {
	p.done++
	if p.w != nil {
		full := barWidth * p.done / p.total
		fmt.Fprintf(p.w, "\r[%s%s] %d/%d", strings.Repeat("#", full), strings.Repeat(" ", barWidth-full), p.done, p.total)
	}
}

// end leaves the line of the bar.
func (p *progress) end() {
	if p.w != nil && p.done > 0 {
		fmt.Fprintln(p.w)
	}
}
