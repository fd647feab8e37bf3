package subscriber

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/ack"
	"github.com/watermill-ots/watermill-ots/internal/ledger"
	"github.com/watermill-ots/watermill-ots/ots"
)

// Keys of the message metadata that an Unmarshaler of this package sets.
const (
	MetadataTable     = "ots.table"
	MetadataTunnel    = "ots.tunnel"
	MetadataChannel   = "ots.channel"
	MetadataType      = "ots.type"      // "put", "update" or "delete"
	MetadataTimestamp = "ots.timestamp" // of the change, microseconds since 1970; absent for base data
	MetadataKey       = "ots.key"       // the primary key's values as a JSON array, in key order
)

// copies reports whether an Unmarshaler is known to keep nothing of a Record,
// nor of the slices and strings in it, in the messages that it makes.
func copies(u ots.Unmarshaler) bool {
	switch u.(type) {
	case JSON, Raw, None, CloudEvents, Debezium:
		return true
	}
	return false
}

// delivery is one delivery of one record: the context of its message, and what
// a batching middleware may tell the subscriber.
//
// As a context it has the values of Subscribe's context, and ends with the
// delivery. What a cancellable context needs is made when somebody asks for it: most
// handlers never do.
//
// Invariants:
//   - ended is set once, under mu, and is the cause of the end.
//   - Once inner is there it ends when the delivery does, with the same cause.
//   - Done always returns the same channel: done, if WillWait came first, and else inner's.
type delivery struct {
	run     *channelRun
	attempt ledger.Attempt
	uuid    string
	changed int64         // change time of the record, µs since 1970; 0 for base data
	at      time.Duration // when its turn came, since the subscription started

	record atomic.Pointer[ots.Record] // nil until somebody asks for it

	mu      sync.Mutex
	ended   error
	inner   context.Context // nil until it is needed
	end     context.CancelCauseFunc
	done    chan struct{} // nil unless WillWait was called before anybody asked for Done
	trouble *trouble      // nil when all goes well
}

// trouble is what only a delivery needs that does not go well, or that waits
// outside of its handler. delivery.mu guards it.
type trouble struct {
	cause   error         // the cause given to the first CallBack
	alarms  int           // how many times the watchdog reported StuckAfter
	parked  bool          // it waits for something other than its handler
	resumed time.Duration // when that ended, since the subscription started
}

// since is when the record's turn came: it is offered to the output.
func (d *delivery) since() time.Time { return d.run.sub.started.Add(d.at) }

// troubled needs mu.
func (d *delivery) troubled() *trouble {
	if d.trouble == nil {
		d.trouble = new(trouble)
	}
	return d.trouble
}

var (
	_ ack.Delivery    = (*delivery)(nil)
	_ ack.Ender       = (*delivery)(nil)
	_ ack.Drainer     = (*delivery)(nil)
	_ ack.Parker      = (*delivery)(nil)
	_ context.Context = (*delivery)(nil)
)

// Value answers the keys of the record and of the delivery. The others are the
// subscription's, but for one that package context asks for to find the
// cause of an end, or to tie a child to it: only a context of its own answers that.
func (d *delivery) Value(key any) any {
	switch key {
	case ots.RecordKey:
		if t := &d.run.sub.typed; !t.Load() {
			t.Store(true)
		}
		return d.recordOf()
	case ack.DeliveryKey:
		return ack.Delivery(d)
	}
	d.mu.Lock()
	inner := d.inner
	if inner == nil && d.ended != nil {
		inner = d.materialize()
	}
	d.mu.Unlock()
	if inner != nil {
		return inner.Value(key)
	}
	return d.run.sub.values.Value(key)
}

// recordOf returns the record, the same one each time.
func (d *delivery) recordOf() *ots.Record {
	if rec := d.record.Load(); rec != nil {
		return rec
	}
	rec := d.attempt.Page().(*page).record(d.attempt.Index())
	rec.Attempt, rec.UUID = d.attempt.Number(), d.uuid
	if !d.record.CompareAndSwap(nil, rec) { // somebody was faster
		return d.record.Load()
	}
	return rec
}

