package store

import (
	"bytes"
	"slices"
	"sort"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/watermill-ots/watermill-ots/emulator/internal/tunnels"
	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

// TableID implements tunnels.Source.
func (s *Store) TableID(name string) (id string, err error) {
	err = s.Read(func() error {
		t, err := s.Table(name)
		if err == nil && t.indexOf != nil {
			err = wire.Invalid("Table '%s' is an index table, which has no tunnels.", name)
		}
		if err == nil {
			id = t.id
		}
		return err
	})
	return id, err
}

// Stream implements tunnels.Source.
func (s *Store) Stream(table string, enable bool) (info tunnels.StreamInfo, err error) {
	err = s.Read(func() error {
		t, err := s.table(table)
		if err != nil {
			return err
		}
		if info = t.Stream(); info.Enabled || !enable {
			return nil
		}
		if err := t.Update(nil, nil, &StreamSpec{Enabled: true}); err != nil {
			return err
		}
		info = t.Stream()
		return nil
	})
	return info, err
}

// Shards implements tunnels.Source.
func (s *Store) Shards(table string) (found []tunnels.Shard, err error) {
	err = s.Read(func() error {
		found, err = s.shards(table)
		return err
	})
	return found, err
}

func (s *Store) shards(table string) ([]tunnels.Shard, error) {
	t, err := s.table(table)
	if err != nil {
		return nil, err
	}
	if err := t.expire(); err != nil {
		return nil, err
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	kept := make(map[string]bool, len(t.shards))
	for _, sh := range t.shards {
		kept[sh.id] = true
	}
	found := make([]tunnels.Shard, 0, len(t.shards))
	for _, sh := range t.shards {
		sh.mu.RLock()
		shard := tunnels.Shard{ID: sh.id, Closed: sh.closed, Created: sh.created}
		sh.mu.RUnlock()
		for _, parent := range sh.parents {
			if kept[parent] {
				shard.Parents = append(shard.Parents, parent)
			}
		}
		found = append(found, shard)
	}
	return found, nil
}

// expire drops what the stream's retention has ended: records, and closed
// shards without records.
func (t *Table) expire() error {
	horizon, ok := t.horizon()
	if !ok {
		return nil
	}
	t.mu.RLock()
	shards := slices.Clone(t.shards)
	t.mu.RUnlock()
	ended := false
	for _, sh := range shards {
		t.trim(sh, horizon)
		sh.mu.RLock()
		ended = ended || sh.closed && sh.closedAge < horizon
		sh.mu.RUnlock()
	}
	if !ended {
		return nil
	}
	t.mu.Lock()
	if t.writable() != nil {
		t.mu.Unlock()
		return nil // they are dropped when the disk accepts it
	}
	var gone []mutation
	t.shards = slices.DeleteFunc(t.shards, func(sh *shard) bool {
		sh.mu.RLock()
		defer sh.mu.RUnlock()
		ended := sh.closed && sh.closedAge < horizon
		if ended {
			gone = append(gone, mutation{kind: dropBucket, bucket: sh.bucket})
		}
		return ended
	})
	round := t.store.commits.enqueue(append(gone, t.snapshot(false)), nil)
	t.mu.Unlock()
	return t.store.commits.wait(round)
}

// horizon returns the time (µs of the aging clock) before which records are
// expired.
func (t *Table) horizon() (micros int64, ok bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.store.aging.Now().Add(-t.stream.Expiration).UnixMicro(), t.stream.Enabled
}

// trim drops a shard's expired records. It does not wait for the disk: a record
// that reappears after a crash is still expired.
func (t *Table) trim(s *shard, horizon int64) {
	if !s.trim(horizon) {
		return
	}
	s.mu.RLock()
	// The newest dropped record stays on disk: after a restart it shows where
	// the log continues and up to when it was trimmed.
	anchor := s.trimmed - 1
	s.mu.RUnlock()
	t.store.commits.enqueue([]mutation{{kind: trimRecords, bucket: s.bucket, offset: anchor}}, nil)
}

// shard returns the table's shard of that id, trimmed to the retention.
func (s *Store) shard(table, id string) (*shard, error) {
	t, err := s.table(table)
	if err != nil {
		return nil, err
	}
	horizon, _ := t.horizon()
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, sh := range t.shards {
		if sh.id == id {
			t.trim(sh, horizon)
			return sh, nil
		}
	}
	return nil, wire.Invalid("The stream of table '%s' has no shard '%s'.", t.schema.Name, id)
}

// SeekShard implements tunnels.Source.
func (s *Store) SeekShard(table, shard string, t time.Time) (offset int64, truncated bool, err error) {
	err = s.Read(func() error {
		offset, truncated, err = s.seekShard(table, shard, t)
		return err
	})
	return offset, truncated, err
}

func (s *Store) seekShard(table, shard string, t time.Time) (offset int64, truncated bool, err error) {
	sh, err := s.shard(table, shard)
	if err != nil {
		return 0, false, err
	}
	if t.IsZero() {
		sh.mu.RLock()
		defer sh.mu.RUnlock()
		return min(sh.trimmed, sh.visible), false, nil
	}
	offset, truncated = sh.seek(t.UnixMicro())
	return offset, truncated, nil
}

// ReadShard implements tunnels.Source.
//
// Readable records are durable, so it does not wait for a write, except at the
// end of a shard: a split or merge that a crash takes back ends none.
func (s *Store) ReadShard(dst []byte, table, shard string, offset int64, before time.Time, maxRows, maxBytes int) (page tunnels.ShardPage, err error) {
	read := func() error {
		page, err = s.readShard(dst, table, shard, offset, before, maxRows, maxBytes)
		return err
	}
	if err := read(); err == nil && !page.End {
		return page, nil
	}
	err = s.Read(read)
	return page, err
}

func (s *Store) readShard(dst []byte, table, shard string, offset int64, before time.Time, maxRows, maxBytes int) (tunnels.ShardPage, error) {
	sh, err := s.shard(table, shard)
	if err != nil {
		return tunnels.ShardPage{}, err
	}
	limit, passed := int64(1<<63-1), false
	if !before.IsZero() {
		limit = before.UnixMicro()
		passed = !s.now().Before(before) && sh.promise(limit)
	}
	if tail := sh.tail(); offset > tail {
		return tunnels.ShardPage{}, wire.Invalid("The token is ahead of the log of shard '%s': it is at record %d, and the log ends at %d.", shard, offset, tail)
	}
	page, parts := sh.read(offset, limit, passed, max(maxRows, 1), maxBytes, s.now)
	for _, part := range parts {
		dst = append(dst, part...)
	}
	page.Data = dst
	return page, nil
}

// read returns views of the records at and after offset whose time is below
// limit. passed says that no further write below limit will begin.
func (s *shard) read(offset, limit int64, passed bool, maxRows, maxBytes int, now func() time.Time) (page tunnels.ShardPage, parts [][]byte) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if offset < s.trimmed {
		offset, page.Trimmed = s.trimmed, true
	}
	page.Next = offset
	ended := false // whether there is a record at or after limit
	bytesLeft := maxBytes
	for n := s.locate(offset); n < len(s.segments) && page.Records < maxRows; n++ {
		seg := s.segments[n]
		from := int(page.Next - seg.base)
		to := min(len(seg.ends), from+maxRows-page.Records, int(s.visible-seg.base))
		if to <= from {
			break
		}
		if seg.times[to-1] >= limit {
			to = from + sort.Search(to-from, func(i int) bool { return seg.times[from+i] >= limit })
			ended = true
		}
		start := seg.start(from)
		fit := from + sort.Search(to-from, func(i int) bool { return int(seg.ends[from+i])-start > bytesLeft })
		full := fit < to
		if full && page.Records == 0 {
			fit = max(fit, from+1)
		}
		if fit > from {
			parts = append(parts, seg.data[start:seg.ends[fit-1]])
			bytesLeft -= int(seg.ends[fit-1]) - start
			page.Records += fit - from
			page.Next = seg.base + int64(fit)
			page.LastTime = time.UnixMicro(seg.times[fit-1])
		}
		if full || ended {
			ended = ended && !full
			break
		}
	}
	drained := page.Next >= s.next && s.visible >= s.next
	passed = passed && (s.writing == 0 || s.writing >= limit)
	page.End = ended || drained && (s.closed || passed)
	page.More = !ended && page.Next < s.visible
	if page.Known = page.LastTime; !page.More {
		page.Known = s.known(now())
	}
	return page, parts
}

// BaseRanges implements tunnels.Source.
func (s *Store) BaseRanges(table string) (ranges []tunnels.KeyRange, err error) {
	err = s.Read(func() error {
		ranges, err = s.baseRanges(table)
		return err
	})
	return ranges, err
}

func (s *Store) baseRanges(table string) ([]tunnels.KeyRange, error) {
	t, err := s.table(table)
	if err != nil {
		return nil, err
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	ranges := make([]tunnels.KeyRange, len(t.partitions))
	for i, p := range t.partitions {
		if p.low == nil {
			continue
		}
		ranges[i].Start = t.bound(*p.low)
		ranges[i-1].End = ranges[i].Start
	}
	return ranges, nil
}

// bound returns the lowest primary key of a partition key. t.mu is held.
func (t *Table) bound(v plainbuffer.Value) []byte {
	key := make([]plainbuffer.Cell, len(t.schema.Key))
	for i := range key {
		key[i] = plainbuffer.Cell{Name: t.schema.Key[i].Name, HasValue: true, Value: plainbuffer.Special(plainbuffer.InfMin)}
	}
	key[0].Value = v
	return plainbuffer.AppendPrimaryKey(nil, key)
}

// ReadBase implements tunnels.Source.
func (s *Store) ReadBase(dst []byte, table string, start, end []byte, maxRows, maxBytes int) (page tunnels.BasePage, err error) {
	err = s.Read(func() error {
		page, err = s.readBase(dst, table, start, end, maxRows, maxBytes)
		return err
	})
	return page, err
}

func (s *Store) readBase(dst []byte, table string, start, end []byte, maxRows, maxBytes int) (tunnels.BasePage, error) {
	t, err := s.table(table)
	if err != nil {
		return tunnels.BasePage{}, err
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	if err := t.usable(); err != nil {
		return tunnels.BasePage{}, err
	}
	from, err := t.orderedBound(start)
	if err != nil {
		return tunnels.BasePage{}, err
	}
	to, err := t.orderedBound(end)
	if err != nil {
		return tunnels.BasePage{}, err
	}
	page := basePage{table: t, dst: dst, base: len(dst), maxRows: max(maxRows, 1), maxBytes: maxBytes, nowMillis: s.now().UnixMilli()}
	for n := t.find(from); n < len(t.partitions) && page.next == nil; n++ {
		p := t.partitions[n]
		if to != nil && bytes.Compare(p.lowKey, to) >= 0 {
			break
		}
		p.mu.RLock()
		err := page.read(&p.rows, from, to)
		p.mu.RUnlock()
		if err != nil {
			return tunnels.BasePage{}, err
		}
	}
	return tunnels.BasePage{Data: page.dst, Records: page.records, Next: page.next}, nil
}

// orderedBound decodes a primary key that bounds a range; nil stays nil.
func (t *Table) orderedBound(key []byte) ([]byte, error) {
	if key == nil {
		return nil, nil
	}
	var row plainbuffer.Row
	if err := plainbuffer.Decode(key, &row); err != nil {
		return nil, wire.Invalid("decoding the primary key that bounds a range: %v", err)
	}
	if err := t.schema.CheckKey(row.PrimaryKey, true, false); err != nil {
		return nil, err
	}
	return plainbuffer.AppendOrderedKey(nil, row.PrimaryKey), nil
}

// basePage collects the records of one base data page.
type basePage struct {
	table             *Table
	dst               []byte
	base              int // length of dst before the page
	records           int
	maxRows, maxBytes int
	nowMillis         int64
	next              []byte // where the next page begins; nil until the page is full

	row    plainbuffer.Row
	buffer []byte
}

// read appends the rows of one partition. Stored rows have the wire format, so
// most are copied as they are.
func (b *basePage) read(r *rows, from, to []byte) error {
	t := b.table
	recode := t.schema.Options.TTL >= 0 || t.versionsLowered
	for at := r.seek(from); ; at = r.next(at) {
		key, row, ok := r.at(at)
		if !ok || to != nil && bytes.Compare(key, to) >= 0 {
			return nil
		}
		full := b.records >= b.maxRows || b.records > 0 && len(b.dst)-b.base+len(row) > b.maxBytes
		if recode || full {
			alive, err := t.decodeRow(row, &b.row, b.nowMillis)
			if err != nil {
				return err
			}
			if full {
				b.next = plainbuffer.AppendPrimaryKey(nil, b.row.PrimaryKey)
				return nil
			}
			if !alive {
				continue
			}
			b.buffer = plainbuffer.AppendRow(b.buffer[:0], &b.row)
			row = b.buffer
		}
		b.dst = appendBaseRecord(b.dst, row)
		b.records++
	}
}

// headerSize is the length of a PlainBuffer header.
const headerSize = 4

// appendBaseRecord appends a PUT_ROW Record as field 1 of a
// ReadRecordsResponse, from a row without its header.
func appendBaseRecord(dst, row []byte) []byte {
	size := headerSize + len(row)
	dst = append(dst, tagRecords)
	dst = protowire.AppendVarint(dst, uint64(2+1+protowire.SizeVarint(uint64(size))+size))
	dst = append(dst, tagAction, byte(PutRow), tagRow)
	dst = protowire.AppendVarint(dst, uint64(size))
	dst = plainbuffer.AppendHeader(dst)
	return append(dst, row...)
}
