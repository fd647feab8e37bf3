package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/emulatorcli"
	"github.com/watermill-ots/watermill-ots/internal/verify"
)

// verifyFlags are the flags of ots verify.
type verifyFlags struct {
	connection
	emulator, dryRun, clean, list bool
	assume, only                  []string
	timeout                       time.Duration
	output, report                string
}

// newVerify returns the command verify.
func newVerify() *cobra.Command {
	var f verifyFlags
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Check what watermill-ots assumes about the service, against an instance of yours",
		Long: `verify checks what watermill-ots assumes about Tablestore's tunnel service, and its
laws in miniature, against an instance of yours. docs/assumptions.md explains each.

It creates tables and tunnels whose names begin with "otsverify_" and ten random
characters, touches nothing else, and deletes them at the end, also after Ctrl-C. It
writes down what it creates in the working directory first, so that
"ots verify --clean" finds it after a crash. --dry-run says what it would create and
what that costs.

The report shows neither keys nor the names of endpoint and instance. Please attach
its JSON to an issue: a fact that was measured on the service is worth more than all
that we assume.

The keys come from the environment: OTS_ACCESS_KEY_ID, OTS_ACCESS_KEY_SECRET and, with
temporary ones, OTS_SECURITY_TOKEN.`,
		Example: `  ots verify --emulator
      the checks on an emulator, which needs no account
  ots verify --emulator --assume finish-needs-report
      on an emulator that plays the opposite of one assumption
  ots verify --endpoint https://my-instance.cn-hangzhou.ots.aliyuncs.com --instance my-instance
      on an instance`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	f.connection.addFlags(cmd)
	flags.BoolVar(&f.emulator, "emulator", false, "check an emulator that runs in this process instead of an instance")
	flags.StringArrayVar(&f.assume, "assume", nil, "`BEHAVIOUR` that the emulator plays instead of its default; repeat it for more")
	flags.StringArrayVar(&f.only, "only", nil, "`CHECK` to run instead of all; repeat it for more")
	flags.BoolVar(&f.list, "list", false, "list the checks and end")
	flags.BoolVar(&f.dryRun, "dry-run", false, "say what would be created and what it costs at most, and end")
	flags.BoolVar(&f.clean, "clean", false, "delete what earlier runs in this directory have left, and end")
	flags.DurationVar(&f.timeout, "client-timeout", 0, "heartbeat timeout of the checks' clients; some checks wait for twice as long (default 30s, with --emulator 2s)")
	flags.StringVarP(&f.output, "output", "o", "table", "format of standard output: table or json")
	flags.StringVar(&f.report, "report", "", "`FILE` for the report as JSON, beside standard output (default ots-verify-ID.json, with --emulator none)")
	return cmd
}

// run does what the flags say.
func (f *verifyFlags) run(ctx context.Context, stdout, stderr io.Writer) (err error) {
	if err := f.check(); err != nil {
		return err
	}
	switch {
	case f.list:
		return listChecks(stdout)
	case f.dryRun:
		_, err := fmt.Fprint(stdout, verify.PlanOf().Text())
		return err
	}
	cfg := verify.Config{ClientTimeout: f.timeout, Only: f.only}
	if f.emulator {
		stop, err := f.startEmulator(&cfg)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, stop()) }()
	} else if err := f.complete(); err != nil {
		return err
	}
	cfg.Endpoint, cfg.Instance, cfg.AllowInsecure, cfg.Credentials = f.endpoint, f.instance, f.insecure, &f.connection
	cfg.SignatureVersion, cfg.Region = f.signature(), f.region
	if f.clean {
		return f.cleanUp(ctx, cfg, stdout)
	}
	return f.verify(ctx, cfg, stdout, stderr)
}

// check returns the fault of flags that do not go together.
func (f *verifyFlags) check() error {
	switch {
	case f.output != "table" && f.output != "json":
		return usageError{fmt.Errorf("--output is %q; it takes table or json", f.output)}
	case len(f.assume) > 0 && !f.emulator:
		return usageError{errors.New("--assume is of the emulator: it needs --emulator")}
	case f.clean && f.emulator:
		return usageError{errors.New("--clean is of an instance: an emulator that ran in a process has left nothing")}
	case f.emulator && (f.endpoint != "" || f.instance != ""):
		return usageError{errors.New("--emulator replaces --endpoint and --instance")}
	case f.timeout < 0 || f.timeout%time.Second != 0:
		return usageError{fmt.Errorf("--client-timeout is %v; it takes whole seconds, such as 30s", f.timeout)}
	}
	return nil
}

