package subscriber

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
	"github.com/watermill-ots/watermill-ots/internal/service"
	"github.com/watermill-ots/watermill-ots/ots"
)

// read makes the calls of one round and keeps what they read. Rows that could not be read are
// retried after a pause. A call that failed as a whole pauses the channel's other lookups, too.
func (l *lookup) read(wanted []*wantedRow) {
	perCall := l.perCall
	var calls sync.WaitGroup
	errs := make([]error, 0, (len(wanted)+perCall-1)/perCall)
	for from := 0; from < len(wanted); from += perCall {
		rows := wanted[from:min(from+perCall, len(wanted))]
		errs = append(errs, nil)
		err := &errs[len(errs)-1] // errs does not grow beyond its capacity
		calls.Go(func() { *err = l.call(rows) })
	}
	calls.Wait()
	if l.ctx.Err() != nil { // fenced: the calls were given up
		return
	}
	l.metrics.counts.add(countLookups, len(errs))
	var whole, single error
	for _, err := range errs {
		if err != nil {
			whole = err
			l.failed(err)
		}
	}
	bytes, read := 0, 0
	for _, w := range wanted {
		if err := w.got.Err; err != nil {
			l.again = append(l.again, w)
			single = err
			continue
		}
		bytes += len(w.got.Row)
		read++
		l.keep(w)
	}
	l.size(bytes, read, whole != nil)
	switch {
	case whole != nil:
		l.pause(whole, true)
	case single != nil:
		l.failed(single)
		l.pause(single, false)
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

// call reads rows in one call and stores each answer in its row. It runs beside others of its
// round. An error is that of all rows.
func (l *lookup) call(rows []*wantedRow) (err error) {
	defer func() {
		if err != nil {
			for _, w := range rows {
				w.got = service.RowRead{Err: err}
			}
		}
	}()
	keys := make([]*tablestore.PrimaryKey, len(rows))
	columns := l.columns
	for i, w := range rows {
		at := w.records[0]
		rec := at.page.page.record(at.index)
		keys[i] = primaryKeyOf(rec)
		if i == 0 && len(columns) > 0 && !slices.Contains(columns, rec.PrimaryKey[0].Name) {
			// With it the service answers with the row even if it has none of the columns.
			columns = append([]string{rec.PrimaryKey[0].Name}, columns...)
		}
	}
	client := l.endpoint.tableClient()
	answers, err := client.BatchGetRow(l.ctx, l.table, keys, columns)
	if err != nil {
		return withCauseOf(l.ctx, err)
	}
	var row plainbuffer.Row
	for i, w := range rows {
		w.got = answers[i]
		if w.got.Err == nil && len(w.got.Row) > 0 {
			if err := plainbuffer.Decode(w.got.Row, &row); err != nil { // it is not checked again
				w.got = service.RowRead{Err: fmt.Errorf("row %s: %w", rows[i].records[0].page.page.record(rows[i].records[0].index).KeyText(), err)}
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

// primaryKeyOf returns the key of a record as the SDK takes it.
func primaryKeyOf(r *ots.Record) *tablestore.PrimaryKey {
	key := new(tablestore.PrimaryKey)
	for i := range r.PrimaryKey {
		key.AddPrimaryKeyColumn(r.PrimaryKey[i].Name, r.PrimaryKey[i].Value.Any())
	}
	return key
}

// tableClient makes calls of the table API by the way of the endpoint's other calls.
func (e *endpoint) tableClient() *service.TableClient {
	return &service.TableClient{Endpoint: e.url, Instance: e.instance, Region: e.region, Transport: e.base, Credentials: e.creds, Timeout: e.timeout}
}
