package router

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
)

// Columns of a dead-letter table. The first three are its primary key: letters
// of one pipeline lie together, in the order of the changes. The last part makes
// writing a letter twice write one row.
const (
	columnPipeline = "pipeline"
	columnSequence = "sequence"
	columnID       = "id"

	columnTable    = "table"
	columnTunnel   = "tunnel"
	columnChannel  = "channel"
	columnType     = "type"
	columnKey      = "key"
	columnError    = "error"
	columnAttempts = "attempts"
	columnFailedAt = "failed_at" // ms since 1970
	columnMetadata = "metadata"  // JSON
	columnPayload  = "payload"   // binary
	columnRecord   = "record"    // JSON; absent without a typed record
)

// maxErrorText bounds the error in a row; the service takes 2 MiB a column.
const maxErrorText = 16 << 10

// tableLetters keeps dead letters in a Tablestore table.
type tableLetters struct {
	client *tableClient
	table  string
}

// prepare creates the table when it is missing.
func (t *tableLetters) prepare(ctx context.Context) error {
	exists := func(c *tablestore.TableStoreClient) error {
		_, err := c.DescribeTable(&tablestore.DescribeTableRequest{TableName: t.table})
		return err
	}
	err := t.client.call(ctx, exists)
	if hasCode(err, codeObjectNotExist) {
		err = t.client.call(ctx, t.create)
		if hasCode(err, codeObjectAlreadyExist) { // somebody was faster
			err = nil
		}
	}
	if err != nil {
		return fmt.Errorf("preparing the dead-letter table %s: %w", t.table, err)
	}
	return nil
}

func (t *tableLetters) create(c *tablestore.TableStoreClient) error {
	meta := &tablestore.TableMeta{TableName: t.table}
	for _, name := range []string{columnPipeline, columnSequence, columnID} {
		meta.AddPrimaryKeyColumn(name, tablestore.PrimaryKeyType_STRING)
	}
	_, err := c.CreateTable(&tablestore.CreateTableRequest{
		TableMeta:          meta,
		TableOption:        &tablestore.TableOption{TimeToAlive: -1, MaxVersion: 1},
		ReservedThroughput: &tablestore.ReservedThroughput{},
	})
	return err
}

func (t *tableLetters) key(l *DeadLetter) *tablestore.PrimaryKey {
	key := new(tablestore.PrimaryKey)
	key.AddPrimaryKeyColumn(columnPipeline, l.Pipeline)
	key.AddPrimaryKeyColumn(columnSequence, l.Sequence)
	key.AddPrimaryKeyColumn(columnID, l.ID)
	return key
}

// put writes the letter, over an older one of the same message.
func (t *tableLetters) put(ctx context.Context, l *DeadLetter) error {
	metadata, err := json.Marshal(l.Metadata)
	if err != nil {
		return fmt.Errorf("encode the metadata of a dead letter: %w", err)
	}
	record, err := encodeRecord(l.Record)
	if err != nil {
		return fmt.Errorf("encode the record of a dead letter: %w", err)
	}
	err = t.client.call(ctx, func(c *tablestore.TableStoreClient) error {
		row := &tablestore.PutRowChange{TableName: t.table, PrimaryKey: t.key(l)}
		row.SetCondition(tablestore.RowExistenceExpectation_IGNORE)
		for name, text := range map[string]string{
			columnTable: l.Table, columnTunnel: l.Tunnel, columnChannel: l.Channel, columnType: l.Type, columnKey: l.Key,
			columnError: clip(l.Error, maxErrorText), columnMetadata: string(metadata),
		} {
			row.AddColumn(name, text)
		}
		if record != "" {
			row.AddColumn(columnRecord, record)
		}
		row.AddColumn(columnAttempts, int64(l.Attempts))
		row.AddColumn(columnFailedAt, l.FailedAt.UnixMilli())
		row.AddColumn(columnPayload, l.Payload)
		_, err := c.PutRow(&tablestore.PutRowRequest{PutRowChange: row})
		return err
	})
	if err != nil {
		return fmt.Errorf("write to the dead-letter table %s: %w", t.table, err)
	}
	return nil
}

