package letters

import (
	"errors"
	"fmt"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/watermill-ots/watermill-ots/internal/oneline"
)

// errForeignRow is the error of a row that was not written as a letter.
var errForeignRow = errors.New("the row is not a dead letter")

// maxShown bounds the bytes of each key column that an error shows.
const maxShown = 100

// kept is a row of a dead-letter table: a letter, or a row that cannot be read as one.
type kept struct {
	*Letter        // as far as it could be read
	foreign error  // why the row is not a letter; nil for a letter
	id      string // third column of its key
	key     string // column key, as it orders letters
	size    int    // bytes of its sections

	packing *packing // nil once it is unpacked, and for a letter that is not packed
	parts   string   // column parts

	failedAt     int64
	claim        string // id of the last claim, "" if there is none
	claimedUntil int64
}

// primaryKey returns the key of the letter's row.
func (k *kept) primaryKey() *tablestore.PrimaryKey {
	return rowKey(k.Pipeline, k.Sequence, k.id)
}

// claimed reports whether a Replay works on the letter.
func (k *kept) claimed(now time.Time) bool {
	return k.claim != "" && now.UnixMilli() < k.claimedUntil
}

// name returns the row's key as errors show it.
func (k *kept) name() string {
	return fmt.Sprintf("(%s, %s, %s)", oneline.Text(k.Pipeline, maxShown), oneline.Text(k.Sequence, maxShown), oneline.Text(k.id, maxShown))
}

// cells are the columns of a row by type and name.
type cells struct {
	texts   map[string]string
	numbers map[string]int64
	payload []byte
}

func cellsOf(key *tablestore.PrimaryKey, columns []*tablestore.AttributeColumn) *cells {
	c := &cells{texts: make(map[string]string), numbers: make(map[string]int64)}
	for _, column := range columns {
		switch v := column.Value.(type) {
		case string:
			c.texts[column.ColumnName] = v
		case int64:
			c.numbers[column.ColumnName] = v
		case []byte:
			if column.ColumnName == columnPayload {
				c.payload = v
			}
		}
	}
	for _, column := range key.PrimaryKeys { // last, so that no attribute is taken for the key
		c.texts[column.ColumnName], _ = column.Value.(string)
	}
	return c
}

// has reports whether the row has all columns of a letter.
func (c *cells) has() bool {
	_, attempts := c.numbers[columnAttempts]
	_, failed := c.numbers[columnFailedAt]
	_, metadata := c.texts[columnMetadata]
	_, parts := c.texts[columnParts]
	return c.texts[columnID] != "" && attempts && failed && (metadata || parts)
}

// keptOf decodes a row.
func keptOf(row *tablestore.Row) *kept {
	c := cellsOf(row.PrimaryKey, row.Columns)
	l := &Letter{
		Pipeline: c.texts[columnPipeline], Sequence: c.texts[columnSequence], ID: c.texts[columnID], Identity: c.texts[columnID],
		Table: c.texts[columnTable], Tunnel: c.texts[columnTunnel], Channel: c.texts[columnChannel],
		Type: c.texts[columnType], Key: c.texts[columnKey], Error: c.texts[columnError],
		Attempts: int(c.numbers[columnAttempts]), FailedAt: millis(c.numbers[columnFailedAt]),
	}
	k := &kept{
		Letter: l, id: l.ID, key: l.Key, parts: c.texts[columnParts], failedAt: c.numbers[columnFailedAt],
		claim: c.texts[columnClaim], claimedUntil: c.numbers[columnClaimedUntil],
	}
	if !c.has() {
		k.foreign = errForeignRow
		return k
	}
	if uuid, ok := c.texts[columnUUID]; ok {
		l.ID = uuid
	}
	if whole, ok := c.texts[columnIdentity]; ok {
		l.Identity = whole
	}
	if k.parts != "" {
		k.packing, k.foreign = parsePacking(k.parts)
		if k.foreign == nil {
			k.size = k.packing.size()
		}
		return k
	}
	s := &sections{[]byte(c.texts[columnMetadata]), c.payload, []byte(c.texts[columnRecord]), []byte(c.texts[columnExact])}
	for _, section := range s.all() {
		k.size += len(*section)
	}
	k.foreign = s.restore(l)
	return k
}