// startEmulator starts the emulator and lets cfg and the connection use it.
func (f *verifyFlags) startEmulator(cfg *verify.Config) (stop func() error, err error) {
	f.instance = "emulator"
	f.credentials.AccessKeyID, f.credentials.AccessKeySecret = "emulator-id", "emulator-secret"
	em, err := emulator.Start(emulator.Options{
		Instance: f.instance, AccessKeyID: f.credentials.AccessKeyID, AccessKeySecret: f.credentials.AccessKeySecret, Assume: f.assume,
	})
	if err != nil {
		return nil, usageError{emulatorcli.InFlags(err)}
	}
	f.endpoint = em.Endpoint()
	if cfg.ClientTimeout == 0 {
		cfg.ClientTimeout = 2 * time.Second
	}
	cfg.Patience, cfg.Split = 10*time.Second, em.Split
	return em.Close, nil
}

// verify runs the checks and prints what they find.
func (f *verifyFlags) verify(ctx context.Context, cfg verify.Config, stdout, stderr io.Writer) error {
	cfg.Progress = func(res verify.Result) {
		if f.output == "table" {
			fmt.Fprintln(stdout, shown(res))
		} else {
			fmt.Fprintln(stderr, shown(res))
		}
	}
	k, err := verify.New(cfg)
	if err != nil {
		return usageError{err}
	}
	defer k.Close()
	report, err := k.Run(ctx)
	if ctx.Err() != nil && err == nil {
		return errors.New("interrupted; what had been created is deleted")
	}
	if f.report == "" && !f.emulator {
		f.report = "ots-verify-" + report.ID + ".json"
	}
	if f.report != "" {
		err = errors.Join(err, writeFile(f.report, report))
	}
	if f.output == "json" {
		err = errors.Join(err, report.WriteJSON(stdout))
	} else {
		err = errors.Join(err, report.WriteSummary(stdout))
	}
	if err == nil && !f.emulator {
		fmt.Fprintf(stderr, "The report is in %s. It shows no keys and no names: please attach it to an issue.\n", f.report)
	}
	switch {
	case err != nil:
		return err
	case report.Count(verify.Refuted)+report.Count(verify.Undecided) > 0:
		return errFailed
	}
	return nil
}

// shown returns a result as a line for people.
func shown(res verify.Result) string {
	columns := strings.SplitN(res.Line(), "\t", 5)
	for len(columns) < 5 {
		columns = append(columns, "")
	}
	return strings.TrimRight(fmt.Sprintf("%-9s  %-3s  %-29s  %8s  %s", columns[0], columns[1], columns[2], columns[3], columns[4]), " ")
}

// writeFile writes the report as JSON.
func writeFile(path string, report *verify.Report) error {
	file, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("--report: %w", err)
	}
	if err := errors.Join(report.WriteJSON(file), file.Close()); err != nil {
		return fmt.Errorf("--report %s: %w", path, err)
	}
	return nil
}

// listChecks prints the checks and what each says.
func listChecks(w io.Writer) error {
	for _, c := range verify.Checks() {
		if _, err := fmt.Fprintf(w, "%-29s  %-3s  %s\n", c.Name, c.Proves, c.Says); err != nil {
			return err
		}
	}
	return nil
}

// cleanUp removes what earlier runs have left.
func (f *verifyFlags) cleanUp(ctx context.Context, cfg verify.Config, w io.Writer) error {
	lists, err := verify.OpenMade(".")
	if err != nil {
		return err
	}
	if len(lists) == 0 {
		fmt.Fprintln(w, "There is nothing to delete: no run in this directory has left a list of what it created.")
		return nil
	}
	var errs []error
	for _, made := range lists {
		tables := made.Tables()
		if err := verify.Clean(ctx, cfg, made); err != nil {
			errs = append(errs, err)
			continue
		}
		fmt.Fprintf(w, "Deleted %s and their tunnels (%s).\n", strings.Join(tables, ", "), filepath.Base(made.Path()))
	}
	return errors.Join(errs...)
}