// clip shortens text to n bytes at most, between two characters, and makes it
// UTF-8, since the service takes nothing else as a string.
func clip(text string, n int) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) <= n {
		return text
	}
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n]
}

// remove deletes the letter.
func (t *tableLetters) remove(ctx context.Context, l *DeadLetter) error {
	err := t.client.call(ctx, func(c *tablestore.TableStoreClient) error {
		row := &tablestore.DeleteRowChange{TableName: t.table, PrimaryKey: t.key(l)}
		row.SetCondition(tablestore.RowExistenceExpectation_IGNORE)
		_, err := c.DeleteRow(&tablestore.DeleteRowRequest{DeleteRowChange: row})
		return err
	})
	if err != nil {
		return fmt.Errorf("delete from the dead-letter table %s: %w", t.table, err)
	}
	return nil
}

// page reads up to limit letters of the pipeline behind from, which is the
// start for nil, and where the next page begins: nil at the end.
func (t *tableLetters) page(ctx context.Context, pipeline string, from *tablestore.PrimaryKey, limit int) ([]*DeadLetter, *tablestore.PrimaryKey, error) {
	if from == nil {
		from = new(tablestore.PrimaryKey)
		from.AddPrimaryKeyColumn(columnPipeline, pipeline)
		from.AddPrimaryKeyColumnWithMinValue(columnSequence)
		from.AddPrimaryKeyColumnWithMinValue(columnID)
	}
	end := new(tablestore.PrimaryKey)
	end.AddPrimaryKeyColumn(columnPipeline, pipeline)
	end.AddPrimaryKeyColumnWithMaxValue(columnSequence)
	end.AddPrimaryKeyColumnWithMaxValue(columnID)

	var resp *tablestore.GetRangeResponse
	err := t.client.call(ctx, func(c *tablestore.TableStoreClient) (err error) {
		resp, err = c.GetRange(&tablestore.GetRangeRequest{RangeRowQueryCriteria: &tablestore.RangeRowQueryCriteria{
			TableName: t.table, StartPrimaryKey: from, EndPrimaryKey: end,
			Direction: tablestore.FORWARD, MaxVersion: 1, Limit: int32(limit),
		}})
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("read the dead-letter table %s: %w", t.table, err)
	}
	letters := make([]*DeadLetter, 0, len(resp.Rows))
	for _, row := range resp.Rows {
		l, err := letterOf(row)
		if err != nil {
			return nil, nil, fmt.Errorf("read the dead-letter table %s: %w", t.table, err)
		}
		letters = append(letters, l)
	}
	return letters, resp.NextStartPrimaryKey, nil
}

// errForeignRow is what a row gives that was not written as a dead letter.
var errForeignRow = errors.New("the row is no dead letter")

// letterOf makes a letter of its row.
func letterOf(row *tablestore.Row) (*DeadLetter, error) {
	text := make(map[string]string)
	numbers := make(map[string]int64)
	l := new(DeadLetter)
	for _, c := range row.PrimaryKey.PrimaryKeys {
		text[c.ColumnName], _ = c.Value.(string)
	}
	for _, c := range row.Columns {
		switch v := c.Value.(type) {
		case string:
			text[c.ColumnName] = v
		case int64:
			numbers[c.ColumnName] = v
		case []byte:
			if c.ColumnName == columnPayload {
				l.Payload = v
			}
		}
	}
	l.Pipeline, l.Sequence, l.ID = text[columnPipeline], text[columnSequence], text[columnID]
	l.Table, l.Tunnel, l.Channel = text[columnTable], text[columnTunnel], text[columnChannel]
	l.Type, l.Key, l.Error = text[columnType], text[columnKey], text[columnError]
	l.Attempts, l.FailedAt = int(numbers[columnAttempts]), time.UnixMilli(numbers[columnFailedAt]).UTC()
	if l.Pipeline == "" || l.ID == "" {
		return nil, errForeignRow
	}
	if err := json.Unmarshal([]byte(text[columnMetadata]), &l.Metadata); err != nil {
		return nil, fmt.Errorf("letter %s has malformed metadata: %w", l.ID, err)
	}
	var err error
	if l.Record, err = decodeRecord(text[columnRecord]); err != nil {
		return nil, fmt.Errorf("letter %s: %w", l.ID, err)
	}
	return l, nil
}
