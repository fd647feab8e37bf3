package publisher

import (
	"encoding/json"
	"fmt"
	"unicode/utf8"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
)

// row is a message as a row of a table.
type row struct {
	index  int // in the messages of its Publish
	uuid   string
	key    string
	change *tablestore.PutRowChange
	bytes  int   // approximate size in a request
	err    error // of the latest attempt
}

// Bytes that PlainBuffer and the request add, rounded up.
const (
	rowOverhead  = 128
	cellOverhead = 32
)

// newRow returns the row of msg. Its err, if any, wraps ErrMessage.
func (c Columns) newRow(table, key string, index int, msg *message.Message) *row {
	r := &row{index: index, uuid: msg.UUID, bytes: rowOverhead}
	what := "ordering key"
	switch {
	case key != "":
		r.key = key
	case msg.UUID != "":
		r.key, what = msg.UUID, "UUID"
	default: // a unique key, so that it does not wait for other messages
		r.key = watermill.NewUUID()
	}
	switch {
	case len(r.key) > maxKeyBytes:
		r.err = fmt.Errorf("%w: its %s has %d bytes, a primary key column takes %d", ErrMessage, what, len(r.key), maxKeyBytes)
		return r
	case !utf8.ValidString(r.key):
		r.err = fmt.Errorf("%w: its %s is not UTF-8", ErrMessage, what)
		return r
	}
	r.change = &tablestore.PutRowChange{TableName: table, PrimaryKey: new(tablestore.PrimaryKey)}
	r.change.PrimaryKey.AddPrimaryKeyColumn(c.Key, r.key)
	r.change.PrimaryKey.AddPrimaryKeyColumnWithAutoIncrement(c.Sequence)
	r.change.SetCondition(tablestore.RowExistenceExpectation_IGNORE) // the only condition that auto-increment rows allow
	r.bytes += len(c.Key) + len(r.key) + len(c.Sequence)
	r.err = c.WriteTo(func(name string, value any) {
		r.change.AddColumn(name, value)
		r.bytes += cellOverhead + len(name)
		switch v := value.(type) {
		case string:
			r.bytes += len(v)
		case []byte:
			r.bytes += len(v)
		}
	}, msg)
	if r.err == nil && r.bytes > maxBatchBytes {
		r.err = fmt.Errorf("%w: it needs a request of %d bytes, the service takes %d", ErrMessage, r.bytes, maxBatchBytes)
	}
	return r
}

// WriteTo adds the columns of msg to a row, for an outbox: add is the method AddColumn
// of the caller's tablestore.PutRowChange, or PutColumn of an UpdateRowChange. The caller
// also sets the row's primary key; Key and Sequence are not used. If the message does
// not fit (ErrMessage), no column is added.
//
// The row shares the payload's bytes.
func (c Columns) WriteTo(add func(name string, value any), msg *message.Message) error {
	c = c.withDefaults()
	if len(msg.Payload) > maxColumnBytes {
		return fmt.Errorf("%w: its payload has %d bytes, a column takes %d", ErrMessage, len(msg.Payload), maxColumnBytes)
	}
	if !utf8.ValidString(msg.UUID) {
		return fmt.Errorf("%w: its UUID is not UTF-8", ErrMessage)
	}
	metadata, err := encodeMetadata(msg.Metadata)
	if err != nil {
		return err
	}
	if msg.UUID != "" {
		add(c.UUID, msg.UUID)
	}
	payload := []byte(msg.Payload)
	if payload == nil { // the SDK does not accept nil
		payload = []byte{}
	}
	add(c.Payload, payload)
	if metadata != "" {
		add(c.Metadata, metadata)
	}
	return nil
}

// encodeMetadata returns the metadata as a JSON object, or "" if it is empty.
func encodeMetadata(m message.Metadata) (string, error) {
	if len(m) == 0 {
		return "", nil
	}
	for k, v := range m {
		if !utf8.ValidString(k) || !utf8.ValidString(v) { // JSON would change it
			return "", fmt.Errorf("%w: its metadata %q is not UTF-8", ErrMessage, k)
		}
	}
	text, err := json.Marshal(m)
	if err != nil {
		return "", fmt.Errorf("%w: its metadata: %w", ErrMessage, err)
	}
	if len(text) > maxColumnBytes {
		return "", fmt.Errorf("%w: its metadata has %d bytes as JSON, a column takes %d", ErrMessage, len(text), maxColumnBytes)
	}
	return string(text), nil
}
