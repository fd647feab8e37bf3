package subscriber

import (
	"cmp"
	"fmt"
	"time"
	"unicode"
	"unicode/utf16"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/ots"
)

// DefaultTypePrefix begins the types of CloudEvents.
const DefaultTypePrefix = "com.aliyun.tablestore"

// CloudEvents is an Unmarshaler whose payload is a CloudEvent 1.0 in structured
// mode, JSON format:
//
//	{
//	  "specversion": "1.0",
//	  "id": "ab602e8a-626b-85b4-91ed-8c52e818580e",   the message's UUID
//	  "source": "tablestore://my-instance/orders",
//	  "type": "com.aliyun.tablestore.update",         or .put or .delete
//	  "subject": "[7,\"eu\"]",                        the primary key, as in MetadataKey
//	  "time": "2023-11-14T22:13:22.123456Z",          of the change; absent for base data
//	  "datacontenttype": "application/json",
//	  "data": {…}                                     the payload that JSON makes
//	}
//
// Its media type is application/cloudevents+json.
type CloudEvents struct {
	// TypePrefix begins the type; a dot and put, update or delete follow.
	// Default DefaultTypePrefix.
	TypePrefix string

	// Source is the source, a URI reference. Default
	// "tablestore://instance/table".
	Source string
}

var _ ots.Unmarshaler = CloudEvents{}

// Unmarshal makes a message with the event as its payload. It never fails.
func (c CloudEvents) Unmarshal(r *ots.Record) (*message.Message, error) {
	id := r.UUID
	if id == "" { // a record that no subscriber delivers, in a test; an event must have an id
		id = newUUIDs(r.Table+"/"+r.Tunnel, r.Channel).of(r.Type, r.Sequence, r.KeyText())
	}
	return messageWith(id, c.append(make([]byte, 0, 320+sizeHint(r)), r, id), r), nil
}

// messageWith makes a message whose payload and metadata share the memory of b.
func messageWith(uuid string, b []byte, r *ots.Record) *message.Message {
	msg := message.NewMessage(uuid, b[:len(b):len(b)])
	setMetadataIn(msg, r, b)
	return msg
}

func (c CloudEvents) append(b []byte, r *ots.Record, id string) []byte {
	b = append(b, `{"specversion":"1.0","id":`...)
	b = appendString(b, id)
	b = append(b, `,"source":`...)
	if c.Source != "" {
		b = appendString(b, c.Source)
	} else {
		b = appendString(b, "tablestore://"+r.Instance+"/"+r.Table)
	}
	b = append(b, `,"type":`...)
	b = appendString(b, cmp.Or(c.TypePrefix, DefaultTypePrefix)+"."+r.Type.String())
	b = append(b, `,"subject":`...)
	b = appendString(b, subject(r.KeyText()))
	if !r.Sequence.IsZero() {
		b = append(b, `,"time":"`...)
		b = time.UnixMicro(r.Sequence.Timestamp).UTC().AppendFormat(b, time.RFC3339Nano)
		b = append(b, '"')
	}
	b = append(b, `,"datacontenttype":"application/json","data":`...)
	b = appendRecord(b, r)
	return append(b, '}')
}

// subject escapes in a JSON text what JSON allows in a string and CloudEvents
// does not in an attribute: DEL, C1 control characters and noncharacters. It
// stays the same JSON value.
func subject(key string) string {
	forbidden := func(r rune) bool {
		return r >= 0x7f && r <= 0x9f || unicode.Is(unicode.Noncharacter_Code_Point, r)
	}
	var b []byte // nil: nothing is forbidden so far
	for i, r := range key {
		switch {
		case forbidden(r):
			if b == nil {
				b = append(make([]byte, 0, len(key)+16), key[:i]...)
			}
			for _, unit := range utf16.AppendRune(nil, r) {
				b = fmt.Appendf(b, `\u%04x`, unit)
			}
		case b != nil:
			b = append(b, string(r)...)
		}
	}
	if b == nil {
		return key
	}
	return string(b)
}
