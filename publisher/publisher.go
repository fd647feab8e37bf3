package publisher

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/cenkalti/backoff/v4"

	"github.com/watermill-ots/watermill-ots/ack"
	"github.com/watermill-ots/watermill-ots/internal/closing"
	"github.com/watermill-ots/watermill-ots/internal/service"
)

// Publisher writes messages into Tablestore tables. See the package documentation for
// its guarantees. All methods may be called from any goroutine.
type Publisher struct {
	cfg    Config
	logger watermill.LoggerAdapter
	client *client
	own    *http.Transport // nil when Config.Transport is used

	ctx    context.Context // cancelled at the end of Close
	cancel context.CancelCauseFunc

	calls closing.Uses // of Publish and CreateTable
	ended closing.Once // by Close

	mu    sync.Mutex      // guards what follows
	known map[string]bool // tables that exist, for CreateTables
}

var _ message.Publisher = (*Publisher)(nil)

// New returns a Publisher. It reports all faults of cfg in one error and does not
// connect yet. A nil logger discards the log.
func New(cfg Config, logger watermill.LoggerAdapter) (*Publisher, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if logger == nil {
		logger = watermill.NopLogger{}
	}
	cfg = cfg.withDefaults()
	p := &Publisher{
		cfg:    cfg,
		logger: logger.With(watermill.LogFields{"provider": "tablestore", "instance": cfg.Instance}),
		known:  make(map[string]bool),
	}
	base := cfg.Transport
	if base == nil {
		p.own = service.NewTransport(maxIdle)
		base = p.own
	}
	provider := cfg.Credentials
	if provider == nil {
		provider = service.StaticCredentials{AccessKeyID: cfg.AccessKeyID, AccessKeySecret: cfg.AccessKeySecret, SecurityToken: cfg.SecurityToken}
	}
	p.client = &client{service.TableClient{
		Endpoint: cfg.Endpoint, Instance: cfg.Instance, Region: cfg.Region,
		Transport: base, Credentials: service.NewCredentialsCache(provider, p.logger), Timeout: cfg.CallTimeout,
	}}
	p.ctx, p.cancel = context.WithCancelCause(context.Background())
	return p, nil
}

// MaxPayloadBytes returns the largest payload of a message, which is the largest size of a
// column. A publisher for package router's dead letters must not have such a limit.
func (p *Publisher) MaxPayloadBytes() int { return maxColumnBytes }

// Publish stores messages as rows of the topic's table and returns when all of them
// are stored. Rows with transient failures are retried until RetryBackoff stops. The
// first failure that is not transient ends Publish, as do Close and the end of the
// context of any of the messages. The error is a *PublishError, unless the table is the
// reason. If a message cannot be stored as a row (ErrMessage), nothing is sent.
//
// The requests' context has the values of the first message's context.
func (p *Publisher) Publish(topic string, messages ...*message.Message) error {
	if !p.calls.Begin() {
		return fmt.Errorf("publishing to %s: %w", topic, ErrClosed)
	}
	defer p.calls.End()
	if len(messages) == 0 {
		return nil
	}
	table, err := p.table(topic)
	if err != nil {
		return fmt.Errorf("publishing to %s: %w", topic, err)
	}
	left, ok := p.rows(topic, table, messages)
	if ok {
		ctx, cancel := p.context(messages)
		defer cancel()
		if err := p.prepare(ctx, table); err != nil {
			return fmt.Errorf("publishing to %s: %w", topic, err)
		}
		left = p.store(ctx, table, left)
	}
	if len(left) == 0 {
		return nil
	}
	failure := &PublishError{Topic: topic, Table: table, Messages: len(messages)}
	slices.SortFunc(left, func(a, b *row) int { return cmp.Compare(a.index, b.index) })
	for _, r := range left {
		if r.err == nil {
			r.err = ErrNotSent
		}
		failure.Failed = append(failure.Failed, FailedMessage{Index: r.index, UUID: r.uuid, Err: r.err})
	}
	if errors.Is(failure, ErrNoTable) { // the table was deleted: the next Publish may create it again
		p.forget(table)
	}
	return failure
}

