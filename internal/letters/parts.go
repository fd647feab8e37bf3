package letters

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
)

// Part rows of a pipeline are behind its letters, which have hexadecimal sequences:
//
//	(pipeline, "~parts", id of the letter's row / generation / number)
//
// Each write of a letter has its own generation, which the letter's row names. So no
// write or removal of a letter touches the parts of another write of it.
const (
	partsSequence = "~parts"

	columnData      = "data"       // binary: a part of the compressed letter
	columnOf        = "of"         // sequence of the letter's row
	columnWrittenAt = "written_at" // ms since 1970
)

const (
	// partSize is far below the service's limit, so that a request succeeds on a slow network too.
	partSize = 1 << 20

	// cleanTimeout bounds the removal of the parts of a letter that could not be written.
	cleanTimeout = 5 * time.Second
)

// packing says in which part rows a letter's sections are, and how to read them.
type packing struct {
	Generation string `json:"generation"`
	Rows       int    `json:"rows"`
	SHA256     string `json:"sha256"` // of all parts
	Sizes      [4]int `json:"sizes"`  // of the sections, uncompressed
}

// errDamaged is wrapped by errors of a letter whose parts cannot be read completely.
var errDamaged = errors.New("its parts are damaged or missing")

func parsePacking(text string) (*packing, error) {
	p := new(packing)
	if err := json.Unmarshal([]byte(text), p); err != nil {
		return nil, fmt.Errorf("%w: column %s is malformed: %w", errDamaged, columnParts, err)
	}
	if p.Generation == "" || p.Rows < 1 || slices.Min(p.Sizes[:]) < 0 {
		return nil, fmt.Errorf("%w: column %s is incomplete", errDamaged, columnParts)
	}
	return p, nil
}

// size returns the size of all sections.
func (p *packing) size() (n int) {
	for _, size := range p.Sizes {
		n += size
	}
	return n
}

// partKey returns the key of one part.
func partKey(pipeline, id, generation string, number int) *tablestore.PrimaryKey {
	return rowKey(pipeline, partsSequence, fmt.Sprintf("%s/%s/%06d", id, generation, number))
}

// afterParts returns a key behind all parts of a generation.
func afterParts(pipeline, id, generation string) *tablestore.PrimaryKey {
	return rowKey(pipeline, partsSequence, id+"/"+generation+"/~")
}

// pack compresses the sections.
func pack(s *sections) ([]byte, [4]int, error) {
	var sizes [4]int
	var packed bytes.Buffer
	z, err := gzip.NewWriterLevel(&packed, gzip.BestSpeed)
	if err != nil {
		return nil, sizes, err
	}
	for i, section := range s.all() {
		sizes[i] = len(*section)
		if _, err := z.Write(*section); err != nil {
			return nil, sizes, err
		}
	}
	if err := z.Close(); err != nil { // writes the last of it
		return nil, sizes, err
	}
	return packed.Bytes(), sizes, nil
}

// unpack is the inverse of pack.
func unpack(packed []byte, sizes [4]int) (*sections, error) {
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	s := new(sections)
	for i, section := range s.all() {
		var b bytes.Buffer // grows with the data: the sizes in the row may be wrong
		if n, err := io.CopyN(&b, z, int64(sizes[i])); err != nil {
			return nil, fmt.Errorf("%d of %d bytes: %w", n, sizes[i], err)
		}
		*section = b.Bytes()
	}
	return s, z.Close()
}

// writeParts writes the sections of l to part rows and returns the letter's column parts.
func (t *Table) writeParts(ctx context.Context, l *Letter, s *sections) (string, error) {
	packed, sizes, err := pack(s)
	if err != nil {
		return "", fmt.Errorf("compress a dead letter: %w", err)
	}
	sum := sha256.Sum256(packed)
	p := packing{Generation: rand.Text(), SHA256: hex.EncodeToString(sum[:]), Sizes: sizes}
	for part := range slices.Chunk(packed, partSize) {
		err := t.client.call(ctx, "PutRow", func(c *tablestore.TableStoreClient) error {
			row := &tablestore.PutRowChange{TableName: t.name, PrimaryKey: partKey(l.Pipeline, l.rowID(), p.Generation, p.Rows)}
			row.SetCondition(tablestore.RowExistenceExpectation_IGNORE)
			row.AddColumn(columnOf, l.Sequence)
			row.AddColumn(columnWrittenAt, time.Now().UnixMilli())
			row.AddColumn(columnData, part)
			_, err := c.PutRow(&tablestore.PutRowRequest{PutRowChange: row})
			return err
		})
		p.Rows++
		if err != nil {
			// No row will name these parts. The next Replay deletes those that cannot
			// be deleted here.
			clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTimeout)
			defer cancel()
			return "", errors.Join(err, t.deleteParts(clean, l.Pipeline, l.rowID(), &p))
		}
	}
	text, err := json.Marshal(p)
	return string(text), err
}

// deleteParts deletes the parts of one generation.
func (t *Table) deleteParts(ctx context.Context, pipeline, id string, p *packing) error {
	keys := make([]*tablestore.PrimaryKey, p.Rows)
	for n := range keys {
		keys[n] = partKey(pipeline, id, p.Generation, n)
	}
	return t.deleteRows(ctx, keys)
}

// deleteRows deletes the rows that exist.
func (t *Table) deleteRows(ctx context.Context, keys []*tablestore.PrimaryKey) error {
	changes := make([]tablestore.RowChange, len(keys))
	for i, key := range keys {
		change := &tablestore.DeleteRowChange{TableName: t.name, PrimaryKey: key}
		change.SetCondition(tablestore.RowExistenceExpectation_IGNORE)
		changes[i] = change
	}
	if err := errors.Join(t.client.writeRows(ctx, changes)...); err != nil {
		return fmt.Errorf("delete parts from the dead-letter table %s: %w", t.name, err)
	}
	return nil
}

// unpack reads the parts of a packed letter. The error wraps errDamaged if some are
// missing or damaged.
func (t *Table) unpack(ctx context.Context, k *kept) error {
	if k.packing == nil {
		return nil
	}
	var packed []byte
	rows := 0
	from, end := partKey(k.Pipeline, k.id, k.packing.Generation, 0), afterParts(k.Pipeline, k.id, k.packing.Generation)
	for from != nil {
		page, next, err := t.read(ctx, from, end, k.packing.Rows+1)
		if err != nil {
			return err
		}
		for _, row := range page {
			for _, c := range row.Columns {
				if data, ok := c.Value.([]byte); ok && c.ColumnName == columnData {
					packed = append(packed, data...)
					rows++
				}
			}
		}
		from = next
	}
	if sum := sha256.Sum256(packed); hex.EncodeToString(sum[:]) != k.packing.SHA256 {
		return fmt.Errorf("%w: %d of %d parts, with %d bytes", errDamaged, rows, k.packing.Rows, len(packed))
	}
	s, err := unpack(packed, k.packing.Sizes)
	if err != nil {
		return fmt.Errorf("%w: %w", errDamaged, err)
	}
	if err := s.restore(k.Letter); err != nil {
		return fmt.Errorf("%w: %w", errDamaged, err)
	}
	k.packing = nil
	return nil
}
