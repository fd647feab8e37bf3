package router

import (
	"context"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
)

// orphanAge is how old parts are at least before they are taken for orphans. A
// letter is written within letterTimeout, so that even clocks that differ by many
// minutes delete no parts whose letter is about to be written.
const orphanAge = time.Hour

// sweep deletes a pipeline's parts that belong to no letter: what a crash has
// left between the writing of parts and of their letter, or between the removal of a
// letter and of its parts, and what a letter that was written again had before.
func (t *tableLetters) sweep(ctx context.Context, pipeline string) error {
	from := rowKey(pipeline, partsSequence, "")
	end := new(tablestore.PrimaryKey)
	end.AddPrimaryKeyColumn(columnPipeline, pipeline)
	end.AddPrimaryKeyColumn(columnSequence, partsSequence)
	end.AddPrimaryKeyColumnWithMaxValue(columnID)
	for from != nil {
		// One row of a generation is enough to know of the others.
		rows, next, err := t.read(ctx, from, end, 1, columnOf, columnWrittenAt)
		if err != nil {
			return err
		}
		from = next
		if len(rows) == 0 {
			continue
		}
		c := cellsOf(rows[0].PrimaryKey, rows[0].Columns)
		id, generation, ok := partOf(c.texts[columnID])
		written, dated := c.numbers[columnWrittenAt]
		if !ok || !dated {
			continue // not one of ours
		}
		behind := afterParts(pipeline, id, generation)
		if time.Since(time.UnixMilli(written)) > orphanAge {
			if err := t.sweepOne(ctx, pipeline, c.texts[columnOf], id, generation); err != nil {
				return err
			}
		}
		from = behind
	}
	return nil
}

// partOf takes the id of a part row apart. An identity may have slashes.
func partOf(id string) (of, generation string, ok bool) {
	number := strings.LastIndexByte(id, '/')
	if number < 0 {
		return "", "", false
	}
	at := strings.LastIndexByte(id[:number], '/')
	if at <= 0 {
		return "", "", false
	}
	return id[:at], id[at+1 : number], true
}

// sweepOne deletes the parts of a generation unless their letter has it.
func (t *tableLetters) sweepOne(ctx context.Context, pipeline, sequence, id, generation string) error {
	row, err := t.row(ctx, rowKey(pipeline, sequence, id), columnFailedAt, columnParts)
	if err != nil {
		return err
	}
	if row != nil && row.texts[columnParts] != "" {
		if p, err := parsePacking(row.texts[columnParts]); err != nil || p.Generation == generation {
			return nil // in use, or not known
		}
	}
	deleted := 0
	from, end := partKey(pipeline, id, generation, 0), afterParts(pipeline, id, generation)
	for from != nil {
		rows, next, err := t.read(ctx, from, end, maxBatchWrite, columnWrittenAt)
		if err != nil {
			return err
		}
		keys := make([]*tablestore.PrimaryKey, len(rows))
		for i, row := range rows {
			keys[i] = row.PrimaryKey
		}
		if err := t.deleteRows(ctx, keys); err != nil {
			return err
		}
		deleted += len(keys)
		from = next
	}
	t.logger.Info("Parts of no dead letter were deleted", watermill.LogFields{"table": t.table, "id": id, "rows": deleted})
	return nil
}

// row reads columns of one row; nil if it has none of them.
func (t *tableLetters) row(ctx context.Context, key *tablestore.PrimaryKey, columns ...string) (*cells, error) {
	var resp *tablestore.GetRowResponse
	err := t.client.call(ctx, "GetRow", func(c *tablestore.TableStoreClient) (err error) {
		resp, err = c.GetRow(&tablestore.GetRowRequest{SingleRowQueryCriteria: &tablestore.SingleRowQueryCriteria{
			TableName: t.table, PrimaryKey: key, ColumnsToGet: columns, MaxVersion: 1,
		}})
		return err
	})
	if err != nil || len(resp.Columns) == 0 {
		return nil, err
	}
	return cellsOf(&resp.PrimaryKey, resp.Columns), nil
}
