package letters

import (
	"context"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/watermill-ots/watermill-ots/internal/service"
)

const (
	callTimeout = 20 * time.Second
	// callTries is how often a call is tried that fails transiently.
	callTries = 3
	callPause = 100 * time.Millisecond // before the second try; doubles
)

// tableClient makes calls of the table API of one instance and retries transient
// failures. Safe for concurrent use.
type tableClient struct{ service.TableClient }

// call makes one call, tied to ctx. f must be idempotent: it is called again after
// transient failures.
func (c *tableClient) call(ctx context.Context, op string, f func(*tablestore.TableStoreClient) error) error {
	pause := callPause
	for try := 1; ; try++ {
		err := c.Call(ctx, op, f)
		if err == nil || try == callTries || ctx.Err() != nil || !service.IsTransient(err) {

			return err
		}
		timer := time.NewTimer(pause)
		pause *= 2
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return err
		}
	}
}

// maxBatchWrite is how many rows the service takes in one BatchWriteRow.
const maxBatchWrite = 200

// writeRows writes rows of one table, each on its own, and returns the error of each.
// Transient failures are retried, so the changes must be idempotent.
func (c *tableClient) writeRows(ctx context.Context, changes []tablestore.RowChange) []error {
	errs := make([]error, len(changes))
	for first := 0; first < len(changes); first += maxBatchWrite {
		last := min(first+maxBatchWrite, len(changes))
		c.writeBatch(ctx, changes[first:last], errs[first:last])
	}
	return errs
}

// writeBatch is writeRows for the rows of one request.
func (c *tableClient) writeBatch(ctx context.Context, changes []tablestore.RowChange, errs []error) {
	left := make([]int, len(changes)) // the rows whose outcome is not final
	for i := range left {
		left[i] = i
	}
	const op = "BatchWriteRow"
	err := c.call(ctx, op, func(client *tablestore.TableStoreClient) error {
		req := new(tablestore.BatchWriteRowRequest)
		for _, i := range left {
			req.AddRowChange(changes[i])
		}
		resp, err := client.BatchWriteRow(req)
		if err != nil {
			return err
		}
		var again []int
		var failure error
		for _, results := range resp.TableToRowsResult { // one table
			for _, result := range results {
				i := left[result.Index]
				errs[i] = nil
				if result.IsSucceed {
					continue
				}
				errs[i] = service.TableError(op, 0, result.Error.Code, result.Error.Message, resp.RequestId)
				if service.IsTransient(errs[i]) {
					again, failure = append(again, i), errs[i]
				}
			}
		}
		left = again
		return failure
	})
	for _, i := range left {
		errs[i] = err // of the last try
	}
}
