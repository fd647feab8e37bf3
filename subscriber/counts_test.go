package subscriber

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"testing"

	"github.com/watermill-ots/watermill-ots/internal/service"
	"github.com/watermill-ots/watermill-ots/internal/tunnelapi"
)

func TestFailedCallOf_names_the_operation_and_a_code(t *testing.T) {
	for want, err := range map[failedCall]error{
		{"checkpoint", "OTSServerBusy"}: fmt.Errorf("wrapped: %w", tunnelapi.NewError("checkpoint", 503, "OTSServerBusy", "busy", "")),
		{"readrecords", codeMalformed}:  &ChannelError{Op: "decode", Err: pageError(7, errors.New("cut off"))},
		{"op", codeCredentials}:         fmt.Errorf("op: %w: %w", service.ErrCredentials, context.DeadlineExceeded),
		{"op", codeTimeout}:             fmt.Errorf("no answer within 5s: %w", context.DeadlineExceeded),
		{"op", codeNetwork}:             errors.New("connection refused"),
	} {
		if got := failedCallOf("op", err); got != want {
			t.Errorf("%v is %v, want %v", err, got, want)
		}
	}
	if got := failedCallOf("op", &net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}); got.code != codeTimeout {
		t.Errorf("a dial that took too long is %v", got)
	}
}

func TestNoteError_tells_a_bounded_number_of_codes_apart(t *testing.T) {
	var calls failedCalls
	const n = 3 * maxFailedCalls
	for i := range n {
		calls.note("op", tunnelapi.NewError("readrecords", 500, fmt.Sprint("Code", i), "", ""))
	}
	if len(calls.counts) > maxFailedCalls+1 {
		t.Errorf("%d codes are kept", len(calls.counts))
	}
	sum := uint64(0)
	for _, count := range calls.counts {
		sum += count
	}
	if sum != n || calls.counts[failedCall{"readrecords", otherCode}] != n-maxFailedCalls {
		t.Errorf("%d failures were counted of %d: %v", sum, n, calls.counts)
	}
}

// BenchmarkCounts is what counting costs a record: one delivery and one ack,
// from many goroutines, as watchers and the deliverer do it.
func BenchmarkCounts(b *testing.B) {
	r := openRun(idleSession())
	d := &delivery{scope: r.taker.scope}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			r.metrics.delivered(d.attempt)
			r.taker.noteAcked(d)
		}
	})
}
