package store

import (
	"crypto/rand"
	"regexp"
	"sync"
	"sync/atomic"
	"time"

	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

// Documented limits of local transactions:
// https://www.alibabacloud.com/help/en/tablestore/developer-reference/go-local-transactions
const (
	transactionLife = time.Minute
	maxTransaction  = 4 << 20 // bytes of data that a transaction writes
)

// transactionID matches the ids that rand.Text generates. The service
// distinguishes an id that it cannot have assigned from one of a transaction
// that has ended.
var transactionID = regexp.MustCompile(`^[A-Z2-7]{26,}$`)

// transactions are the open transactions of a store. They are in memory only: a
// restart ends them, as their timeout would.
type transactions struct {
	locks atomic.Int32 // number of locked partition keys: writes need no mutex while it is zero

	mu    sync.Mutex // guards the following; locked last, with a partition's lock held
	byID  map[string]*Transaction
	byKey map[lockedKey]*Transaction
}

// lockedKey is a partition key locked by a transaction: the table's id and the
// first column of the primary key as an ordered key.
type lockedKey struct{ table, key string }

// Transaction is a local transaction. Only it sees what it writes to the rows
// of its partition key, until Commit makes all changes at once. Meanwhile every
// other write to these rows is refused, so they stay as the transaction has
// read them.
//
// One request at a time uses it (Store.Transaction).
type Transaction struct {
	store   *Store
	id      string
	lock    lockedKey
	value   plainbuffer.Value // of the partition key
	expires time.Time         // by the aging clock; ignored while busy
	busy    bool              // whether a request uses it; guarded by transactions.mu

	changes []*Change
	size    int             // bytes of data written
	rows    *partition      // the transaction's own copies of rows, without a log
	copied  map[string]bool // ordered keys of the rows that were copied
	whole   bool            // whether every row of the partition key was copied
}

// StartTransaction locks the partition key, which is given as a primary key
// with its first column only, and returns the transaction's id. It keeps key.
func (s *Store) StartTransaction(t *Table, key []plainbuffer.Cell) (id string, err error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if err := t.usable(); err != nil {
		return "", err
	}
	if !t.schema.LocalTransactions {
		return "", wire.Invalid("Try to call method using explicit transaction on explicit-transaction-disabled table.")
	}
	first := Schema{Key: t.schema.Key[:1]}
	if err := first.CheckKey(key, false, false); err != nil {
		return "", err
	}
	ordered := orderedPartitionKey(key)
	p := t.partitions[t.find(ordered)]
	p.mu.Lock() // no write to these rows is half done
	defer p.mu.Unlock()
	tx := &Transaction{
		store: s, id: rand.Text(), lock: lockedKey{t.id, string(ordered)}, value: key[0].Value,
		expires: s.aging.Now().Add(transactionLife), rows: &partition{private: true}, copied: make(map[string]bool),
	}
	return tx.id, s.transactions.start(tx, s.aging.Now())
}

// orderedPartitionKey returns the first column of a primary key as an ordered key.
func orderedPartitionKey(key []plainbuffer.Cell) []byte {
	return plainbuffer.AppendOrderedKey(nil, []plainbuffer.Cell{{Value: key[0].Value}})
}

func (l *transactions) start(tx *Transaction, now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, other := range l.byID {
		l.expire(other, now)
	}
	if l.byKey[tx.lock] != nil {
		return errLocked()
	}
	if l.byID == nil {
		l.byID, l.byKey = make(map[string]*Transaction), make(map[lockedKey]*Transaction)
	}
	l.byID[tx.id], l.byKey[tx.lock] = tx, tx
	l.locks.Add(1)
	return nil
}

// expire ends a transaction whose time is up. l.mu is held.
func (l *transactions) expire(tx *Transaction, now time.Time) {
	if !tx.busy && !now.Before(tx.expires) {
		l.remove(tx)
	}
}

// remove ends a transaction; a second call does nothing. l.mu is held.
func (l *transactions) remove(tx *Transaction) {
	if l.byID[tx.id] != nil {
		delete(l.byID, tx.id)
		delete(l.byKey, tx.lock)
		l.locks.Add(-1)
	}
}

// check refuses a change of rows that another transaction has locked. The lock
// of the row's partition is held.
func (l *transactions) check(t *Table, c *Change) error {
	if l.locks.Load() == 0 {
		return nil
	}
	key := lockedKey{t.id, string(orderedPartitionKey(c.Row.PrimaryKey))}
	l.mu.Lock()
	defer l.mu.Unlock()
	holder := l.byKey[key]
	if holder == nil || holder == c.tx {
		return nil
	}
	if l.expire(holder, t.store.aging.Now()); l.byKey[key] == nil {
		return nil
	}
	return errLocked()
}

func errLocked() error {
	return wire.Errorf(wire.CodeRowOperationConflict, "Data is being modified by the other request.")
}

// Transaction calls f with the open transaction that has the id. Until f
// returns, the transaction does not expire and no other request uses it.
func (s *Store) Transaction(id string, f func(*Transaction) error) error {
	l := &s.transactions
	l.mu.Lock()
	tx := l.byID[id]
	if tx != nil {
		l.expire(tx, s.aging.Now())
	}
	switch {
	case !transactionID.MatchString(id):
		l.mu.Unlock()
		return wire.Invalid("TransactionID is invalid.")
	case l.byID[id] == nil:
		l.mu.Unlock()
		return wire.Errorf(wire.CodeSessionNotExist, "Session not exist or may be timeout.")
	case tx.busy:
		l.mu.Unlock()
		return wire.Errorf(wire.CodeSessionBusy, "The last request of the transaction is not finished.")
	}
	tx.busy = true
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		tx.busy = false
		l.mu.Unlock()
	}()
	return f(tx)
}

