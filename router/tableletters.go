package router

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
)

// Columns of a dead-letter table. The first three are its primary key: letters
// of one pipeline lie together, in the order of the changes. The last part is the
// letter's identity, so that writing a letter twice writes one row.
const (
	columnPipeline = "pipeline"
	columnSequence = "sequence"
	columnID       = "id"

	columnUUID         = "uuid"     // the message's, where it is not the id
	columnIdentity     = "identity" // absent unless id is its hash
	columnTable        = "table"
	columnTunnel       = "tunnel"
	columnChannel      = "channel"
	columnType         = "type"
	columnKey          = "key"
	columnError        = "error"
	columnAttempts     = "attempts"
	columnFailedAt     = "failed_at"     // ms since 1970
	columnMetadata     = "metadata"      // JSON
	columnPayload      = "payload"       // binary; absent if empty
	columnRecord       = "record"        // JSON; absent without a typed record
	columnExact        = "exact"         // JSON, exactText; absent if there is none
	columnParts        = "parts"         // JSON, packing: where the last four are if they do not fit here
	columnClaim        = "claim"         // whose Replay works on the letter
	columnClaimedUntil = "claimed_until" // ms since 1970
)

// Sizes of a row, within the service's limits: 1 KiB a string of a primary key, 2 MiB a
// column, 4 MiB a request.
const (
	maxRowID      = 512      // bytes of an identity that is a key as it is; parts add to it
	maxPipeline   = 1 << 10  // bytes of a pipeline's name
	maxErrorText  = 16 << 10 // bytes of the error in a row
	maxText       = 32 << 10 // bytes of every other text in a row; the largest primary key has less
	maxSection    = 2 << 20  // bytes of metadata, payload or record in a column
	maxInlineSize = 3 << 20  // bytes of all three in one row
)

// tableLetters keeps dead letters in a Tablestore table.
//
// A letter is one row. What does not fit into it is in part rows, which are
// written before the row and deleted after it: whatever is cut off in between, a
// row that is there has all its parts.
type tableLetters struct {
	client *tableClient
	table  string
	logger watermill.LoggerAdapter
}

// rowKey is a primary key of the table.
func rowKey(pipeline, sequence, id string) *tablestore.PrimaryKey {
	key := new(tablestore.PrimaryKey)
	key.AddPrimaryKeyColumn(columnPipeline, pipeline)
	key.AddPrimaryKeyColumn(columnSequence, sequence)
	key.AddPrimaryKeyColumn(columnID, id)
	return key
}

