package publisher

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/cenkalti/backoff/v4"
	"pgregory.net/rapid"

	_ "github.com/watermill-ots/watermill-ots/internal/nofailfiles"
)

// plan is one run of the model test: random messages, and the outcomes of the first
// requests. All later requests succeed.
type plan struct {
	maxRows, maxBytes int
	sizes             []int    // of the messages' payloads
	keys              []string // their ordering keys; "" is none
	script            []scripted
}

type scripted struct {
	request int   // its outcome: see the constants
	rows    []int // the outcomes of its rows
}

const (
	requestBusy   = iota // is refused with a transient error
	requestBroken        // does not arrive
	requestLost          // is done, and the answer does not arrive
	requestBad           // is refused for good
	requestFine          // this and all higher values succeed
	requestKinds  = 12

	rowBusy  = 0
	rowAlso  = 1 // busy, too
	rowBad   = 2
	rowKinds = 30
)

func drawPlan(t *rapid.T) plan {
	n := rapid.IntRange(1, 30).Draw(t, "messages")
	return plan{
		maxRows: rapid.IntRange(1, 8).Draw(t, "max rows"), maxBytes: rapid.IntRange(1, 2000).Draw(t, "max bytes"),
		sizes: rapid.SliceOfN(rapid.IntRange(0, 300), n, n).Draw(t, "sizes"),
		keys:  rapid.SliceOfN(rapid.SampledFrom([]string{"", "a", "b", "c"}), n, n).Draw(t, "keys"),
		script: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) scripted {
			return scripted{
				request: rapid.IntRange(0, requestKinds).Draw(t, "request"),
				rows:    rapid.SliceOfN(rapid.IntRange(0, rowKinds), 8, 8).Draw(t, "rows"),
			}
		}), 0, 40).Draw(t, "script"),
	}
}

// next returns the outcome of the next request.
func (p *plan) next(rows []stored) (v verdict) {
	if len(p.script) == 0 {
		return verdict{}
	}
	s := p.script[0]
	p.script = p.script[1:]
	switch s.request {
	case requestBusy:
		v.answer = &codeError{503, "OTSServerBusy"}
	case requestBroken:
		v.answer = errBroken
	case requestLost:
		v.lost = errBroken
	case requestBad:
		v.answer = &codeError{400, "OTSParameterInvalid"}
	}
	v.rows = make(map[int]string)
	for i := range rows {
		switch s.rows[i] {
		case rowBusy, rowAlso:
			v.rows[i] = "OTSPartitionUnavailable"
		case rowBad:
			v.rows[i] = "OTSConditionCheckFail"
		}
	}
	return v
}

func TestPublish_stores_messages_of_a_key_in_order_under_any_failure_and_all_when_it_returns_nil(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		p := drawPlan(rt)
		var err error
		// rapid must not end the bubble's own goroutine: faults are reported outside.
		synctest.Test(t, func(*testing.T) { err = p.run() })
		if err != nil {
			rt.Fatal(err)
		}
	})
}

// run publishes the messages and returns the faults.
func (p *plan) run() error {
	f := &fakeTable{verdict: p.next}
	pub, err := New(Config{
		Endpoint: "http://127.0.0.1:1", Instance: "test", AccessKeyID: "id", AccessKeySecret: "secret", Transport: f,
		MaxBatchRows: p.maxRows, MaxBatchBytes: p.maxBytes,
		RetryBackoff: func() backoff.BackOff { return backoff.WithMaxRetries(backoff.NewConstantBackOff(time.Second), 5) },
	}, nil)
	if err != nil {
		return err
	}
	defer pub.Close()
	messages := make([]*message.Message, len(p.keys))
	published := make(map[string][]string) // by key
	for i, key := range p.keys {
		messages[i] = message.NewMessage(fmt.Sprint(i), make([]byte, p.sizes[i]))
		if key != "" {
			SetOrderingKey(messages[i], key)
			published[key] = append(published[key], messages[i].UUID)
		}
	}
	failed := make(map[string]bool)
	if err := pub.Publish("orders", messages...); err != nil {
		var failure *PublishError
		if !errors.As(err, &failure) || failure.Messages != len(messages) || len(failure.Unwrap()) == 0 {
			return fmt.Errorf("unexpected error %w", err)
		}
		for _, m := range failure.Failed {
			if messages[m.Index].UUID != m.UUID || m.Err == nil {
				return fmt.Errorf("wrong entry %+v", m)
			}
			failed[m.UUID] = true
		}
	}
	first := make(map[string][]string) // by key: messages in the order in which they were first written
	written := make(map[string]bool)
	for _, row := range f.written {
		if !written[row.uuid] {
			first[row.key] = append(first[row.key], row.uuid)
		}
		written[row.uuid] = true
	}
	for _, msg := range messages {
		if !failed[msg.UUID] && !written[msg.UUID] {
			return fmt.Errorf("message %s is neither stored nor failed", msg.UUID)
		}
	}
	for key, uuids := range published {
		if got := first[key]; !slices.Equal(got, uuids[:len(got)]) {
			return fmt.Errorf("key %s was written as %v, published as %v", key, got, uuids)
		}
	}
	for _, r := range f.requests {
		keys := make(map[string]bool)
		for _, row := range r.rows {
			keys[row.key] = true
		}
		if len(keys) != len(r.rows) || len(r.rows) > p.maxRows {
			return fmt.Errorf("a request has the rows %v, %d at most are allowed", r.rows, p.maxRows)
		}
	}
	return nil
}
