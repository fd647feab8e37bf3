package tunnels

import (
	"cmp"
	"crypto/rand"
	"slices"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/watermill-ots/watermill-ots/emulator/internal/assume"
	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

// otherReads is what reads under assumed behaviours remember of a channel. The
// tunnel's mutex guards it.
type otherReads struct {
	last    [2]string       // tokens of the last two answers
	seen    map[string]bool // tokens of reads, at most maxSeen
	started bool
}

// maxSeen bounds how many tokens of a channel are remembered.
const maxSeen = 10_000

// otherPosition returns where a read at p begins, or why it is refused, under the
// assumed behaviours. ch is a copy.
func (s *Service) otherPosition(t *tunnel, ch *channelRecord, req readRequest, p position) (position, error) {
	if len(t.assume) == 0 || ch.Base {
		return p, nil
	}
	token := string(req.token)
	var end int64
	if t.assume[assume.StreamAfterBase] && t.hasBase() || t.assume[assume.RereadSkips] {
		var err error
		if end, _, err = s.src.SeekShard(t.TableID, ch.ID, tail); err != nil {
			return p, s.sourceError(t, err)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.byID[ch.ID]
	if c == nil {
		return p, nil // the second look at the channel answers
	}
	r := &c.reads
	switch {
	case t.assume[assume.OldTokensRefused] && token != ch.Token && token != r.last[0] && token != r.last[1]:
		return p, wire.TunnelErrorf(wire.CodeParameterInvalid, t.ID, "read of channel %q: the token is too old", ch.ID)
	case t.assume[assume.RereadSkips] && r.seen[token] && p.offset < end:
		p.offset++
	case t.assume[assume.StreamAfterBase] && t.hasBase() && !r.started:
		p.offset = end
	}
	r.started = true
	if t.assume[assume.RereadSkips] {
		if r.seen == nil || len(r.seen) == maxSeen {
			r.seen = make(map[string]bool)
		}
		r.seen[token] = true
	}
	return p, nil
}

// answered remembers the token of an answer.
func (r *otherReads) answered(token []byte) {
	r.last[1], r.last[0] = r.last[0], string(token)
}

// otherRecords returns data, whose records follow dst, with the sequences and cells that
// the assumed behaviours give them.
func (t *tunnel) otherRecords(dst, data []byte) ([]byte, error) {
	milliseconds, change, more := t.assume[assume.Milliseconds], t.assume[assume.SequencesChange], t.assume[assume.UpdatesHoldMore]
	sorted := t.assume[assume.CellsSorted]
	if !milliseconds && !change && !more && !sorted {
		return data, nil
	}
	var page protocol.ReadRecordsResponse
	if err := (proto.UnmarshalOptions{AllowPartial: true}).Unmarshal(data[len(dst):], protoadapt.MessageV2Of(&page)); err != nil {
		return nil, wire.Errorf(wire.CodeInternalServerError, "decode a page: %v", err)
	}
	for _, r := range page.Records {
		var row plainbuffer.Row
		if err := plainbuffer.Decode(r.Record, &row); err != nil {
			return nil, wire.Errorf(wire.CodeInternalServerError, "decode a record: %v", err)
		}
		if !row.HasSequence {
			continue
		}
		if more && r.GetActionType() == protocol.ActionType_UPDATE_ROW {
			row.Cells = append(row.Cells, plainbuffer.Cell{
				Name: "unchanged", HasValue: true, Value: plainbuffer.IntegerValue(0), HasTimestamp: true, Timestamp: time.Now().UnixMilli(),
			})
		}
		if sorted {
			slices.SortStableFunc(row.Cells, func(a, b plainbuffer.Cell) int { return cmp.Compare(puts(a), puts(b)) })
		}
		if milliseconds {
			row.Sequence.Timestamp /= 1000
		}
		if change {
			var b [2]byte
			rand.Read(b[:]) // never fails
			row.Sequence.RowIndex = int32(b[0])<<8 | int32(b[1])
		}
		r.Record = plainbuffer.AppendRow(plainbuffer.AppendHeader(nil), &row)
	}
	out, err := proto.MarshalOptions{AllowPartial: true}.MarshalAppend(dst, protoadapt.MessageV2Of(&page))
	if err != nil {
		return nil, wire.Errorf(wire.CodeInternalServerError, "encode a page: %v", err)
	}
	return out, nil
}

// puts is 1 for a cell with a value, and 0 for a removal.
func puts(c plainbuffer.Cell) int {
	if c.Op == plainbuffer.Put {
		return 1
	}
	return 0
}
