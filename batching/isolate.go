package batching

import (
	"context"
	"errors"
	"slices"

	"github.com/cenkalti/backoff/v4"

	"github.com/watermill-ots/watermill-ots/ack"
)

// isolation finds the messages that make a batch fail.
//
// At first an outage looks the same as a bad message, and splitting the batch would
// make two calls for each message. So isolation checks for an outage before it
// splits: it handles single messages alone, of different ordering keys and from
// different places in the batch, until one succeeds. If one does, it splits the rest,
// half by half. It checks again whenever failuresInARow single messages have failed
// in a row. If no message of a check succeeds, the remaining messages fail together,
// and no message counts as having failed by itself.
type isolation struct {
	b    *Batching
	ctx  context.Context
	ob   *openBatch
	size int // messages of the batch

	failed error     // the latest failure of a call
	inARow int       // single messages that failed since the last success
	parts  [][]*item // failed together or not tried yet; the last part is the next to be handled
}

// run settles the suspects. known is true if some of the batch did not fail.
func (x *isolation) run(suspects []*item, known bool) {
	var permanent *backoff.PermanentError
	switch {
	case len(suspects) == 1 || known:
		x.parts = [][]*item{suspects}
	case errors.As(x.failed, &permanent): // the handler says that a message is at fault
		x.halve(suspects)
	case x.alone(suspects[0]):
		x.halve(suspects[1:])
	default:
		x.parts = [][]*item{suspects[1:]}
		if !x.findSuccess(failuresInARow) {
			return
		}
	}
	for len(x.parts) > 0 {
		if x.inARow >= failuresInARow && !x.findSuccess(failuresInARow+1) {
			return
		}
		if len(x.parts) == 0 {
			return
		}
		last := len(x.parts) - 1
		part := x.b.stillThere(x.ob, x.parts[last])
		x.parts = x.parts[:last]
		if len(part) == 0 {
			continue
		}
		if rest := x.call(part); len(rest) > 1 {
			x.halve(rest)
		} else if len(rest) == 1 { // the others were given to Fail; this one was never handled alone
			x.parts = append(x.parts, rest)
		}
	}
}

// call handles a part and returns the items without an outcome. For a part of one
// message there are none.
func (x *isolation) call(part []*item) (rest []*item) {
	before := x.ob.batcher.succeeded.Load()
	rest, err := x.b.callOnce(x.ctx, x.ob, part)
	if err != nil {
		x.failed = err
	}
	if x.ob.batcher.succeeded.Load() != before {
		x.inARow = 0
	}
	if len(part) == 1 && len(rest) == 1 {
		if permanent := new(backoff.PermanentError); !errors.As(err, &permanent) {
			x.inARow++
		}
		x.b.settle(x.ob, part[0], x.ob.failure(err, 1))
		return nil
	}
	return rest
}

// halve adds the two halves of items to parts; the first half is handled first.
func (x *isolation) halve(items []*item) {
	half := len(items) / 2
	x.parts = append(x.parts, items[half:], items[:half])
}

// findSuccess handles messages alone, from different places in parts, until one
// succeeds. If most messages have failed in a row, it gives up and reports false.
func (x *isolation) findSuccess(most int) bool {
	for x.inARow > 0 {
		for i, part := range x.parts {
			x.parts[i] = x.b.stillThere(x.ob, part)
		}
		x.parts = slices.DeleteFunc(x.parts, func(part []*item) bool { return len(part) == 0 })
		if len(x.parts) == 0 {
			return true
		}
		if x.inARow >= most {
			x.giveUp()
			return false
		}
		it, at := x.elsewhere()
		x.parts[at] = slices.DeleteFunc(slices.Clone(x.parts[at]), func(o *item) bool { return o == it })
		x.alone(it)
	}
	return true
}

// elsewhere returns a message far from those that were tried last, and the part it
// is in. It is the first one of its ordering key, because a message may only be
// handled after the earlier ones of its key.
func (x *isolation) elsewhere() (it *item, part int) {
	far := x.parts[0]
	pick := far[len(far)-1]
	if x.inARow%2 == 0 {
		pick = far[len(far)/2]
	}
	for i, part := range slices.Backward(x.parts) {
		for _, o := range part {
			if o == pick || pick.orderKey != "" && o.orderKey == pick.orderKey {
				return o, i
			}
		}
	}
	return pick, 0
}

// alone handles one message and reports whether it succeeded.
func (x *isolation) alone(it *item) bool {
	x.call([]*item{it})
	return it.err == nil
}

// giveUp fails the remaining messages together, because of an outage.
func (x *isolation) giveUp() {
	x.ob.result.outage = x.failed
	err := x.ob.failure(ack.Transient(x.failed), x.size)
	for _, part := range x.parts {
		x.b.settleAll(x.ob, x.b.stillThere(x.ob, part), err)
	}
	x.parts = nil
}