// Abort ends the transaction without making its changes.
func (tx *Transaction) Abort() {
	l := &tx.store.transactions
	l.mu.Lock()
	defer l.mu.Unlock()
	l.remove(tx)
}

// Commit makes all changes and returns once they are durable. They share a time
// in the log. If it fails, the transaction stays open and can be committed
// again.
func (tx *Transaction) Commit() error {
	t, err := tx.store.table(tx.lock.table)
	if err != nil {
		tx.Abort() // the transaction ends with its table
		return errNoTable()
	}
	if len(tx.changes) > 0 {
		if err := t.commit(tx); err != nil {
			return err
		}
	}
	tx.Abort() // nothing is left to do
	return nil
}

func (t *Table) commit(tx *Transaction) error {
	if err := t.store.commits.revive(); err != nil {
		return err
	}
	round, err := t.applyTransaction(tx)
	if err != nil {
		return err
	}
	return t.store.commits.wait(round)
}

func (t *Table) applyTransaction(tx *Transaction) (*round, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if err := t.writable(); err != nil {
		return nil, err
	}
	p := t.partitions[t.find([]byte(tx.lock.key))]
	p.lock(t)
	defer p.unlock(t)
	return p.applyAll(t, tx.changes, t.store.now().UnixMilli())
}

// Apply makes changes within the transaction. Like Table.Apply it stores its
// outcome in each of them, and returns an error if nothing was done at all.
// size is the amount of data that the request writes. The changes' rows are
// kept, so the memory that they are views of must not change.
func (tx *Transaction) Apply(t *Table, changes []*Change, size int, atomic bool) error {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if err := tx.scope(t); err != nil {
		return err
	}
	if tx.size+size > maxTransaction {
		return wire.Errorf(wire.CodeOutOfTransactionSize, "The total data size of the transaction exceeds the limit, limit size: %d, data size: %d.", maxTransaction, tx.size+size)
	}
	nowMillis := t.store.now().UnixMilli()
	var undo undo
	var made []*Change
	for _, c := range changes {
		if c.Err = tx.apply(t, c, &undo, nowMillis); c.Err == nil {
			made = append(made, c.settled(tx))
		} else if atomic {
			undo.all(tx.rows)
			return c.Err
		}
	}
	if len(made) > 0 {
		tx.size += size
	}
	tx.changes = append(tx.changes, made...)
	tx.rows.writer.pending = nil // these rows are not in the table
	return nil
}

func (tx *Transaction) apply(t *Table, c *Change, undo *undo, nowMillis int64) error {
	if err := t.prepare(c, nowMillis); err != nil {
		return err
	}
	if err := tx.holds(c.Row.PrimaryKey); err != nil {
		return err
	}
	c.tx = tx
	tx.copyRow(t, c.key)
	undo.remember(tx.rows, c.key)
	return tx.rows.apply(t, c, plainbuffer.Sequence{}, nowMillis)
}

// settled returns the change in the form in which Commit repeats it: its
// conditions have been met, its increments are puts, and its cells have their
// versions.
func (c *Change) settled(tx *Transaction) *Change {
	return &Change{Action: c.Action, Row: c.Row, key: c.key, tx: tx}
}

// scope refuses a table other than the transaction's. t.mu is held.
func (tx *Transaction) scope(t *Table) error {
	if err := t.usable(); err != nil {
		return err
	}
	if t.id != tx.lock.table {
		return wire.Errorf(wire.CodeDataOutOfRange, "Data out of scope of transaction. The transaction is of another table than '%s'.", t.schema.Name)
	}
	return nil
}

// holds refuses rows that do not have the transaction's partition key.
func (tx *Transaction) holds(key []plainbuffer.Cell) error {
	if first := key[0].Value; !first.Equal(tx.value) {
		return wire.Errorf(wire.CodeDataOutOfRange, "Data out of scope of transaction. Transaction PartKey:%s. Data PartKey:%s", keyText(tx.value), keyText(first))
	}
	return nil
}