// materialize needs mu. It makes the cancellable context.
func (d *delivery) materialize() context.Context {
	if d.inner == nil {
		d.inner, d.end = context.WithCancelCause(d.run.sub.values)
		if d.ended != nil {
			d.end(d.ended)
		}
	}
	return d.inner
}

// Deadline implements context.Context: there is none.
func (*delivery) Deadline() (deadline time.Time, ok bool) { return time.Time{}, false }

// Done implements context.Context.
func (d *delivery) Done() <-chan struct{} {
	d.expire()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.done != nil {
		return d.done
	}
	return d.materialize().Done()
}

// WillWait makes Done a plain channel, if nobody has asked for it yet. That is
// cheaper than a cancellable context, but package context needs a goroutine for
// each child that it ties to it.
func (d *delivery) WillWait() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.done == nil && d.inner == nil && d.ended == nil {
		d.done = make(chan struct{})
	}
}

// expire ends the session if its lease is over: the timer that does so is late when the
// process was suspended, and nobody may take the context for alive meanwhile.
func (d *delivery) expire() {
	if d.run.leaseOver(time.Now()) {
		d.run.session.expire()
	}
}

// Err implements context.Context.
func (d *delivery) Err() error {
	d.expire()
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.inner != nil && d.done == nil: // not before Done is closed
		return d.inner.Err()
	case d.ended != nil:
		return context.Canceled
	}
	return nil
}

func (d *delivery) over() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ended != nil
}

// cancel ends the context. Only the first cause counts.
func (d *delivery) cancel(cause error) {
	d.mu.Lock()
	if d.ended == nil {
		d.ended = cause
		if d.done != nil {
			close(d.done)
		}
	}
	end, cause := d.end, d.ended
	d.mu.Unlock()
	if end != nil {
		end(cause) // outside of mu: it calls back to whoever waits for it
	}
	d.run.recall(d)
}

// Key is the ordering key; empty when the subscription is Unordered.
func (d *delivery) Key() string { return d.attempt.Key() }

// HandOff lets the next record of the key be delivered.
func (d *delivery) HandOff() { d.run.tracker.HandOff(d.attempt) }

// Begin says that the message's batch runs.
func (d *delivery) Begin() { d.run.tracker.Begin(d.attempt) }

// CallBack takes back the later messages of the key.
func (d *delivery) CallBack(cause error) {
	if cause != nil {
		d.mu.Lock()
		if t := d.troubled(); t.cause == nil {
			t.cause = cause
		}
		d.mu.Unlock()
	}
	taken := d.run.tracker.CallBack(d.attempt)
	d.run.counts.add(countCalledBack, len(taken))
	cancelCalledBack(taken, cause)
}

// failure is why the message was nacked: Nack itself does not tell.
func (d *delivery) failure() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.trouble != nil && d.trouble.cause != nil {
		return d.trouble.cause
	}
	return errNacked
}

// Draining is closed when the channel drains.
func (d *delivery) Draining() <-chan struct{} { return d.run.draining }

// Park says that the message waits for something other than its handler.
func (d *delivery) Park() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.troubled().parked = true
}

// Resume says that the handler works on the message again.
func (d *delivery) Resume() {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.troubled()
	t.parked, t.resumed = false, time.Since(d.run.sub.started)
}

// Hurry is closed when the message should not be held back any longer.
func (d *delivery) Hurry() <-chan struct{} { return d.run.tracker.Hurry() }

// calledBack is the cancellation cause of a message that was taken back.
type calledBack struct{ cause error }

func (e *calledBack) Error() string {
	if e.cause == nil {
		return ack.ErrCalledBack.Error()
	}
	return ack.ErrCalledBack.Error() + ": " + e.cause.Error()
}

func (e *calledBack) Unwrap() []error {
	if e.cause == nil {
		return []error{ack.ErrCalledBack}
	}
	return []error{ack.ErrCalledBack, e.cause}
}

// cancelCalledBack ends the contexts of deliveries that the tracker took back.
func cancelCalledBack(taken []any, cause error) {
	if len(taken) > 0 {
		endAll(taken, &calledBack{cause: cause})
	}
}

