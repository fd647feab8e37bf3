package tunnels

import (
	"net/http"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/watermill-ots/watermill-ots/emulator/internal/assume"
	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
)

// readRequest is a ReadRecordsRequest. Its fields are views into the body.
type readRequest struct{ tunnelID, clientID, channelID, token []byte }

func parseReadRequest(body []byte) (readRequest, error) {
	var r readRequest
	err := eachField(body, func(num protowire.Number, _ int64, b []byte) {
		switch num {
		case 1:
			r.tunnelID = b
		case 2:
			r.clientID = b
		case 3:
			r.channelID = b
		case 4:
			r.token = b
		}
	})
	if err != nil {
		return r, wire.Invalid("malformed request: %v", err)
	}
	if r.tunnelID == nil || r.clientID == nil || r.channelID == nil || r.token == nil {
		return r, wire.Invalid("malformed request: tunnel_id, client_id, channel_id and token are required")
	}
	return r, nil
}

// page is the result of one read.
type page struct {
	data    []byte // dst with the records appended
	records int
	next    position
	more    bool
	end     bool
}

// readRecords answers with the records after a token. It costs a few
// allocations per page and none per record: the Source appends the records in
// their wire format, and the two other fields follow them.
func (s *Service) readRecords(body, dst []byte) ([]byte, error) {
	req, err := parseReadRequest(body)
	if err != nil {
		return nil, err
	}
	s.mu.RLock()
	t := s.tunnels[string(req.tunnelID)]
	s.mu.RUnlock()
	if t == nil {
		return nil, unknownTunnel(s.cfg.Assume, string(req.tunnelID))
	}
	var ch channelRecord
	err = s.peek(t, func(time.Time) error {
		c, err := t.readable(string(req.clientID), string(req.channelID))
		if err == nil {
			ch = c.channelRecord
		}
		return err
	})
	if err != nil {
		if s.trimmedAt(t, req) {
			return nil, trimmed(t.ID)
		}
		return nil, err
	}
	if string(req.token) == finishToken && !t.assume[assume.FinishedReadRefused] {
		return appendPageEnd(dst, req.token, false), nil
	}
	p, err := positionIn(&ch, req.token)
	if err != nil {
		return nil, wire.TunnelErrorf(wire.CodeParameterInvalid, t.ID, "read of channel %q: %v", ch.ID, err)
	}
	if p, err = s.otherPosition(t, &ch, req, p); err != nil {
		return nil, err
	}
	var pg page
	if ch.Base {
		pg, err = s.readBase(t, &ch, p, dst)
	} else {
		pg, err = s.readShard(t, &ch, p, dst)
	}
	if err != nil {
		return nil, err
	}
	// The channel may have changed its owner during the read: then the records
	// belong to the new owner.
	err = s.peek(t, func(now time.Time) error {
		c, err := t.readable(string(req.clientID), string(req.channelID))
		if err != nil || c.Owner == "" { // a reader without ownership leaves no trace
			return err
		}
		if len(t.assume) > 0 {
			c.reads.answered(appendToken(nil, pg.next))
		}
		c.accessTime = now.UnixNano()
		c.readCount, c.readRPO = pg.next.count, pg.next.time
		c.served += int64(pg.records)
		if pg.end && (!c.FinishServed || c.EndCount != pg.next.count) {
			c.FinishServed, c.EndCount, c.EndRPO = true, pg.next.count, pg.next.time
			t.touch(c)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if pg.data, err = t.otherRecords(dst, pg.data); err != nil {
		return nil, err
	}
	if pg.end {
		return appendPageEnd(pg.data, []byte(finishToken), false), nil
	}
	return appendPageEnd(pg.data, appendToken(nil, pg.next), pg.more), nil
}

// appendPageEnd appends next_token and may_more_record. The flag is always set,
// so that clients need not guess from the size of the response.
func appendPageEnd(dst, token []byte, more bool) []byte {
	dst = appendBytes(dst, 2, token)
	dst = protowire.AppendTag(dst, 3, protowire.VarintType)
	return protowire.AppendVarint(dst, protowire.EncodeBool(more))
}

func (s *Service) readBase(t *tunnel, ch *channelRecord, p position, dst []byte) (page, error) {
	start := p.key
	if len(start) == 0 {
		start = ch.Start
	}
	b, err := s.src.ReadBase(dst, t.TableID, start, ch.End, s.cfg.MaxRows, s.cfg.MaxBytes)
	if err != nil {
		return page{}, s.sourceError(t, err)
	}
	return page{
		data:    b.Data,
		records: b.Records,
		next:    position{key: b.Next, count: p.count + int64(b.Records)},
		more:    b.Next != nil,
		end:     b.Next == nil,
	}, nil
}

func (s *Service) readShard(t *tunnel, ch *channelRecord, p position, dst []byte) (page, error) {
	b, err := s.src.ReadShard(dst, t.TableID, ch.ID, p.offset, t.end(), s.cfg.MaxRows, s.cfg.MaxBytes)
	if err != nil {
		return page{}, s.sourceError(t, err)
	}
	if b.Trimmed {
		if err := s.update(t, func(time.Time) error { t.expire(); return nil }); err != nil {
			return page{}, err
		}
		return page{}, trimmed(t.ID)
	}
	next := position{shard: ch.ID, offset: b.Next, time: p.time, count: p.count + int64(b.Records)}
	if !b.Known.IsZero() {
		next.time = max(next.time, b.Known.UnixNano())
	}
	return page{data: b.Data, records: b.Records, next: next, more: b.More, end: b.End}, nil
}

// trimmed is the documented answer to a read of records that the log has dropped.
// The code is that of a fault of the service, but the status is not: the same
// call never succeeds. ex_aliyun_ots (Elixir) looks for the text.
func trimmed(tunnelID string) error {
	e := wire.TunnelErrorf(wire.CodeTunnelServerUnavailable, tunnelID, "%s Requested stream data is already trimmed or does not exist", wire.CodeTrimmedDataAccess)
	e.Status = http.StatusBadRequest
	return e
}

// trimmedAt reports whether the tunnel has expired and the log has dropped the
// record that the request is to begin with. So each channel's reader gets the
// same answer, whichever call has found the tunnel expired.
func (s *Service) trimmedAt(t *tunnel, req readRequest) bool {
	t.mu.Lock()
	ch := t.byID[string(req.channelID)]
	if !t.Expired || ch == nil || ch.Base || ch.Owner != string(req.clientID) {
		t.mu.Unlock()
		return false
	}
	p, err := positionIn(&ch.channelRecord, req.token)
	t.mu.Unlock()
	if err != nil {
		return false
	}
	oldest, _, err := s.src.SeekShard(t.TableID, string(req.channelID), time.Time{})
	return err == nil && p.offset < oldest
}
