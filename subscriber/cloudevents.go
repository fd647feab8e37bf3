package subscriber

import (
	"bytes"
	"cmp"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/ots"
)

// DefaultTypePrefix begins the types of CloudEvents. It is in the namespace of this project.
const DefaultTypePrefix = "io.github.watermill-ots.tablestore"

// The attributes of a CloudEvent in binary mode are metadata with this prefix, such as
// "ce-id"; MetadataContentType is the media type of the payload.
const (
	MetadataCloudEvent  = "ce-"
	MetadataContentType = "content-type"
)

// CloudEvents is an Unmarshaler whose payload is a CloudEvent 1.0 in structured
// mode, JSON format:
//
//	{
//	  "specversion": "1.0",
//	  "id": "ab602e8a-626b-85b4-91ed-8c52e818580e",   the message's UUID
//	  "source": "tablestore://my-instance/orders",
//	  "type": "io.github.watermill-ots.tablestore.update",   or .put or .delete
//	  "subject": "[7,\"eu\"]",                        the primary key, as in MetadataKey
//	  "time": "2023-11-14T22:13:22.123456Z",          of the change; absent for base data
//	  "partitionkey": "[7,\"eu\"]",                   as subject: events with the same one are in order
//	  "sequence": "00000001:00060a24183ea6c0:00000000",   of the change in its channel; absent for base data
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

	// Binary makes events in binary mode: the payload is the data alone, and the attributes are
	// metadata (MetadataCloudEvent). CloudEventRequest sends them by HTTP.
	Binary bool
}

var _ ots.Unmarshaler = CloudEvents{}

// Unmarshal makes a message with the event as its payload. It never fails.
func (c CloudEvents) Unmarshal(r *ots.Record) (*message.Message, error) {
	id := r.UUID
	if id == "" { // a record that no subscriber delivers, in a test; an event must have an id
		id = newUUIDs(r.Table+"/"+r.Tunnel, r.Channel).of(r.Type, r.Sequence, r.KeyText())
	}
	if c.Binary {
		msg, err := JSON{}.Unmarshal(r)
		if err != nil {
			return nil, err
		}
		msg.UUID = id
		c.attributes(r, id, func(name, value string) { msg.Metadata[MetadataCloudEvent+name] = value })
		msg.Metadata[MetadataContentType] = "application/json"
		return msg, nil
	}
	return messageWith(id, c.append(make([]byte, 0, 480+sizeHint(r)), r, id), r), nil
}

// attributes calls set with each context attribute but datacontenttype, in their order.
func (c CloudEvents) attributes(r *ots.Record, id string, set func(name, value string)) {
	set("specversion", "1.0")
	set("id", id)
	set("source", cmp.Or(c.Source, "tablestore://"+r.Instance+"/"+r.Table))
	set("type", cmp.Or(c.TypePrefix, DefaultTypePrefix)+"."+r.Type.String())
	key := subject(r.KeyText())
	set("subject", key)
	if !r.Sequence.IsZero() {
		set("time", time.UnixMicro(r.Sequence.Timestamp).UTC().Format(time.RFC3339Nano))
	}
	set("partitionkey", key)
	if !r.Sequence.IsZero() {
		set("sequence", r.Sequence.String())
	}
}

// CloudEventRequest returns the HTTP request that sends a message of CloudEvents: in binary mode with
// the attributes as headers, encoded as the HTTP binding of CloudEvents says; in
// structured mode with the media type application/cloudevents+json. It fits the
// MarshalMessageFunc of Watermill's HTTP publisher.
func CloudEventRequest(url string, msg *message.Message) (*http.Request, error) {
	req, err := http.NewRequestWithContext(msg.Context(), http.MethodPost, url, bytes.NewReader(msg.Payload))
	if err != nil {
		return nil, fmt.Errorf("sending event %s: %w", msg.UUID, err)
	}
	if msg.Metadata.Get(MetadataCloudEvent+"id") == "" {
		req.Header.Set("Content-Type", "application/cloudevents+json; charset=UTF-8")
		return req, nil
	}
	for name, value := range msg.Metadata {
		if strings.HasPrefix(name, MetadataCloudEvent) {
			req.Header.Set(name, headerValue(value))
		}
	}
	req.Header.Set("Content-Type", msg.Metadata.Get(MetadataContentType))
	return req, nil
}

// headerValue encodes an attribute: what is not printable ASCII, spaces, quotes and percent
// signs are percent-encoded.
func headerValue(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c > '~' || c == '"' || c == '%' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// messageWith makes a message whose payload and metadata share the memory of b.
func messageWith(uuid string, b []byte, r *ots.Record) *message.Message {
	msg := message.NewMessage(uuid, b[:len(b):len(b)])
	setMetadataIn(msg, r, b)
	return msg
}

func (c CloudEvents) append(b []byte, r *ots.Record, id string) []byte {
	b = append(b, '{')
	c.attributes(r, id, func(name, value string) {
		if b[len(b)-1] != '{' {
			b = append(b, ',')
		}
		b = append(b, '"')
		b = append(b, name...)
		b = append(b, `":`...)
		b = appendString(b, value)
	})
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
