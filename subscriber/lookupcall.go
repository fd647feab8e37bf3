package subscriber

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
	"github.com/watermill-ots/watermill-ots/internal/service"
)

// lookupResult is the end of one call.
type lookupResult struct {
	wanted []*wantedRow
	err    error // of the call as a whole
}

// ended keeps what a call has read. Rows that could not be read are retried after a pause. A
// call that failed as a whole pauses the channel's other lookups, too.
func (l *lookup) ended(r lookupResult) {
	l.running--
	if l.ctx.Err() != nil { // fenced: the call was given up
		return
	}
	l.metrics.counts.inc(countLookups)
	bytes, read := 0, 0
	err := r.err
	for _, w := range r.wanted {
		if w.got.Err != nil {
			l.again = append(l.again, w)
			if err == nil {
				err = w.got.Err
			}
			continue
		}
		bytes += len(w.got.Row)
		read++
		l.keep(w)
	}
	l.size(bytes, read, r.err != nil)
	switch {
	case err != nil:
		l.failed(err)
		l.pause(err, r.err != nil)
	case l.failing && len(l.again) == 0:
		l.failing, l.pauses, l.outage = false, nil, false
		l.metrics.calls.lookupSucceeded()
		l.observer.callSucceeded(l.id, opLookup)
	default:
		l.outage = false
	}
}

// size decides how many rows the next calls have: so many that an answer has lookupAnswer bytes, and
// half as many after a call that failed as a whole, whose answer may have been too large.
func (l *lookup) size(bytes, read int, failed bool) {
	if failed {
		l.perCall = max(1, l.perCall/2)
		return
	}
	l.perCall = min(2*l.perCall, service.MaxBatchGetRows)
	if average := bytes / max(read, 1); average > 0 {
		l.perCall = max(1, min(l.perCall, lookupAnswer/average))
	}
}

// pause sets when what failed is retried.
func (l *lookup) pause(err error, whole bool) {
	if l.pauses == nil {
		l.pauses = l.cfg.ReadBackoff()
	}
	l.retryAt, l.outage, l.failing = time.Now().Add(pauseAfter(l.pauses, err)), whole, true
}

// failed counts and logs a failure.
func (l *lookup) failed(err error) {
	l.metrics.callFailed(opLookup, err)
	if l.observer.isStopping() {
		return
	}
	err = &ChannelError{Table: l.table, Tunnel: l.tunnel, Channel: l.id, Op: opLookup, Err: err}
	if l.observer.callFailed(l.id, opLookup, err) {
		fields := callFields(opLookup, err)
		if hint := l.hint(err); hint != "" {
			fields = fields.Add(watermill.LogFields{"hint": hint})
		}
		l.logger.Error("Rows cannot be looked up; retrying, their records wait", err, fields)
		return
	}
	l.logger.Debug("Rows cannot be looked up; retrying", callDetail(opLookup, err))
}

// call reads rows in one call and stores each answer in its row. It runs beside other calls. An
// error is that of all rows.
func (l *lookup) call(rows []*wantedRow) (err error) {
	defer func() {
		if err != nil {
			for _, w := range rows {
				w.got = service.RowRead{Err: err}
			}
		}
	}()
	keys := make([][]byte, len(rows))
	columns := l.columns
	var cells []plainbuffer.Cell
	var all []byte // one piece of memory for the keys
	for i, w := range rows {
		cells = w.first.keyCells(cells[:0])
		from := len(all)
		all = plainbuffer.AppendPrimaryKey(all, cells)
		keys[i] = all[from:len(all):len(all)]
		if i == 0 && len(columns) > 0 && !slices.Contains(columns, cells[0].Name) {
			// With it the service answers with the row even if it has none of the columns.
			columns = append([]string{cells[0].Name}, columns...)
		}
	}
	client := l.endpoint.TableClient()
	answers, err := client.BatchGetRow(l.ctx, l.table, keys, columns)
	if err != nil {
		return withCauseOf(l.ctx, err)
	}
	var row plainbuffer.Row
	for i, w := range rows {
		w.got = answers[i]
		if w.got.Err == nil && len(w.got.Row) > 0 {
			if err := plainbuffer.Decode(w.got.Row, &row); err != nil { // it is not checked again
				w.got = service.RowRead{Err: fmt.Errorf("row %s: %w", w.first.page.page.record(w.first.index).KeyText(), err)}
			}
		}
	}
	return nil
}

// withCauseOf replaces an error of a call by why its context ended, if it has.
func withCauseOf(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// keyCells appends the cells of the record's primary key.
func (r recordAt) keyCells(cells []plainbuffer.Cell) []plainbuffer.Cell {
	p := r.page.page
	v := &p.rows[r.index]
	w := plainbuffer.WalkAgain(p.body[v.at : v.at+v.size])
	var c plainbuffer.Cell
	for w.Next(&c) {
		cells = append(cells, c)
	}
	return cells
}
