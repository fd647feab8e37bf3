package verify

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"google.golang.org/protobuf/proto"

	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
	"github.com/watermill-ots/watermill-ots/internal/service"
)

// readTwice writes rows, and reads two times from the same token. The rows of others are
// among what it returns. The second time is a single read, which may return fewer.
func (p *probe) readTwice() (first, second []plainbuffer.Row, err error) {
	c, channel, token, _, err := p.streaming(p.kit.name(""))
	if err != nil {
		return nil, nil, err
	}
	const n = 5
	if err := p.write(0, n); err != nil {
		return nil, nil, err
	}
	if first, _, err = c.readUntil(channel, token, n); err != nil {
		return nil, nil, err
	}
	pg, err := c.read(channel, token)
	if err != nil {
		return nil, nil, err
	}
	second, err = decode(pg.records)
	return first, second, err
}

func secondReadIsEqual(p *probe) error {
	first, second, err := p.readTwice()
	if err != nil {
		return err
	}
	if len(second) == 0 {
		return refuted("the second read returned none of %d records.", len(first))
	}
	for i, row := range second[:min(len(first), len(second))] {
		if row.KeyBytes != first[i].KeyBytes {
			return refuted("record %d of the second read is %s; it was %s.", i, row.PrimaryKey[0].Value.Str(), first[i].PrimaryKey[0].Value.Str())
		}
	}
	p.note("%d records, then %d", len(first), len(second))
	return nil
}

func sequenceIsKept(p *probe) error {
	first, second, err := p.readTwice()
	if err != nil {
		return err
	}
	was := make(map[string]plainbuffer.Sequence, len(first))
	for _, row := range p.own(first) { // written once each
		was[row.KeyBytes] = row.Sequence
	}
	compared := 0
	for _, row := range p.own(second) {
		before, ok := was[row.KeyBytes]
		if !ok {
			continue
		}
		if compared++; row.Sequence != before {
			return refuted("%s had the sequence %+v, and then %+v.", row.PrimaryKey[0].Value.Str(), before, row.Sequence)
		}
	}
	if compared == 0 {
		return refuted("no record of the second read has the key bytes of one of the first.")
	}
	return nil
}

func timesAreMicroseconds(p *probe) error {
	first, _, err := p.readTwice()
	if err != nil {
		return err
	}
	t := first[0].Sequence.Timestamp
	const day = 24 * time.Hour
	if off := time.Since(time.UnixMicro(t)); off.Abs() > day {
		return refuted("the record of a moment ago has the timestamp %d.", t)
	}
	p.note("the record was %v old by it", time.Since(time.UnixMicro(t)).Round(time.Millisecond))
	return nil
}

func olderTokenIsGood(p *probe) error {
	c, channel, first, _, err := p.streaming(p.kit.name(""))
	if err != nil {
		return err
	}
	const reads = 4
	tokens := []string{first}
	for range reads {
		pg, err := c.read(channel, tokens[len(tokens)-1])
		if err != nil {
			return err
		}
		tokens = append(tokens, pg.next)
		if err := pause(p.ctx, p.kit.pace()); err != nil {
			return err
		}
	}
	// The second token is neither stored nor from one of the last reads.
	if _, err := c.read(channel, tokens[1]); answerOf(err) != nil {
		return refuted("%v", err)
	} else if err != nil {
		return err
	}
	p.note("%d different tokens in %d reads", len(distinct(tokens)), reads)
	return nil
}

func distinct(texts []string) map[string]bool {
	set := make(map[string]bool, len(texts))
	for _, s := range texts {
		set[s] = true
	}
	return set
}

func readNeedsAClient(p *probe) error {
	c, channel, token, _, err := p.streaming(p.kit.name(""))
	if err != nil {
		return err
	}
	stranger := &client{probe: p, tunnel: c.tunnel, id: "ots-verify_unknown"}
	_, err = stranger.read(channel, token)
	switch {
	case err == nil:
		return refuted("a client that never connected may read.")
	case answerOf(err) == nil:
		return err
	case classOf(err) != service.Lost:
		return refuted("%v", err)
	}
	return nil
}

// The sizes of pagesAreBounded: rows that together are more than two pages.
const (
	wideRows   = 12
	wideColumn = 256 << 10
	wantPage   = 2 << 20 // twice what is assumed
)

