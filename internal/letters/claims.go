package letters

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/watermill-ots/watermill-ots/internal/service"
)

// claims are the claims of one Replay: the row of a letter that it works on has its id.
// All its writes of the letter are conditional on that. See the package documentation.
type claims struct {
	table *Table
	id    string // of the Replay
	lease time.Duration
	taken time.Time // when the last take began: the start of those leases
}

// errClaimLost says that another process wrote, claimed or removed the letter.
var errClaimLost = errors.New("the letter was written or claimed elsewhere meanwhile")

// equals returns the condition that a column has a value; orMissing also accepts
// rows without the column.
func equals(column string, value any, orMissing bool) tablestore.ColumnFilter {
	c := tablestore.NewSingleColumnCondition(column, tablestore.CT_EQUAL, value)
	c.FilterIfMissing = !orMissing
	c.LatestVersionOnly = true
	return c
}

func every(conditions ...tablestore.ColumnFilter) tablestore.ColumnFilter {
	return &tablestore.CompositeColumnValueFilter{Operator: tablestore.LO_AND, Filters: conditions}
}

func either(conditions ...tablestore.ColumnFilter) tablestore.ColumnFilter {
	return &tablestore.CompositeColumnValueFilter{Operator: tablestore.LO_OR, Filters: conditions}
}

// update returns a change of k's row that requires the row to exist and the condition to hold.
func (c *claims) update(k *kept, condition tablestore.ColumnFilter) *tablestore.UpdateRowChange {
	change := &tablestore.UpdateRowChange{TableName: c.table.name, PrimaryKey: k.primaryKey()}
	change.SetCondition(tablestore.RowExistenceExpectation_EXPECT_EXIST)
	change.SetColumnCondition(condition)
	return change
}

// asRead returns the condition that k has not changed since it was read.
func (c *claims) asRead(k *kept) tablestore.ColumnFilter {
	conditions := []tablestore.ColumnFilter{equals(columnFailedAt, k.failedAt, false)}
	if k.parts != "" {
		conditions = append(conditions, equals(columnParts, k.parts, false))
	}
	// Our own claim is there already if the answer to an earlier try was lost.
	claim := equals(columnClaim, c.id, k.claim == "")
	if k.claim != "" {
		claim = either(claim, every(equals(columnClaim, k.claim, true), equals(columnClaimedUntil, k.claimedUntil, true)))
	}
	return every(append(conditions, claim)...)
}

// take claims letters. lost has those that another process was faster with.
func (c *claims) take(ctx context.Context, letters []*kept) (lost map[*kept]bool, err error) {
	c.taken = time.Now()
	return c.extend(ctx, letters, c.asRead)
}

// renew extends the claims of letters.
func (c *claims) renew(ctx context.Context, letters []*kept) error {
	_, err := c.extend(ctx, letters, func(*kept) tablestore.ColumnFilter { return c.mine() })
	return err
}

// mine returns the condition that the letter is claimed by this Replay.
func (c *claims) mine() tablestore.ColumnFilter { return equals(columnClaim, c.id, false) }

func (c *claims) extend(ctx context.Context, letters []*kept, condition func(*kept) tablestore.ColumnFilter) (lost map[*kept]bool, err error) {
	until := time.Now().Add(c.lease).UnixMilli()
	changes := make([]tablestore.RowChange, len(letters))
	for i, k := range letters {
		change := c.update(k, condition(k))
		change.PutColumn(columnClaim, c.id)
		change.PutColumn(columnClaimedUntil, until)
		changes[i] = change
	}
	lost = make(map[*kept]bool)
	var errs []error
	for i, err := range c.table.client.writeRows(ctx, changes) {
		switch {
		case err == nil:
		case service.HasCode(err, service.CodeConditionFailed):
			lost[letters[i]] = true
		default:
			errs = append(errs, fmt.Errorf("claim letter %s in the dead-letter table %s: %w", letters[i].name(), c.table.name, err))
		}
	}
	return lost, errors.Join(errs...)
}

// release removes the claims of letters that were not handled. A claim that cannot be
// removed ends with its lease.
func (c *claims) release(ctx context.Context, letters []*kept) error {
	changes := make([]tablestore.RowChange, len(letters))
	for i, k := range letters {
		change := c.update(k, c.mine())
		change.DeleteColumn(columnClaim)
		change.DeleteColumn(columnClaimedUntil)
		changes[i] = change
	}
	var errs []error
	for i, err := range c.table.client.writeRows(ctx, changes) {
		if err != nil && !service.HasCode(err, service.CodeConditionFailed) {
			errs = append(errs, fmt.Errorf("release letter %s in the dead-letter table %s: %w", letters[i].name(), c.table.name, err))
		}
	}
	return errors.Join(errs...)
}

// remove deletes a letter that was handled, then its parts. The error is errClaimLost if
// the letter is no longer claimed by this Replay: it stays.
func (c *claims) remove(ctx context.Context, k *kept) error {
	err := c.table.client.call(ctx, "DeleteRow", func(client *tablestore.TableStoreClient) error {
		row := &tablestore.DeleteRowChange{TableName: c.table.name, PrimaryKey: k.primaryKey()}
		row.SetCondition(tablestore.RowExistenceExpectation_EXPECT_EXIST)
		row.SetColumnCondition(c.mine())
		_, err := client.DeleteRow(&tablestore.DeleteRowRequest{DeleteRowChange: row})
		return err
	})
	if service.HasCode(err, service.CodeConditionFailed) {
		var row *cells
		if row, err = c.table.row(ctx, k.primaryKey(), columnFailedAt); err == nil && row != nil {
			return errClaimLost
		}
		// The row is deleted: the answer to an earlier try was lost.
	}
	if err == nil && k.parts != "" {
		var p *packing
		if p, err = parsePacking(k.parts); err == nil {
			err = c.table.deleteParts(ctx, k.Pipeline, k.id, p)
		}
	}
	if err != nil {
		return fmt.Errorf("delete from the dead-letter table %s: %w", c.table.name, err)
	}
	return nil
}

// putBack stores that a letter failed again, and removes its claim. Its message and its
// parts do not change.
func (c *claims) putBack(ctx context.Context, k *kept, cause error) error {
	attempts, failedAt := int64(k.Attempts+1), Now().UnixMilli()
	err := c.table.client.call(ctx, "UpdateRow", func(client *tablestore.TableStoreClient) error {
		change := c.update(k, c.mine())
		change.PutColumn(columnError, clip(cause.Error(), maxErrorText))
		change.PutColumn(columnAttempts, attempts)
		change.PutColumn(columnFailedAt, failedAt)
		change.DeleteColumn(columnClaim)
		change.DeleteColumn(columnClaimedUntil)
		_, err := client.UpdateRow(&tablestore.UpdateRowRequest{UpdateRowChange: change})
		return err
	})
	if service.HasCode(err, service.CodeConditionFailed) {
		var row *cells
		if row, err = c.table.row(ctx, k.primaryKey(), columnAttempts, columnFailedAt); err == nil &&
			(row == nil || row.numbers[columnAttempts] != attempts || row.numbers[columnFailedAt] != failedAt) {
			return errClaimLost
		}
	}
	if err != nil {
		return fmt.Errorf("write to the dead-letter table %s: %w", c.table.name, err)
	}
	return nil
}
