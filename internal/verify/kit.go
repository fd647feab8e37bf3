package verify

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/watermill-ots/watermill-ots/internal/service"
	"github.com/watermill-ots/watermill-ots/ots"
)

// Config says which instance is checked, and how.
type Config struct {
	Endpoint, Instance string
	AllowInsecure      bool
	Credentials        ots.CredentialsProvider
	SignatureVersion   ots.SignatureVersion
	Region             string

	// ClientTimeout is the heartbeat timeout of the checks' clients, in whole
	// seconds. Some checks wait for twice as long. Default 30 s.
	ClientTimeout time.Duration

	// Patience bounds how long a check waits for what the service does in its own
	// time. Default 3 minutes.
	Patience time.Duration

	// Only are names of checks to run. Empty: all.
	Only []string

	// Dir is the directory of the file that lists what the run makes. Empty: the
	// working directory.
	Dir string

	// Split splits the partition of a table, where the caller can do that. Nil: the
	// checks that need it are skipped.
	Split func(table string) error

	// Progress, when set, is called with each result, one call at a time.
	Progress func(Result)
}

// Defaults of Config.
const (
	DefaultClientTimeout = 30 * time.Second
	DefaultPatience      = 3 * time.Minute
)

// parallel is how many checks run at the same time. They mostly wait.
const parallel = 4

// Kit runs checks against one instance.
type Kit struct {
	cfg   Config
	id    string // random, in the names of what it makes
	wire  wire
	table service.TableClient
	meter *meter
	made  *Made

	progress sync.Mutex // one call of Config.Progress at a time
}

// New returns a Kit. An error names the field of Config that is wrong. Close it.
func New(cfg Config) (*Kit, error) {
	connection := service.Connection{
		Endpoint: cfg.Endpoint, Instance: cfg.Instance, AllowInsecure: cfg.AllowInsecure,
		Credentials: cfg.Credentials, SignatureVersion: cfg.SignatureVersion, Region: cfg.Region,
	}
	if cfg.Credentials == nil {
		return nil, errors.New("Config.Credentials is nil")
	}
	if faults := connection.Faults(); len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	if cfg.ClientTimeout == 0 {
		cfg.ClientTimeout = DefaultClientTimeout
	}
	if cfg.Patience == 0 {
		cfg.Patience = DefaultPatience
	}
	if cfg.ClientTimeout < time.Second || cfg.ClientTimeout%time.Second != 0 {
		return nil, fmt.Errorf("Config.ClientTimeout is %v: it must be whole seconds", cfg.ClientTimeout)
	}
	for _, name := range cfg.Only {
		if !slices.ContainsFunc(checks, func(c check) bool { return c.name == name }) {
			return nil, fmt.Errorf("there is no check %q; there are %s", name, strings.Join(CheckNames(), ", "))
		}
	}
	region := ""
	if cfg.SignatureVersion == ots.SignatureV4 {
		region = cfg.Region
	}
	m := newMeter(service.NewTransport(32))
	creds := service.NewCredentialsCache(cfg.Credentials, watermill.NopLogger{})
	id := strings.ToLower(rand.Text()[:10])
	return &Kit{
		cfg: cfg, id: id, meter: m,
		wire: wire{endpoint: cfg.Endpoint, instance: cfg.Instance, region: region, creds: creds, http: &http.Client{Transport: m}},
		table: service.TableClient{
			Endpoint: cfg.Endpoint, Instance: cfg.Instance, Region: region, Transport: m, Credentials: creds, Timeout: callTimeout,
		},
		made: NewMade(cfg.Dir, id, cfg.Endpoint, cfg.Instance),
	}, nil
}

// Close releases connections and the credentials provider.
func (k *Kit) Close() {
	k.wire.creds.Close(service.CredentialsGrace)
	k.meter.base.CloseIdleConnections()
}

