package sinks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/watermill-ots/watermill-ots/examples/simple/pxytest"
)

// Arrival is a change that was found in a sink.
type Arrival struct {
	Sink string // "sqs" or "s3"
	UUID string // of the message
	Row  pxytest.Row
}

// arrival reads the subscriber's payload.
func arrival(sink, uuid string, payload []byte) (Arrival, error) {
	var change struct {
		Key     struct{ ID int64 }
		Columns struct{ Value, Change int64 }
	}
	if err := json.Unmarshal(payload, &change); err != nil {
		return Arrival{}, fmt.Errorf("message %s in %s: %w", uuid, sink, err)
	}
	return Arrival{Sink: sink, UUID: uuid, Row: pxytest.Row{ID: change.Key.ID, Value: change.Columns.Value, Change: change.Columns.Change}}, nil
}

// Report is what was found in the sinks.
type Report struct {
	SQS, S3 int // changes in each
	Missing int // changes that were written and are in neither sink
}

// Check empties the queue, reads the bucket and compares their contents with
// what was written. sinkOf returns the sink of a change: "sqs", "s3", or "" for
// neither.
//
// The error reports what must never happen: a change in the wrong sink, a
// change that was never written or has other content, one that arrived twice,
// and changes of a row that left the queue in another order. Missing changes
// are only counted.
func (s *Sinks) Check(ctx context.Context, written []pxytest.Row, sinkOf func(pxytest.Row) string) (Report, error) {
	queue, err := s.Queue.Drain(ctx)
	if err != nil {
		return Report{}, err
	}
	bucket, err := s.Bucket.List(ctx)
	if err != nil {
		return Report{}, err
	}
	missing, err := compare(written, sinkOf, append(queue, bucket...))
	return Report{SQS: len(queue), S3: len(bucket), Missing: missing}, err
}

// compare counts the written changes that have not arrived. Arrivals from the
// queue are in its order.
func compare(written []pxytest.Row, sinkOf func(pxytest.Row) string, arrived []Arrival) (missing int, err error) {
	expected := make(map[pxytest.Row]string, len(written))
	for _, row := range written {
		if sink := sinkOf(row); sink != "" {
			expected[row] = sink
		}
	}
	var errs []error
	wrong := func(a Arrival, format string, args ...any) {
		errs = append(errs, fmt.Errorf("change %+v in %s, message %s: %s", a.Row, a.Sink, a.UUID, fmt.Sprintf(format, args...)))
	}
	seen := make(map[pxytest.Row]bool, len(arrived))
	uuids := make(map[string]bool, len(arrived))
	newest := make(map[int64]int64) // change number by id, in the queue
	for _, a := range arrived {
		switch sink, ok := expected[a.Row]; {
		case !ok:
			wrong(a, "it was never written with this content")
		case sink != a.Sink:
			wrong(a, "it belongs in %s", sink)
		case seen[a.Row], uuids[a.UUID]:
			wrong(a, "it arrived twice")
		case a.Sink == "sqs" && a.Row.Change < newest[a.Row.ID]:
			wrong(a, "it arrived after change %d", newest[a.Row.ID])
		}
		seen[a.Row], uuids[a.UUID] = true, true
		if a.Sink == "sqs" {
			newest[a.Row.ID] = a.Row.Change
		}
	}
	for row := range expected {
		if !seen[row] {
			missing++
		}
	}
	return missing, errors.Join(errs...)
}