// endAll ends the contexts of deliveries that are given in order, the last one
// first (law L3): a message that leaves its batch lets the batch behind it run, and by
// then those of its key that come later must have ended, too.
func endAll(deliveries []any, cause error) {
	for _, d := range slices.Backward(deliveries) {
		d.(*delivery).cancel(cause)
	}
}

// setMetadata sets the metadata that every message of a record has.
func setMetadata(msg *message.Message, r *ots.Record) {
	setMetadataIn(msg, r, make([]byte, 0, 64))
}

// setMetadataIn is setMetadata with the memory for the texts that have to be
// made: they are appended to scratch, whose spare capacity the caller gives away.
func setMetadataIn(msg *message.Message, r *ots.Record, scratch []byte) {
	from := len(scratch)
	if !r.Sequence.IsZero() {
		scratch = strconv.AppendInt(scratch, r.Sequence.Timestamp, 10)
	}
	key := len(scratch)
	scratch = r.AppendKeyText(scratch)
	setMetadataTexts(msg, r, r.Type, textOf(scratch[from:key]), textOf(scratch[key:]))
}

// setMetadataTexts sets the metadata of a record of the given origin. Without a timestamp there is none.
func setMetadataTexts(msg *message.Message, origin *ots.Record, typ ots.RecordType, timestamp, key string) {
	msg.Metadata[MetadataTable] = origin.Table
	msg.Metadata[MetadataTunnel] = origin.Tunnel
	msg.Metadata[MetadataChannel] = origin.Channel
	msg.Metadata[MetadataType] = typ.String()
	if timestamp != "" {
		msg.Metadata[MetadataTimestamp] = timestamp
	}
	msg.Metadata[MetadataKey] = key
}

// textOf is b as a string without a copy: nobody may write to b any more.
func textOf(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// uuids makes the UUIDs of one channel's messages.
//
// A UUID is a pure function of tunnel, channel, sequence, record type and
// primary key (law L2): the first 128 bits of a SHA-256 over them, in the form of a
// version 8 UUID (RFC 9562: custom). The same record has the same UUID in every
// process and on every delivery.
// Not for concurrent use.
type uuids struct {
	seed [sha256.Size]byte
	text []byte // of the next UUIDs, which share it
}

const (
	uuidSize = 36
	// uuidsInOne is how many UUIDs share a piece of memory: what keeps one keeps them all.
	uuidsInOne = 32
)

func newUUIDs(tunnelID, channelID string) *uuids {
	h := sha256.New()
	for _, s := range []string{tunnelID, channelID} {
		var n [8]byte
		binary.LittleEndian.PutUint64(n[:], uint64(len(s)))
		h.Write(n[:])
		h.Write([]byte(s))
	}
	u := new(uuids)
	h.Sum(u.seed[:0])
	return u
}

// of returns the UUID of a record with the given key bytes.
func (u *uuids) of(typ ots.RecordType, seq ots.Sequence, key string) string {
	var stack [192]byte
	b := append(stack[:0], u.seed[:]...)
	b = append(b, byte(typ))
	b = binary.LittleEndian.AppendUint32(b, uint32(seq.Epoch))
	b = binary.LittleEndian.AppendUint64(b, uint64(seq.Timestamp))
	b = binary.LittleEndian.AppendUint32(b, uint32(seq.RowIndex))
	b = append(b, key...)
	sum := sha256.Sum256(b)
	id := sum[:16]
	id[6] = id[6]&0x0f | 0x80 // version 8
	id[8] = id[8]&0x3f | 0x80 // variant of RFC 9562
	if len(u.text) < uuidSize {
		u.text = make([]byte, uuidsInOne*uuidSize)
	}
	text := u.text[:uuidSize]
	u.text = u.text[uuidSize:]
	hex.Encode(text[0:8], id[0:4])
	text[8] = '-'
	hex.Encode(text[9:13], id[4:6])
	text[13] = '-'
	hex.Encode(text[14:18], id[6:8])
	text[18] = '-'
	hex.Encode(text[19:23], id[8:10])
	text[23] = '-'
	hex.Encode(text[24:36], id[10:16])
	return textOf(text)
}
