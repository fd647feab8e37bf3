package main

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

const (
	columns     = 5  // per record
	columnBytes = 20 // per column value

	// cycle is the number of different pages. The channels share them out, since a key is
	// in one channel only: with 64 channels each has two, and a key occurs again after
	// two pages. More channels than that share pages, and so keys.
	cycle = 128
)

// pages are the response bodies: the records of ReadRecordsResponses, without
// their tokens.
type pages [cycle][]byte

// newPages builds the pages of a load.
func newPages(l load) *pages {
	p := new(pages)
	action := uint64(1) // PUT_ROW
	if l.Updates {
		action = 2
	}
	for i := range p {
		for j := range l.Page {
			id := i*l.Page + j
			p[i] = appendRecord(p[i], id, recordTime(id), l.Base, action)
		}
	}
	return p
}

// recordTime is the change time of records that were written long ago.
func recordTime(id int) time.Time { return time.UnixMicro(1_700_000_000_000_000 + int64(id)) }

// of returns the page at a position of a channel.
func (p *pages) of(channel, channels, at int) []byte {
	per := max(1, cycle/channels)
	return p[(channel*per+at%per)%cycle]
}

// appendRecord appends a Record of a ReadRecordsResponse (field 1) with five columns.
func appendRecord(dst []byte, id int, at time.Time, base bool, action uint64) []byte {
	row := rowOf(id, at)
	if !base {
		row.HasSequence = true
		row.Sequence = plainbuffer.Sequence{Epoch: 1, Timestamp: at.UnixMicro(), RowIndex: 0}
	}
	var record []byte
	record = protowire.AppendTag(record, 1, protowire.VarintType) // action_type
	record = protowire.AppendVarint(record, action)
	record = protowire.AppendTag(record, 2, protowire.BytesType)
	record = protowire.AppendBytes(record, plainbuffer.AppendRow(plainbuffer.AppendHeader(nil), &row))
	dst = protowire.AppendTag(dst, 1, protowire.BytesType)
	return protowire.AppendBytes(dst, record)
}

// lookedUpRow is a RowInBatchGetRowResponse: one that is there, and costs a read capacity unit.
func lookedUpRow() (b []byte) {
	row := rowOf(0, recordTime(0))
	b = protowire.AppendTag(b, 1, protowire.VarintType) // is_ok
	b = protowire.AppendVarint(b, 1)
	b = protowire.AppendTag(b, 3, protowire.BytesType) // consumed: capacity_unit: read 1, write 0
	b = protowire.AppendBytes(b, []byte{0x0a, 0x04, 0x08, 0x01, 0x10, 0x00})
	b = protowire.AppendTag(b, 4, protowire.BytesType) // row
	return protowire.AppendBytes(b, plainbuffer.AppendRow(plainbuffer.AppendHeader(nil), &row))
}

// rowOf is the row with that number.
func rowOf(id int, at time.Time) plainbuffer.Row {
	row := plainbuffer.Row{
		PrimaryKey: []plainbuffer.Cell{{Name: "order", HasValue: true, Value: plainbuffer.StringValue(fmt.Sprintf("order-%08d", id))}},
	}
	for c := range columns {
		row.Cells = append(row.Cells, plainbuffer.Cell{
			Name: "column_" + strconv.Itoa(c), HasValue: true, HasTimestamp: true, Timestamp: at.UnixMilli(),
			Value: plainbuffer.StringValue(fmt.Sprintf("%0*d", columnBytes, id)),
		})
	}
	return row
}

// appendEnd appends next_token and, if say is set, may_more_record.
func appendEnd(dst []byte, token string, more, say bool) []byte {
	dst = protowire.AppendTag(dst, 2, protowire.BytesType)
	dst = protowire.AppendString(dst, token)
	if !say {
		return dst
	}
	dst = protowire.AppendTag(dst, 3, protowire.VarintType)
	return protowire.AppendVarint(dst, protowire.EncodeBool(more))
}

// token is the position n in a channel: Token{version 2, TokenContentV2}. SDKs
// treat a token with an iterator as one of a stream, and any other as one of
// base data.
func token(n int, base bool) string {
	field := protowire.Number(2) // iterator
	if base {
		field = 1 // primary_key
	}
	content := protowire.AppendTag(nil, field, protowire.BytesType)
	content = protowire.AppendString(content, strconv.Itoa(n))
	b := protowire.AppendTag(nil, 1, protowire.VarintType)
	b = protowire.AppendVarint(b, 2)
	b = protowire.AppendTag(b, 2, protowire.BytesType)
	b = protowire.AppendBytes(b, content)
	return base64.StdEncoding.EncodeToString(b)
}

// position is the inverse of token.
func position(token string) (int, error) {
	b, err := base64.StdEncoding.DecodeString(token)
	if err != nil {
		return 0, fmt.Errorf("token %q: %w", token, err)
	}
	content, err := stringField(b, 2)
	if err != nil {
		return 0, fmt.Errorf("token %q: %w", token, err)
	}
	for _, field := range []protowire.Number{1, 2} {
		if n, err := stringField([]byte(content), field); err == nil {
			return strconv.Atoi(n)
		}
	}
	return 0, fmt.Errorf("token %q has no position", token)
}

// stringField is bytesField as a string.
func stringField(b []byte, field protowire.Number) (string, error) {
	v, err := bytesField(b, field)
	return string(v), err
}

// bytesField returns the bytes field with a number of a protobuf message.
func bytesField(b []byte, field protowire.Number) ([]byte, error) {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		b = b[n:]
		if num == field && typ == protowire.BytesType {
			v, n := protowire.ConsumeBytes(b)
			if n < 0 {
				return nil, protowire.ParseError(n)
			}
			return v, nil
		}
		n = protowire.ConsumeFieldValue(num, typ, b)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		b = b[n:]
	}
	return nil, fmt.Errorf("no field %d", field)
}
