package tracing

import (
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/watermill-ots/watermill-ots/ots"
)

// Attributes beyond the semantic conventions for messaging.
const (
	AttributeInstance  = "tablestore.instance"
	AttributeTable     = "tablestore.table"
	AttributeTunnel    = "tablestore.tunnel"
	AttributeType      = "tablestore.record.type"     // "put", "update" or "delete"
	AttributeSequence  = "tablestore.record.sequence" // absent for base data
	AttributeAge       = "tablestore.record.age"      // seconds from the change to the start of this delivery; absent for base data
	AttributeAttempt   = "tablestore.record.attempt"  // 1 for the first delivery
	AttributeKey       = "tablestore.record.key"      // the primary key as a JSON array; only with Config.Keys
	AttributeHandler   = "watermill.handler"          // name of the Router's handler
	AttributeOutcome   = "watermill.outcome"          // of a delivery: one of the Outcome constants
	AttributeBatcher   = "watermill.batch.batcher"
	AttributeBatchKey  = "watermill.batch.key" // only with Config.Keys
	AttributeTrigger   = "watermill.batch.trigger"
	AttributePartition = "watermill.batch.partition"
	AttributeWaited    = "watermill.batch.waited" // seconds that the batch's first message waited
	AttributeFailed    = "watermill.batch.failed" // how many messages failed by themselves (Batch.Fail)
)

// Values of AttributeOutcome.
const (
	OutcomeSucceeded   = "succeeded"
	OutcomeFailed      = "failed"      // the span's status is an error
	OutcomeInterrupted = "interrupted" // by a shutdown or a lost channel: not a failure of the message, which is redelivered
	OutcomeCalledBack  = "called_back" // an earlier message of the key failed: the message is redelivered
)

// Values of messaging.system, which is an open list.
var (
	systemTablestore = semconv.MessagingSystemKey.String("tablestore")
	systemWatermill  = semconv.MessagingSystemKey.String("watermill") // any other broker
)

// origin is where a message comes from.
type origin struct {
	system      attribute.KeyValue
	destination string // Watermill's topic
	record      *ots.Record
}

func originOf(msg *message.Message) origin {
	if r, ok := ots.RecordFromMessage(msg); ok {
		return origin{systemTablestore, r.Table + "/" + r.Tunnel, r}
	}
	return origin{systemWatermill, message.SubscribeTopicFromCtx(msg.Context()), nil}
}

// startAttributes returns the attributes of a delivery that a sampler may need.
func startAttributes(from origin) []attribute.KeyValue {
	attrs := append(make([]attribute.KeyValue, 0, 6),
		from.system,
		semconv.MessagingDestinationName(from.destination),
		semconv.MessagingOperationName("process"),
		semconv.MessagingOperationTypeProcess,
	)
	if r := from.record; r != nil {
		attrs = append(attrs, semconv.MessagingDestinationPartitionID(r.Channel), attribute.Int(AttributeAttempt, r.Attempt))
	}
	return attrs
}

// attributes returns the other attributes, for a span that is recorded.
func (t *Tracing) attributes(msg *message.Message, from origin) []attribute.KeyValue {
	attrs := append(make([]attribute.KeyValue, 0, 10),
		semconv.MessagingMessageID(msg.UUID),
		semconv.MessagingMessageBodySize(len(msg.Payload)),
	)
	if handler := message.HandlerNameFromCtx(msg.Context()); handler != "" {
		attrs = append(attrs, attribute.String(AttributeHandler, handler))
	}
	r := from.record
	if r == nil {
		return attrs
	}
	attrs = append(attrs,
		attribute.String(AttributeInstance, r.Instance),
		attribute.String(AttributeTable, r.Table),
		attribute.String(AttributeTunnel, r.Tunnel),
		attribute.String(AttributeType, r.Type.String()),
	)
	if !r.Sequence.IsZero() {
		attrs = append(attrs,
			attribute.String(AttributeSequence, r.Sequence.String()),
			attribute.Float64(AttributeAge, time.Since(time.UnixMicro(r.Sequence.Timestamp)).Seconds()),
		)
	}
	if t.keys {
		attrs = append(attrs, attribute.String(AttributeKey, r.KeyText()))
	}
	return attrs
}
