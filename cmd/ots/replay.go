package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/spf13/cobra"

	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/router"
)

// newReplay returns the command replay.
func newReplay() *cobra.Command {
	var s selection
	var pipelines, pipeline string
	cmd := &cobra.Command{
		Use:   "replay FILE",
		Short: "Print the records of a file of ots tunnel record, or send them through a pipeline",
		Long: `replay prints the records that "ots tunnel record" has written, in their order, without
a connection: the same each time.

With --pipelines it sends them through a pipeline of that file instead, and prints for
each record its batch, where its message would be published, and the payload. Nothing is
published. Code that belongs to the pipeline does not run: messages pass its processing
step unchanged, and go into its default batcher. Payload formats and credentials that are
registered in code are not there.`,
		Example: `  ots replay bug.jsonl
  ots replay bug.jsonl --where 'key.id == 7' --format debezium
  ots replay bug.jsonl --pipelines pipelines.yaml --pipeline orders`,
		Args: oneArgument("a FILE of ots tunnel record"),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := s.compile(cmd.OutOrStdout())
			if err != nil {
				return err
			}
			switch {
			case (pipelines == "") != (pipeline == ""):
				return usageError{errors.New("--pipelines and --pipeline go together: the file, and the name of one of its pipelines")}
			case pipelines != "" && cmd.Flags().Changed("format"):
				return usageError{errors.New("--format has no effect with --pipelines: the pipeline's payload says how messages look")}
			case pipelines != "":
				return replayThrough(cmd, p, args[0], pipelines, pipeline)
			}
			if _, err = readRecording(args[0], p.print); errors.Is(err, errEnough) {
				return nil
			}
			return err
		},
	}
	s.addFlags(cmd)
	cmd.Flags().StringVar(&pipelines, "pipelines", "", "pipelines `FILE` (docs/config.md), with --pipeline")
	cmd.Flags().StringVar(&pipeline, "pipeline", "", "`NAME` of the pipeline to send the records through")
	return cmd
}

// replayThrough sends the selected records of a file through a pipeline, and prints what
// becomes of each.
func replayThrough(cmd *cobra.Command, p *printer, file, pipelines, name string) error {
	cfg, err := router.Load(pipelines)
	if err != nil {
		return usageError{fmt.Errorf("--pipelines: %w", err)}
	}
	if cfg, err = cfg.Only(name); err != nil {
		return usageError{fmt.Errorf("--pipeline: %w", err)}
	}
	var records []*ots.Record
	_, err = readRecording(file, func(r *ots.Record) error {
		return p.take(r, func() error { records = append(records, r); return nil })
	})
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	r, err := router.New(cfg, nil)
	if err != nil {
		return usageError{fmt.Errorf("--pipelines: %w", err)}
	}
	outcomes, err := tryRecords(cmd.Context(), r, cfg, name, records)
	if err = errors.Join(err, r.Close()); err != nil {
		if errors.Is(err, router.ErrInvalidConfig) {
			return usageError{fmt.Errorf("--pipelines: %w", err)}
		}
		return err
	}
	return printOutcomes(cmd.OutOrStdout(), cfg.Tunnels[name], records, outcomes)
}

// nowhere is a publisher that publishes nothing: where messages would go is in the
// configuration.
type nowhere struct{}

func (nowhere) Publish(string, ...*message.Message) error { return nil }
func (nowhere) Close() error                              { return nil }

// noCode stands for credentials that are registered in code; nothing asks for them.
type noCode struct{}

func (noCode) Credentials(context.Context) (ots.Credentials, error) {
	return ots.Credentials{}, errors.New("there are no credentials in a replay")
}

// tryRecords sends records through a pipeline that has no code.
func tryRecords(ctx context.Context, r *router.Router, cfg router.Config, name string, records []*ots.Record) ([]router.Outcome, error) {
	t := cfg.Tunnels[name]
	publishers := map[string]bool{}
	add := func(to *router.Target) {
		if to != nil {
			publishers[cmp.Or(to.Publisher, router.DefaultPublisher)] = true
		}
	}
	add(t.Forward)
	handlers := router.Handlers{Batches: map[string]func(context.Context, *batching.Batch) error{}}
	for b, batcher := range t.Batchers {
		add(batcher.Forward)
		if batcher.Forward == nil {
			handlers.Batches[b] = func(context.Context, *batching.Batch) error { return nil }
		}
	}
	if dl := t.Failure.DeadLetter; dl != nil && dl.Topic != "" {
		add(&router.Target{Publisher: dl.Publisher})
	}
	errs := []error{r.Handle(name, handlers)}
	for _, pub := range slices.Sorted(maps.Keys(publishers)) {
		errs = append(errs, r.RegisterPublisher(pub, nowhere{}))
	}
	providers := map[string]bool{}
	for _, in := range cfg.Instances {
		if in.Credentials != "" && !providers[in.Credentials] {
			providers[in.Credentials] = true
			errs = append(errs, r.RegisterCredentials(in.Credentials, noCode{}))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return r.TestRecords(ctx, name, records...)
}

// printOutcomes prints a line for each record. It returns errFailed if one has failed.
func printOutcomes(w io.Writer, t router.Tunnel, records []*ots.Record, outcomes []router.Outcome) error {
	numbers := make(map[*batching.Batch]int) // of batches, in the order of their first records
	failed := false
	for i, o := range outcomes {
		line := []string{fmt.Sprintf("%s %s", records[i].Type, records[i].KeyText())}
		to := t.Forward
		if b := o.Batch; b != nil {
			if numbers[b] == 0 {
				numbers[b] = len(numbers) + 1
			}
			line = append(line, fmt.Sprintf("batch %d of %s", numbers[b], b.Batcher))
			to = t.Batchers[b.Batcher].Forward
		}
		switch {
		case o.Err != nil:
			failed = true
			line = append(line, "FAILED: "+oneLine(o.Err.Error(), 200))
		case o.Dropped:
			line = append(line, "skipped")
		default:
			if to != nil {
				line = append(line, cmp.Or(to.Publisher, router.DefaultPublisher)+": "+to.Topic)
			}
			line = append(line, string(o.Message.Payload))
		}
		if _, err := fmt.Fprintln(w, strings.Join(line, "  ")); err != nil {
			return err
		}
	}
	if failed {
		return errFailed
	}
	return nil
}
