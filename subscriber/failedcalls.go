package subscriber

import (
	"cmp"
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/watermill-ots/watermill-ots/internal/service"
	"github.com/watermill-ots/watermill-ots/ots"
)

// failedCall is a kind of failed call: calls of one kind are counted, and logged, together.
type failedCall struct{ op, code string }

// maxFailedCalls bounds how many kinds of failed calls a subscription tells apart: the
// codes come from outside. Further ones count as otherCode.
const (
	maxFailedCalls = 64
	otherCode      = "other"
)

// Codes of failures that are not answers of the service.
const (
	codeMalformed   = "malformed" // the answer does not decode
	codeTimeout     = "timeout"
	codeCredentials = "credentials" // Config.Credentials gave none
	codeNetwork     = "network"     // everything else
)

// failedCallOf returns what failed: the operation, and the service's code or a code of this package.
func failedCallOf(op string, err error) failedCall {
	var se *ots.ServiceError
	var ne net.Error
	switch {
	case errors.As(err, &se):
		return failedCall{se.Op, se.Code}
	case errors.Is(err, errPage):
		return failedCall{"readrecords", codeMalformed}
	case errors.Is(err, service.ErrCredentials):
		return failedCall{op, codeCredentials}
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &ne) && ne.Timeout():
		return failedCall{op, codeTimeout}
	}
	return failedCall{op, codeNetwork}
}

// failedCalls counts the failed calls of a subscription, for Status. Calls that this
// process gave up itself do not count: the caller knows by the context of the call.
//
// Invariant: counts has at most maxFailedCalls entries, and one more for each
// operation's otherCode.
type failedCalls struct {
	mu     sync.Mutex
	counts map[failedCall]uint64 // made by the first failure
	last   *Failure
}

// note counts a failed call.
func (f *failedCalls) note(op string, err error) *Failure {
	call := failedCallOf(op, err)
	failure := newFailure(call, err)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = failure
	f.add(call, 1)
	return failure
}

// add needs mu.
func (f *failedCalls) add(call failedCall, n uint64) {
	if _, known := f.counts[call]; !known && len(f.counts) >= maxFailedCalls {
		call.code = otherCode
	}
	if f.counts == nil {
		f.counts = make(map[failedCall]uint64)
	}
	f.counts[call] += n
}

// addAll adds the counts of another subscription.
func (f *failedCalls) addAll(o *failedCalls) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	for call, n := range o.counts {
		f.add(call, n)
	}
}

// status returns the counts, and the last failure.
func (f *failedCalls) status() (counts []ErrorCount, last *Failure) {
	f.mu.Lock()
	defer f.mu.Unlock()
	counts = make([]ErrorCount, 0, len(f.counts))
	for call, n := range f.counts {
		counts = append(counts, ErrorCount{Op: call.op, Code: call.code, Count: n})
	}
	slices.SortFunc(counts, func(a, b ErrorCount) int {
		return cmp.Or(strings.Compare(a.Op, b.Op), strings.Compare(a.Code, b.Code))
	})
	return counts, f.last
}

func newFailure(call failedCall, err error) *Failure {
	return &Failure{Time: time.Now(), Op: call.op, Code: call.code, Error: err.Error()}
}

// callFields names a failed call in the log.
func callFields(op string, err error) watermill.LogFields {
	call := failedCallOf(op, err)
	return watermill.LogFields{"operation": call.op, "code": call.code}
}

// callDetail is callFields for a line at Debug, which has the error as a field.
func callDetail(op string, err error) watermill.LogFields {
	return callFields(op, err).Add(watermill.LogFields{"err": err.Error()})
}
