package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/watermill-ots/watermill-ots/internal/letters"
	"github.com/watermill-ots/watermill-ots/ots"
)

// A recording is a file of JSON lines: a header, then one line for each record, in the form
// that dead letters keep records in, from which nothing is missing.

// recordingFormat is what a recording's header begins with.
const recordingFormat = "watermill-ots recording"

// recordingVersion is the version of the form that this program writes and reads.
const recordingVersion = 1

// recordingHeader is the first line of a recording.
type recordingHeader struct {
	Format   string    `json:"format"`
	Version  int       `json:"version"`
	Recorded time.Time `json:"recorded"`
	Table    string    `json:"table"`
}

// maxRecordedLine bounds a line of a recording: a row of 4 MiB in base64, with room.
const maxRecordedLine = 16 << 20

func newTunnelRecord() *cobra.Command {
	var r reading
	var s selection
	var file string
	var overwrite bool
	cmd := &cobra.Command{
		Use:   "record [TABLE/TUNNEL]",
		Short: "Write the changes of a table into a file, until Ctrl-C",
		Long: `record reads as tail does, and writes the records into a file, whole: with their
types, versions and sequences. "ots replay FILE" prints them.

The file holds the table's data, so only its owner may open it.`,
		Example: `  ots tunnel record orders/warehouse --file bug.jsonl --since 10m --max 1000
  ots tunnel record --table orders --file row7.jsonl --since 1h --key 7`,
		Args: cobra.ArbitraryArgs, // checked below
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			t, err := r.topic(cmd, args)
			if err != nil {
				return err
			}
			s.format = "text" // not printed
			p, err := s.compile(io.Discard)
			if err != nil {
				return err
			}
			if file == "" {
				return usageError{errors.New("--file is not set: it takes the name of the file to write")}
			}
			flags := os.O_WRONLY | os.O_CREATE | os.O_EXCL
			if overwrite {
				flags = os.O_WRONLY | os.O_CREATE | os.O_TRUNC
			}
			f, err := os.OpenFile(file, flags, 0o600)
			if errors.Is(err, os.ErrExist) {
				return usageError{fmt.Errorf("--file %s exists; choose another name, or add --overwrite", file)}
			}
			if err != nil {
				return usageError{fmt.Errorf("--file: %w", err)}
			}
			w := bufio.NewWriter(f)
			write := func(v any) error {
				line, err := json.Marshal(v)
				if err == nil {
					_, err = w.Write(append(line, '\n'))
				}
				return err
			}
			err = write(recordingHeader{recordingFormat, recordingVersion, time.Now().UTC(), t.table})
			if err != nil {
				return errors.Join(err, f.Close())
			}
			err = r.run(cmd, t, func(record *ots.Record) error {
				return p.take(record, func() error {
					text, err := letters.EncodeRecord(record)
					if err != nil {
						return fmt.Errorf("the record %s: %w", record.KeyText(), err)
					}
					return write(json.RawMessage(text))
				})
			}, func(topic string) {
				fmt.Fprintf(cmd.ErrOrStderr(), "Recording %s into %s; end with Ctrl-C.\n", topic, file)
			})
			err = errors.Join(err, w.Flush(), f.Close())
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "Recorded %d records.\n", p.printed)
			return err
		},
	}
	r.addFlags(cmd)
	s.addFilters(cmd)
	cmd.Flags().StringVarP(&file, "file", "f", "", "`FILE` to write")
	cmd.Flags().BoolVar(&overwrite, "overwrite", false, "replace the file if it exists")
	return cmd
}

// readRecording calls f for each record of a recording, in its order.
func readRecording(name string, f func(*ots.Record) error) (recordingHeader, error) {
	var header recordingHeader
	file, err := os.Open(name)
	if err != nil {
		return header, usageError{fmt.Errorf("the argument FILE: %w", err)}
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, maxRecordedLine)
	for n := 1; lines.Scan(); n++ {
		if n == 1 {
			if err := json.Unmarshal(lines.Bytes(), &header); err != nil || header.Format != recordingFormat {
				return header, usageError{fmt.Errorf("%s:1: not a recording of ots tunnel record", name)}
			}
			if header.Version != recordingVersion {
				return header, usageError{fmt.Errorf("%s:1: version %d of recordings; this program reads version %d", name, header.Version, recordingVersion)}
			}
			continue
		}
		record, err := letters.DecodeRecord(lines.Text())
		if err != nil {
			return header, usageError{fmt.Errorf("%s:%d: %w", name, n, err)}
		}
		if record == nil {
			return header, usageError{fmt.Errorf("%s:%d: an empty line", name, n)}
		}
		if err := f(record); err != nil {
			return header, err
		}
	}
	if err := lines.Err(); err != nil {
		return header, fmt.Errorf("reading %s: %w", name, err)
	}
	if header.Format == "" {
		return header, usageError{fmt.Errorf("%s: the file is empty", name)}
	}
	return header, nil
}