func pagesAreBounded(p *probe) error {
	table := p.kit.name("pages")
	if err := p.kit.createTable(p.ctx, table); err != nil {
		return err
	}
	c, channel, token, _, err := p.streaming(table)
	if err != nil {
		return err
	}
	for i := range wideRows {
		if err := c.stay(); err != nil {
			return err
		}
		if err := p.kit.putColumn(p.ctx, table, p.key(i), "wide", bytes.Repeat([]byte{byte(i)}, wideColumn)); err != nil {
			return err
		}
	}
	largest, pages := 0, 0
	for read, limit := 0, time.Now().Add(p.kit.cfg.Patience); read < wideRows; {
		if err := c.stay(); err != nil {
			return err
		}
		pg, err := c.read(channel, token)
		if err != nil {
			return err
		}
		size := 0
		for _, r := range pg.records {
			size += len(r.Record)
		}
		largest, read, token = max(largest, size), read+len(pg.records), pg.next
		if size > 0 {
			pages++
		}
		switch {
		case size > wantPage:
			return refuted("one read returned %d KiB.", size>>10)
		case size > wideColumn && !pg.more && read < wideRows:
			p.note("a page of %d KiB does not say that there is more", size>>10)
		case time.Now().After(limit):
			return fmt.Errorf("%d of %d records were read within %v", read, wideRows, p.kit.cfg.Patience)
		}
		if size == 0 {
			if err := pause(p.ctx, p.kit.pace()); err != nil {
				return err
			}
		}
	}
	p.note("%d MiB came in %d pages of at most %d KiB", wideRows*wideColumn>>20, pages, largest>>10)
	return nil
}

// largestColumn is the documented limit of a column's value.
const largestColumn = 2 << 20

func largestValueIsWhole(p *probe) error {
	table := p.kit.name("large")
	if err := p.kit.createTable(p.ctx, table); err != nil {
		return err
	}
	c, channel, token, _, err := p.streaming(table)
	if err != nil {
		return err
	}
	value := bytes.Repeat([]byte("abcdefgh"), largestColumn/8)
	if err := p.kit.putColumn(p.ctx, table, p.key(0), "large", value); err != nil {
		return err
	}
	rows, _, err := c.readUntil(channel, token, 1)
	if err != nil {
		return err
	}
	if cells := p.own(rows)[0].Cells; len(cells) != 1 || !bytes.Equal(cells[0].Value.Bytes(), value) {
		return refuted("the record has %d columns, and not the value that was written.", len(cells))
	}
	switch err := p.kit.putColumn(p.ctx, table, p.key(1), "large", append(value, 'x')); {
	case err == nil:
		return refuted("a column of 2 MiB and a byte was written.")
	case answerOf(err) == nil:
		return err
	}
	return nil
}

func retentionIsAsAsked(p *probe) error {
	var hours int32
	err := p.kit.table.Call(p.ctx, "DescribeTable", func(c *tablestore.TableStoreClient) error {
		resp, err := c.DescribeTable(&tablestore.DescribeTableRequest{TableName: p.kit.name("")})
		if err == nil && resp.StreamDetails != nil {
			hours = int32(resp.StreamDetails.ExpirationTime)
		}
		return err
	})
	if err != nil {
		return err
	}
	if hours != retention {
		return refuted("it keeps %d hours, and %d were asked for.", hours, retention)
	}
	return nil
}

func accessTimeIsLastRead(p *probe) error {
	c, channel, token, _, err := p.streaming(p.kit.name(""))
	if err != nil {
		return err
	}
	access := func() (time.Time, error) {
		var resp protocol.GetRpoResponse
		if err := p.call("getrpo", &protocol.GetRpoRequest{TunnelId: proto.String(c.tunnel)}, &resp); err != nil {
			return time.Time{}, err
		}
		var infos map[string]map[string]struct{ AccessTime int64 }
		if err := json.Unmarshal(resp.RpoInfos, &infos); err != nil {
			return time.Time{}, fmt.Errorf("decoding the recovery points %.200q: %w", resp.RpoInfos, err)
		}
		for _, channels := range infos {
			if info, ok := channels[channel]; ok {
				return time.Unix(0, info.AccessTime), nil
			}
		}
		return time.Time{}, nil
	}
	var before time.Time
	for i := range 2 {
		if _, err := c.read(channel, token); err != nil {
			return err
		}
		// The service may write it down with a delay.
		var at time.Time
		for limit := time.Now().Add(min(p.kit.cfg.Patience, 30*time.Second)); ; {
			if at, err = access(); err != nil {
				return err
			}
			if at.After(before) && time.Since(at).Abs() < 5*time.Minute {
				break
			}
			if time.Now().After(limit) {
				return refuted("after read %d it is %v; it was %v before.", i+1, at.UTC(), before.UTC())
			}
			if err := pause(p.ctx, p.kit.pace()); err != nil {
				return err
			}
		}
		before = at
		if err := pause(p.ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}
