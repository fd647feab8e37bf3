package store

import (
	"bytes"

	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

// copyRow copies the table's row with that key, unless it was already copied.
// t.mu is held.
func (tx *Transaction) copyRow(t *Table, key []byte) {
	if tx.whole || tx.copied[string(key)] {
		return
	}
	tx.copied[string(key)] = true
	p := t.partitions[t.find(key)]
	p.mu.RLock()
	defer p.mu.RUnlock()
	if row, ok := p.rows.get(key); ok {
		tx.rows.rows.put(key, row)
	}
}

// copyRows copies every row of the partition key that was not yet copied. t.mu
// is held.
func (tx *Transaction) copyRows(t *Table) {
	if tx.whole {
		return
	}
	from := []byte(tx.lock.key)
	to := plainbuffer.AppendOrderedKey(nil, []plainbuffer.Cell{{Value: tx.value}, {Value: plainbuffer.Special(plainbuffer.InfMax)}})
	p := t.partitions[t.find(from)]
	p.mu.RLock()
	defer p.mu.RUnlock()
	for at := p.rows.seek(from); ; at = p.rows.next(at) {
		key, row, ok := p.rows.at(at)
		if !ok || bytes.Compare(key, to) > 0 {
			break
		}
		if !tx.copied[string(key)] {
			tx.rows.rows.put(key, row)
		}
	}
	tx.whole = true
}

// View is a table's rows as a read sees them. A Table is a View.
type View interface {
	Get(key []plainbuffer.Cell, row *plainbuffer.Row) (exists bool, err error)
	Scan(dst [][]byte, start, end []byte, backward bool, limit int) (found [][]byte, next []byte, err error)
}

// View returns the table as the transaction sees it: its own changes, and
// otherwise what is committed. It is valid while the transaction is in use.
func (tx *Transaction) View(t *Table) View { return transactionView{tx, t} }

type transactionView struct {
	tx    *Transaction
	table *Table
}

// Get implements View.
func (v transactionView) Get(key []plainbuffer.Cell, row *plainbuffer.Row) (exists bool, err error) {
	t := v.table
	t.mu.RLock()
	defer t.mu.RUnlock()
	if err := v.tx.scope(t); err != nil {
		return false, err
	}
	if err := t.schema.CheckKey(key, false, false); err != nil {
		return false, err
	}
	if err := v.tx.holds(key); err != nil {
		return false, err
	}
	ordered := plainbuffer.AppendOrderedKey(nil, key)
	v.tx.copyRow(t, ordered)
	return v.tx.rows.decode(t, ordered, row, t.store.now().UnixMilli())
}

// Scan implements View. Both ends of the range begin with the transaction's
// partition key.
func (v transactionView) Scan(dst [][]byte, start, end []byte, backward bool, limit int) (found [][]byte, next []byte, err error) {
	t := v.table
	t.mu.RLock()
	defer t.mu.RUnlock()
	if err := v.tx.scope(t); err != nil {
		return nil, nil, err
	}
	prefix := []byte(v.tx.lock.key)
	if !bytes.HasPrefix(start, prefix) || !bytes.HasPrefix(end, prefix) {
		return nil, nil, wire.Errorf(wire.CodeDataOutOfRange, "Data out of scope of transaction. The range leaves PartKey:%s.", keyText(v.tx.value))
	}
	v.tx.copyRows(t)
	found, next = v.tx.rows.scan(dst, start, end, backward, limit)
	return found, next, nil
}
