package publisher

import (
	"context"
	"fmt"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/watermill-ots/watermill-ots/internal/service"
)

// maxIdle is how many idle connections are kept. Each running Publish uses one.
const maxIdle = 256

// client calls the table API. It is safe for concurrent use.
type client struct{ service.TableClient }

// call makes one call, without retries. Its error says what the user can do about it.
func (c *client) call(ctx context.Context, op string, f func(*tablestore.TableStoreClient) error) error {
	return explain(c.Call(ctx, op, f))
}

// explain wraps an error answer of the service in ErrNoTable or ErrTable, with advice.
func explain(err error) error {
	switch {
	case service.HasCode(err, service.CodeObjectNotExist):
		return fmt.Errorf("%w: %w; create it with CreateTable, or set Config.CreateTables", ErrNoTable, err)
	case service.HasCode(err, service.CodeInvalidPK):
		return fmt.Errorf("%w: %w; set Config.Columns to its key columns", ErrTable, err)
	}
	return err
}

// putRows stores rows of one table in one request and returns the outcome of each.
func (c *client) putRows(ctx context.Context, table string, rows []*row) []error {
	const op = "BatchWriteRow"
	outcomes := make([]error, len(rows))
	req := new(tablestore.BatchWriteRowRequest)
	for _, r := range rows {
		req.AddRowChange(r.change)
	}
	var resp *tablestore.BatchWriteRowResponse
	err := c.call(ctx, op, func(sdk *tablestore.TableStoreClient) (err error) {
		resp, err = sdk.BatchWriteRow(req)
		return err
	})
	if err == nil && len(resp.TableToRowsResult[table]) != len(rows) {
		err = fmt.Errorf("%s: malformed answer: %d outcomes of %d rows", op, len(resp.TableToRowsResult[table]), len(rows))
	}
	for i := range outcomes {
		if err != nil {
			outcomes[i] = err
		} else if o := &resp.TableToRowsResult[table][i]; !o.IsSucceed {
			outcomes[i] = explain(service.TableError(op, 0, o.Error.Code, o.Error.Message, resp.RequestId))
		}
	}
	return outcomes
}
