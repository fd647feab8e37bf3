package letters

import (
	"context"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
)

// orphanAge is the least age of parts that are taken for orphans. A letter is
// written within Timeout, so that even if clocks differ by many minutes, no parts are
// deleted whose letter is about to be written.
const orphanAge = time.Hour

// deleteOrphans deletes a pipeline's parts that do not belong to a letter: those that a
// crash left between the writing of parts and of their letter, or between the removal of
// a letter and of its parts, and the earlier parts of a letter that was written again.
func (t *Table) deleteOrphans(ctx context.Context, pipeline string) error {
	from := rowKey(pipeline, partsSequence, "")
	end := new(tablestore.PrimaryKey)
	end.AddPrimaryKeyColumn(columnPipeline, pipeline)
	end.AddPrimaryKeyColumn(columnSequence, partsSequence)
	end.AddPrimaryKeyColumnWithMaxValue(columnID)
	for from != nil {
		// One row of a generation stands for all of them.
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
			continue // not a part of a letter
		}
		behind := afterParts(pipeline, id, generation)
		if time.Since(time.UnixMilli(written)) > orphanAge {
			if err := t.deleteOrphan(ctx, pipeline, c.texts[columnOf], id, generation); err != nil {
				return err
			}
		}
		from = behind
	}
	return nil
}

// partOf splits the id of a part row. An identity may have slashes.
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

// deleteOrphan deletes the parts of a generation unless their letter has it.
func (t *Table) deleteOrphan(ctx context.Context, pipeline, sequence, id, generation string) error {
	row, err := t.row(ctx, rowKey(pipeline, sequence, id), columnFailedAt, columnParts)
	if err != nil {
		return err
	}
	if row != nil && row.texts[columnParts] != "" {
		if p, err := parsePacking(row.texts[columnParts]); err != nil || p.Generation == generation {
			return nil // in use, or perhaps
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
	t.logger.Info("Orphaned parts of dead letters were deleted", watermill.LogFields{"table": t.name, "id": id, "rows": deleted})
	return nil
}

// row reads columns of one row. It returns nil if the row has none of them.
func (t *Table) row(ctx context.Context, key *tablestore.PrimaryKey, columns ...string) (*cells, error) {
	var resp *tablestore.GetRowResponse
	err := t.client.call(ctx, "GetRow", func(c *tablestore.TableStoreClient) (err error) {
		resp, err = c.GetRow(&tablestore.GetRowRequest{SingleRowQueryCriteria: &tablestore.SingleRowQueryCriteria{
			TableName: t.name, PrimaryKey: key, ColumnsToGet: columns, MaxVersion: 1,
		}})
		return err
	})
	if err != nil || len(resp.Columns) == 0 {
		return nil, err
	}
	return cellsOf(&resp.PrimaryKey, resp.Columns), nil
}