// rowID returns the letter's identity as the key holds it.
func (l *DeadLetter) rowID() string {
	id := l.identity()
	if id != "" && len(id) <= maxRowID && utf8.ValidString(id) {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	return "sha256:" + hex.EncodeToString(sum[:])
}

func (t *tableLetters) key(l *DeadLetter) *tablestore.PrimaryKey {
	return rowKey(l.Pipeline, l.Sequence, l.rowID())
}

// sections are what may be large in a letter, in the order in which a packed
// letter has it.
type sections struct{ metadata, payload, record, exact []byte }

func (s *sections) all() []*[]byte {
	return []*[]byte{&s.metadata, &s.payload, &s.record, &s.exact}
}

// fit reports whether the sections fit into the letter's row.
func (s *sections) fit() bool {
	total := 0
	for _, section := range s.all() {
		if len(*section) > maxSection {
			return false
		}
		total += len(*section)
	}
	return total <= maxInlineSize
}

// sectionsOf encodes the large part of a letter. The rest is in readable.
func sectionsOf(l *DeadLetter) (readable *DeadLetter, s *sections, err error) {
	named := *l
	named.Identity = l.identity()
	readable, exact := exactOf(&named, maxText)
	s = &sections{payload: l.Payload}
	if s.metadata, err = json.Marshal(readable.Metadata); err != nil {
		return nil, nil, fmt.Errorf("encode the metadata of a dead letter: %w", err)
	}
	record, err := encodeRecord(l.Record)
	if err != nil {
		return nil, nil, fmt.Errorf("encode the record of a dead letter: %w", err)
	}
	s.record = []byte(record)
	if exact != nil {
		if s.exact, err = json.Marshal(exact); err != nil {
			return nil, nil, fmt.Errorf("encode the texts of a dead letter: %w", err)
		}
	}
	return readable, s, nil
}

// put writes the letter, over an older one of the same record.
func (t *tableLetters) put(ctx context.Context, l *DeadLetter) error {
	readable, s, err := sectionsOf(l)
	if err != nil {
		return err
	}
	row := &tablestore.PutRowChange{TableName: t.table, PrimaryKey: t.key(l)}
	row.SetCondition(tablestore.RowExistenceExpectation_IGNORE)
	addTexts(row, l, readable)
	if s.fit() {
		addSections(row, s)
	} else {
		parts, err := t.writeParts(ctx, l, s)
		if err != nil {
			return fmt.Errorf("write to the dead-letter table %s: %w", t.table, err)
		}
		row.AddColumn(columnParts, parts)
	}
	err = t.client.call(ctx, "PutRow", func(c *tablestore.TableStoreClient) error {
		_, err := c.PutRow(&tablestore.PutRowRequest{PutRowChange: row})
		return err
	})
	if err != nil {
		// Parts are left behind. The row may be there all the same, if only the answer was lost.
		return fmt.Errorf("write to the dead-letter table %s: %w", t.table, err)
	}
	return nil
}

// addTexts adds the columns that every letter has.
func addTexts(row *tablestore.PutRowChange, l, readable *DeadLetter) {
	id := l.rowID()
	if l.ID != id {
		row.AddColumn(columnUUID, readable.ID)
	}
	if l.identity() != id {
		row.AddColumn(columnIdentity, readable.identity())
	}
	row.AddColumn(columnTable, readable.Table)
	row.AddColumn(columnTunnel, readable.Tunnel)
	row.AddColumn(columnChannel, readable.Channel)
	row.AddColumn(columnType, readable.Type)
	row.AddColumn(columnKey, readable.Key)
	row.AddColumn(columnError, clip(l.Error, maxErrorText))
	row.AddColumn(columnAttempts, int64(l.Attempts))
	row.AddColumn(columnFailedAt, l.FailedAt.UnixMilli())
}

// addSections adds the columns of a letter that is not packed.
func addSections(row *tablestore.PutRowChange, s *sections) {
	row.AddColumn(columnMetadata, string(s.metadata))
	if len(s.payload) > 0 {
		row.AddColumn(columnPayload, s.payload)
	}
	if len(s.record) > 0 {
		row.AddColumn(columnRecord, string(s.record))
	}
	if len(s.exact) > 0 {
		row.AddColumn(columnExact, string(s.exact))
	}
}

// restore puts the sections into l.
func (s *sections) restore(l *DeadLetter) error {
	if err := json.Unmarshal(s.metadata, &l.Metadata); err != nil {
		return fmt.Errorf("letter %s has malformed metadata: %w", l.ID, err)
	}
	var err error
	if l.Record, err = decodeRecord(string(s.record)); err != nil {
		return fmt.Errorf("letter %s: %w", l.ID, err)
	}
	l.Payload = s.payload
	if len(s.exact) > 0 {
		exact := new(exactText)
		if err := json.Unmarshal(s.exact, exact); err != nil {
			return fmt.Errorf("letter %s has malformed texts: %w", l.ID, err)
		}
		exact.restore(l)
	}
	return nil
}

// page reads up to limit rows of the pipeline behind from, which is the
// start for nil, and where the next page begins: nil at the end.
func (t *tableLetters) page(ctx context.Context, pipeline string, from *tablestore.PrimaryKey, limit int) ([]*kept, *tablestore.PrimaryKey, error) {
	if from == nil {
		from = new(tablestore.PrimaryKey)
		from.AddPrimaryKeyColumn(columnPipeline, pipeline)
		from.AddPrimaryKeyColumnWithMinValue(columnSequence)
		from.AddPrimaryKeyColumnWithMinValue(columnID)
	}
	end := new(tablestore.PrimaryKey)
	end.AddPrimaryKeyColumn(columnPipeline, pipeline)
	end.AddPrimaryKeyColumn(columnSequence, partsSequence) // parts come behind all letters
	end.AddPrimaryKeyColumnWithMinValue(columnID)
	rows, next, err := t.read(ctx, from, end, limit)
	if err != nil {
		return nil, nil, err
	}
	letters := make([]*kept, len(rows))
	for i, row := range rows {
		letters[i] = keptOf(row)
	}
	return letters, next, nil
}

// read reads up to limit rows of a range, some of their columns if any are named, and where the next read begins.
func (t *tableLetters) read(ctx context.Context, from, end *tablestore.PrimaryKey, limit int, columns ...string) ([]*tablestore.Row, *tablestore.PrimaryKey, error) {
	var resp *tablestore.GetRangeResponse
	err := t.client.call(ctx, "GetRange", func(c *tablestore.TableStoreClient) (err error) {
		resp, err = c.GetRange(&tablestore.GetRangeRequest{RangeRowQueryCriteria: &tablestore.RangeRowQueryCriteria{
			TableName: t.table, StartPrimaryKey: from, EndPrimaryKey: end, ColumnsToGet: columns,
			Direction: tablestore.FORWARD, MaxVersion: 1, Limit: int32(limit),
		}})
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("read the dead-letter table %s: %w", t.table, err)
	}
	return resp.Rows, resp.NextStartPrimaryKey, nil
}

// millis is a time of the table.
func millis(n int64) time.Time { return time.UnixMilli(n).UTC() }
