package subscriber

import (
	"errors"
	"time"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/watermill-ots/watermill-ots/internal/ledger"
	"github.com/watermill-ots/watermill-ots/ots"
)

// failureLogs log the failures of a subscription's records: of its handlers, and of
// its Unmarshaler. Each single failure goes to the channel's logger, lines about many
// failures to the subscription's.
type failureLogs struct {
	logger      watermill.LoggerAdapter
	handlers    failureLog
	unmarshaler failureLog
}

// failedRecord is one failed attempt of a record, for the log.
type failedRecord struct {
	record  *ots.Record
	attempt ledger.Attempt
	uuid    string                  // of its message
	logger  watermill.LoggerAdapter // of its channel
}

// isLogged reports whether an error was logged before: batching does that.
func isLogged(err error) bool {
	var batch interface{ Logged() bool } // batching.Failure
	return errors.As(err, &batch) && batch.Logged()
}

// handlerFailed logs the failure of a handler (of Handle).
func (l *failureLogs) handlerFailed(r failedRecord, err error) {
	fields := withStack(recordFields(r.record, r.attempt), err).Add(watermill.LogFields{"message_uuid": r.uuid})
	if isLogged(err) {
		r.logger.Debug("Handler returned error", fields.Add(watermill.LogFields{"err": err.Error()}))
		return
	}
	full, many := l.handlers.failed(r.record.KeyText(), r.attempt.Number(), time.Now())
	if full {
		r.logger.Error("Handler returned error", err, fields)
		return
	}
	r.logger.Debug("Handler returned error", fields.Add(watermill.LogFields{"err": err.Error()}))
	l.handlersKeepFailing(err, many)
}

// messageNacked logs that a message was nacked: by a message.Router, whose own line about
// the error does not name the record, by a middleware, or by the handler itself.
func (l *failureLogs) messageNacked(r failedRecord, cause error) {
	full, many := l.handlers.failed(r.record.KeyText(), r.attempt.Number(), time.Now())
	if full {
		r.logger.Error("Message nacked; it is redelivered", cause, withStack(recordFields(r.record, r.attempt), cause).Add(watermill.LogFields{"message_uuid": r.uuid}))
	}
	l.handlersKeepFailing(cause, many)
}

func (l *failureLogs) handlersKeepFailing(err error, many *failureLine) {
	if many != nil {
		l.logger.Error("Handlers still fail; their messages are redelivered", err, many.fields())
	}
}

// refused logs that the Unmarshaler refused a record.
func (l *failureLogs) refused(r failedRecord, err error) {
	fields := withStack(recordFields(r.record, r.attempt), err)
	full, many := l.unmarshaler.failed(r.record.KeyText(), r.attempt.Number(), time.Now())
	if full {
		r.logger.Error("Record was refused by the Unmarshaler; retrying", err, fields)
		return
	}
	r.logger.Debug("Record was refused by the Unmarshaler; retrying", fields.Add(watermill.LogFields{"err": err.Error()}))
	if many != nil {
		l.logger.Error("The Unmarshaler still refuses records; they are retried", err, many.fields())
	}
}

// handlersSucceeded notes that the handlers of n messages succeeded. It costs one load
// while there are few failures.
func (l *failureLogs) handlersSucceeded(n int) {
	if !l.handlers.limited.Load() {
		return
	}
	if again := l.handlers.succeeded(n, time.Now()); again != nil {
		l.logger.Info("Handlers succeed again", again.fields())
	}
}

// unmarshalerSucceeded is handlersSucceeded for one record of the Unmarshaler.
func (l *failureLogs) unmarshalerSucceeded() {
	if !l.unmarshaler.limited.Load() {
		return
	}
	if again := l.unmarshaler.succeeded(1, time.Now()); again != nil {
		l.logger.Info("The Unmarshaler takes records again", again.fields())
	}
}

// errNotSaid stands for the failures that ended with the subscription before
// the line that would have counted them.
var errNotSaid = errors.New("failures since the last line, when the subscription ended")

// end logs the failures that were not logged above Debug when the subscription ends.
func (l *failureLogs) end() {
	now := time.Now()
	if many := l.handlers.rest(now); many != nil {
		l.logger.Error("Handlers failed before the end; what is not acked is redelivered to the tunnel's next consumer", errNotSaid, many.fields())
	}
	if many := l.unmarshaler.rest(now); many != nil {
		l.logger.Error("The Unmarshaler refused records before the end; they are redelivered to the tunnel's next consumer", errNotSaid, many.fields())
	}
}

// recordFields names a record in the log.
func recordFields(rec *ots.Record, a ledger.Attempt) watermill.LogFields {
	return watermill.LogFields{"key": rec.KeyText(), "type": rec.Type.String(), "sequence": rec.Sequence.String(), "attempt": a.Number()}
}