// CheckNames returns the names of all checks, in the order of the report.
func CheckNames() []string {
	names := make([]string, len(checks))
	for i, c := range checks {
		names[i] = c.name
	}
	return names
}

// Run makes a table, runs the checks and removes what they made, also when ctx ends. The
// error is that of making or removing it; what the checks found is in the report.
func (k *Kit) Run(ctx context.Context) (*Report, error) {
	started := time.Now()
	r := &Report{
		ID: k.id, Started: started.UTC().Truncate(time.Second), SDK: sdkVersion(),
		ClientTimeout: k.cfg.ClientTimeout.String(), Region: k.cfg.Region, Signature: int(k.cfg.SignatureVersion),
	}
	err := k.createTable(ctx, k.name(""))
	if err == nil {
		err = k.fill(ctx)
	}
	if err == nil {
		r.Results = k.runChecks(ctx)
	}
	if ctx.Err() != nil {
		err = nil // the caller knows; what counts is whether everything can be removed
	}
	cleaning, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	err = errors.Join(err, k.clean(cleaning, k.made))
	r.Took = time.Since(started).Round(time.Millisecond).String()
	r.Calls, r.Cost = k.meter.calls(), k.meter.cost()
	k.redact(ctx, r)
	if err != nil {
		return r, fmt.Errorf("ots verify: %w", err)
	}
	return r, nil
}

// runChecks runs the checks, a few at a time, and returns their results in order.
func (k *Kit) runChecks(ctx context.Context) []Result {
	var chosen []check
	for _, c := range checks {
		if len(k.cfg.Only) == 0 || slices.Contains(k.cfg.Only, c.name) {
			chosen = append(chosen, c)
		}
	}
	results := make([]Result, len(chosen))
	slots := make(chan struct{}, parallel)
	var all sync.WaitGroup
	for i, c := range chosen {
		slots <- struct{}{}
		all.Go(func() { // waited for below
			defer func() { <-slots }()
			results[i] = k.runCheck(ctx, c)
			if k.cfg.Progress != nil {
				k.progress.Lock()
				defer k.progress.Unlock()
				k.cfg.Progress(results[i])
			}
		})
	}
	all.Wait()
	return results
}

// runCheck runs one check and removes its tunnels.
func (k *Kit) runCheck(ctx context.Context, c check) (res Result) {
	started := time.Now()
	res = Result{Check: c.name, Proves: c.proves, Says: c.says}
	ctx, cancel := context.WithTimeoutCause(ctx, 2*k.cfg.Patience+4*k.cfg.ClientTimeout, errors.New("the check took too long"))
	defer cancel()
	p := &probe{kit: k, ctx: ctx, check: c.name}
	var err error
	func() {
		defer func() {
			if v := recover(); v != nil {
				err = fmt.Errorf("the check panicked: %v", v)
			}
		}()
		err = c.run(p)
	}()
	err = errors.Join(err, p.end())
	res.Took = time.Since(started).Round(time.Millisecond).String()
	res.Answers, res.Detail = p.answers, strings.Join(p.notes, "; ")
	var refuted *refutedError
	var skipped *skippedError
	switch {
	case err == nil:
		res.Outcome = Holds
	case errors.As(err, &refuted):
		res.Outcome, res.Detail = Refuted, refuted.text
	case errors.As(err, &skipped):
		res.Outcome, res.Detail = Skipped, skipped.text
	default:
		res.Outcome, res.Detail = Undecided, err.Error()
	}
	return res
}

// refutedError says what the service did instead.
type refutedError struct{ text string }

func (e *refutedError) Error() string { return "refuted: " + e.text }

func refuted(format string, args ...any) error { return &refutedError{fmt.Sprintf(format, args...)} }

// skippedError says why a check was not made.
type skippedError struct{ text string }

func (e *skippedError) Error() string { return "skipped: " + e.text }

func skipped(format string, args ...any) error { return &skippedError{fmt.Sprintf(format, args...)} }

// pause waits for d, or for the end of ctx, which is the error.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
