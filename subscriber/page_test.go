package subscriber

import (
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"

	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

// wireRecord encodes a record as the service sends it. origin may be nil.
func wireRecord(action protocol.ActionType, row, origin *plainbuffer.Row) *protocol.Record {
	r := &protocol.Record{ActionType: action.Enum(), Record: plainbuffer.AppendRow(plainbuffer.AppendHeader(nil), row)}
	if origin != nil {
		r.OriginRecord = plainbuffer.AppendRow(plainbuffer.AppendHeader(nil), origin)
	}
	return r
}

func someRecord(id int64) *protocol.Record {
	return wireRecord(protocol.ActionType_PUT_ROW, &plainbuffer.Row{
		PrimaryKey:  []plainbuffer.Cell{{Name: "id", Value: plainbuffer.IntegerValue(id), HasValue: true}},
		HasSequence: true, Sequence: plainbuffer.Sequence{Timestamp: 1700000000000000, RowIndex: 1},
	}, nil)
}
