package letters

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

	"github.com/watermill-ots/watermill-ots/internal/service"
)

// Columns of a dead-letter table. The first three are its primary key: the letters of
// a pipeline are adjacent, in the order of their changes. The id is the letter's
// identity, so that writing a letter twice writes one row.
const (
	columnPipeline = "pipeline"
	columnSequence = "sequence"
	columnID       = "id"

	columnUUID         = "uuid"     // the message's, unless it is the id
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
	columnExact        = "exact"         // JSON of exactText; absent if there is none
	columnParts        = "parts"         // JSON of packing: where the last four are if they do not fit into the row
	columnClaim        = "claim"         // id of the Replay that works on the letter
	columnClaimedUntil = "claimed_until" // ms since 1970
)

// MaxPipeline is how many bytes the name of a pipeline may have, in UTF-8, as it is a
// part of the primary key.
const MaxPipeline = 1 << 10

// Timeout bounds the writing of one letter.
const Timeout = 30 * time.Second

// Sizes of a row, within the service's limits: 1 KiB a string of a primary key, 2 MiB a
// column, 4 MiB a request.
const (
	maxRowID      = 512      // bytes of an identity that is the id itself; parts add to it
	maxErrorText  = 16 << 10 // bytes of the error in a row
	maxText       = 32 << 10 // bytes of every other text in a row; the largest primary key has less
	maxSection    = 2 << 20  // bytes of metadata, payload or record in a column
	maxInlineSize = 3 << 20  // bytes of all three in one row
)

// Table keeps letters in a Tablestore table. Safe for concurrent use.
type Table struct {
	client *tableClient
	name   string
	logger watermill.LoggerAdapter
}

// NewTable returns the table called name. client needs no Timeout.
func NewTable(client service.TableClient, name string, logger watermill.LoggerAdapter) *Table {
	client.Timeout = callTimeout
	return &Table{client: &tableClient{client}, name: name, logger: logger}
}

// rowKey is a primary key of the table.
func rowKey(pipeline, sequence, id string) *tablestore.PrimaryKey {
	key := new(tablestore.PrimaryKey)
	key.AddPrimaryKeyColumn(columnPipeline, pipeline)
	key.AddPrimaryKeyColumn(columnSequence, sequence)
	key.AddPrimaryKeyColumn(columnID, id)
	return key
}

// rowID returns the id under which the letter is kept: its identity, or the hash of one
// that cannot be a part of the key.
func (l *Letter) rowID() string {
	id := l.identity()
	if id != "" && len(id) <= maxRowID && utf8.ValidString(id) {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	return "sha256:" + hex.EncodeToString(sum[:])
}

func (t *Table) key(l *Letter) *tablestore.PrimaryKey {
	return rowKey(l.Pipeline, l.Sequence, l.rowID())
}

// sections are the parts of a letter that may be large, in the order in which a packed
// letter has them.
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

// sectionsOf encodes the sections of a letter. readable is the letter with texts that fit
// into columns.
func sectionsOf(l *Letter) (readable *Letter, s *sections, err error) {
	named := *l
	named.Identity = l.identity()
	readable, exact := exactOf(&named, maxText)
	s = &sections{payload: l.Payload}
	if s.metadata, err = json.Marshal(readable.Metadata); err != nil {
		return nil, nil, fmt.Errorf("encode the metadata of a dead letter: %w", err)
	}
	record, err := EncodeRecord(l.Record)
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

// Put writes the letter and replaces an older one of the same record.
func (t *Table) Put(ctx context.Context, l *Letter) error {
	readable, s, err := sectionsOf(l)
	if err != nil {
		return err
	}
	row := &tablestore.PutRowChange{TableName: t.name, PrimaryKey: t.key(l)}
	row.SetCondition(tablestore.RowExistenceExpectation_IGNORE)
	addTexts(row, l, readable)
	if s.fit() {
		addSections(row, s)
	} else {
		parts, err := t.writeParts(ctx, l, s)
		if err != nil {
			return fmt.Errorf("write to the dead-letter table %s: %w", t.name, err)
		}
		row.AddColumn(columnParts, parts)
	}
	err = t.client.call(ctx, "PutRow", func(c *tablestore.TableStoreClient) error {
		_, err := c.PutRow(&tablestore.PutRowRequest{PutRowChange: row})
		return err
	})
	if err != nil {
		// The parts stay: the row may have been written if only the answer was lost.
		return fmt.Errorf("write to the dead-letter table %s: %w", t.name, err)
	}
	return nil
}

// addTexts adds the columns that every letter has.
func addTexts(row *tablestore.PutRowChange, l, readable *Letter) {
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

// addSections adds the sections of a letter that is not packed.
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
func (s *sections) restore(l *Letter) error {
	if err := json.Unmarshal(s.metadata, &l.Metadata); err != nil {
		return fmt.Errorf("letter %s has malformed metadata: %w", l.ID, err)
	}
	var err error
	if l.Record, err = DecodeRecord(string(s.record)); err != nil {
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

// page reads up to limit rows of the pipeline, beginning at from, or at the first one for
// nil. next is where the next page begins: nil at the end.
func (t *Table) page(ctx context.Context, pipeline string, from *tablestore.PrimaryKey, limit int) (letters []*kept, next *tablestore.PrimaryKey, err error) {
	if from == nil {
		from = new(tablestore.PrimaryKey)
		from.AddPrimaryKeyColumn(columnPipeline, pipeline)
		from.AddPrimaryKeyColumnWithMinValue(columnSequence)
		from.AddPrimaryKeyColumnWithMinValue(columnID)
	}
	end := new(tablestore.PrimaryKey)
	end.AddPrimaryKeyColumn(columnPipeline, pipeline)
	end.AddPrimaryKeyColumn(columnSequence, partsSequence) // parts are behind all letters
	end.AddPrimaryKeyColumnWithMinValue(columnID)
	rows, next, err := t.read(ctx, from, end, limit)
	if err != nil {
		return nil, nil, err
	}
	letters = make([]*kept, len(rows))
	for i, row := range rows {
		letters[i] = keptOf(row)
	}
	return letters, next, nil
}

// read reads up to limit rows of a range: the named columns, or all if none is named. It
// also returns where the next read begins, nil at the end.
func (t *Table) read(ctx context.Context, from, end *tablestore.PrimaryKey, limit int, columns ...string) ([]*tablestore.Row, *tablestore.PrimaryKey, error) {
	var resp *tablestore.GetRangeResponse
	err := t.client.call(ctx, "GetRange", func(c *tablestore.TableStoreClient) (err error) {
		resp, err = c.GetRange(&tablestore.GetRangeRequest{RangeRowQueryCriteria: &tablestore.RangeRowQueryCriteria{
			TableName: t.name, StartPrimaryKey: from, EndPrimaryKey: end, ColumnsToGet: columns,
			Direction: tablestore.FORWARD, MaxVersion: 1, Limit: int32(limit),
		}})
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("read the dead-letter table %s: %w", t.name, err)
	}
	return resp.Rows, resp.NextStartPrimaryKey, nil
}

// millis returns the time of a column.
func millis(n int64) time.Time { return time.UnixMilli(n).UTC() }
