package subscriber

import (
	"strconv"
	"unsafe"

	"github.com/ThreeDotsLabs/watermill/message"

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
	MetadataPhase     = "ots.phase"     // PhaseBase or PhaseStream
)

// The values of MetadataPhase.
const (
	PhaseBase   = "base"   // a row of the base data: its state when it was read
	PhaseStream = "stream" // a change
)

// MetadataSnapshot is set by a Subscriber with OnGapRecreate on all messages, whatever the
// Unmarshaler: when the tunnel was created, in nanoseconds since 1970 by the service's
// clock. All messages of one tunnel have the same; those of the tunnel that replaced it have a
// greater one. A sink marks its rows with it, to find those that the base data does
// not have any more, see docs/gaps.md. Phase.Snapshot is the same.
const MetadataSnapshot = "ots.snapshot"

// copies reports whether an Unmarshaler is known to keep nothing of a Record,
// nor of the slices and strings in it, in the messages that it makes.
func copies(u ots.Unmarshaler) bool {
	switch u.(type) {
	case JSON, Raw, None, CloudEvents, Debezium:
		return true
	}
	return false
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

// setMetadataTexts sets the metadata of a record of the given origin. A record without a timestamp is one of base data.
func setMetadataTexts(msg *message.Message, origin *ots.Record, typ ots.RecordType, timestamp, key string) {
	msg.Metadata[MetadataTable] = origin.Table
	msg.Metadata[MetadataTunnel] = origin.Tunnel
	msg.Metadata[MetadataChannel] = origin.Channel
	msg.Metadata[MetadataType] = typ.String()
	if timestamp != "" {
		msg.Metadata[MetadataTimestamp] = timestamp
		msg.Metadata[MetadataPhase] = PhaseStream
	} else {
		msg.Metadata[MetadataPhase] = PhaseBase
	}
	msg.Metadata[MetadataKey] = key
}

// textOf is b as a string without a copy: b must not be written to any more.
func textOf(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