// context returns a context that ends with the context of any of the messages, and with
// the Publisher.
func (p *Publisher) context(messages []*message.Message) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(messages[0].Context()))
	stops := []func() bool{context.AfterFunc(p.ctx, func() { cancel(context.Cause(p.ctx)) })}
	var last <-chan struct{} // messages often share a context
	for _, msg := range messages {
		c := msg.Context()
		done := c.Done()
		if done == nil || done == last {
			continue
		}
		last = done
		stops = append(stops, context.AfterFunc(c, func() { cancel(context.Cause(c)) }))
	}
	return ctx, func() {
		for _, stop := range stops {
			stop()
		}
		cancel(nil)
	}
}

// rows returns the messages' rows. ok is false if some of them have an error.
func (p *Publisher) rows(topic, table string, messages []*message.Message) (rows []*row, ok bool) {
	rows, ok = make([]*row, len(messages)), true
	for i, msg := range messages {
		rows[i] = p.cfg.Columns.newRow(table, p.cfg.OrderingKey(topic, msg), i, msg)
		ok = ok && rows[i].err == nil
	}
	return rows, ok
}

// store writes rows and returns those that it could not write, with their errors.
func (p *Publisher) store(ctx context.Context, table string, rows []*row) []*row {
	left := newPending(rows)
	var pauses backoff.BackOff // nil until a failure
	for left.rows > 0 {
		batch := left.take(p.cfg.MaxBatchRows, p.cfg.MaxBatchBytes)
		outcomes := p.client.putRows(ctx, table, batch)
		stored := left.settle(outcomes)
		err := gravest(outcomes)
		if err == nil {
			pauses = nil
			continue
		}
		if pauses == nil || stored > 0 {
			pauses = p.cfg.RetryBackoff()
		}
		pause := pauses.NextBackOff()
		if !service.IsTransient(err) || pause == backoff.Stop || ctx.Err() != nil {
			break
		}
		fields := watermill.LogFields{"table": table, "rows": len(batch) - stored, "error": err.Error(), "pause": pause.String()}
		var panicked *ack.PanicError
		if errors.As(err, &panicked) { // in the SDK, at an incomplete answer
			fields["stack"] = string(panicked.Stack)
		}
		p.logger.Info("Rows were not stored; retrying", fields)
		if !sleep(ctx, pause) {
			for _, r := range batch {
				if r.err != nil {
					r.err = fmt.Errorf("%w; given up: %w", r.err, context.Cause(ctx))
				}
			}
			break
		}
	}
	return left.left()
}

// gravest returns an error that is not transient if there is one, else a transient one,
// else nil.
func gravest(outcomes []error) (gravest error) {
	for _, err := range outcomes {
		if err != nil && !service.IsTransient(err) {
			return err
		}
		gravest = cmp.Or(gravest, err)
	}
	return gravest
}

// sleep waits for d. It returns false if ctx ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Close waits for running calls, for CloseTimeout at most. After that it cancels them,
// waits for their return, and returns an error that wraps ErrCloseTimeout. Further calls
// wait for the first one and return the same error.
func (p *Publisher) Close() error {
	return p.ended.Do(func() (err error) {
		done := p.calls.Close()
		if !closing.Within(p.cfg.CloseTimeout, done) {
			p.cancel(ErrCloseTimeout)
			err = fmt.Errorf("closing the publisher after %v: %w", p.cfg.CloseTimeout, ErrCloseTimeout)
			<-done
		}
		p.cancel(ErrClosed)
		p.client.Credentials.Close(service.CredentialsGrace)
		if p.own != nil {
			p.own.CloseIdleConnections()
		}
		return err
	})
}
