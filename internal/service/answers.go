package service

import (
	"errors"
	"strings"

	"github.com/watermill-ots/watermill-ots/ots"
)

// Class says what an error answer means for the caller.
type Class uint8

// The classes of error answers.
const (
	Transient Class = iota // a retry may succeed: network, timeouts, 5xx, unknown codes
	Throttled              // a retry may succeed if calls are made less often
	Lost                   // the client or the channel belongs to another client
	Mismatch               // a checkpoint with an unexpected sequence number
	Auth                   // the credentials were refused; others may be accepted
	Gone                   // the table or the tunnel does not exist, or the tunnel has expired
	Gap                    // a part of the log was trimmed before it was read
	Refused                // the same call fails again: the request itself is wrong
)

// Answer is a row of the table of error answers: what the service says, and what that
// means. The row of a code with a Prefix concerns answers whose message begins with it,
// and comes before the code's other rows.
type Answer struct {
	Code   string
	Prefix string // of the message; empty: any message
	Status int    // HTTP status, 0 if it is not documented

	Tunnel Class // for a call of the tunnel API
	Table  Class // for a call of the table API

	Means  string // what happened
	Advice string // what a person should do
	Source string // of the code and its meaning
}

// Sources of the table below.
const (
	docTunnel = "documentation: Tunnel Service error codes"
	docTable  = "documentation: Error codes"
	sdks      = "Go SDK, Java SDK"
)

// Answers are the error answers that a client meets, tunnel codes first. docs/errors.md
// is generated from them.
var Answers = []Answer{
	{Code: "OTSTunnelServerUnavailable", Prefix: CodeTrimmed, Status: 400, Tunnel: Gap, Table: Gap,
		Means: "a part of the log was deleted before it was read: changes are lost", Advice: "recreate the tunnel as BaseAndStream, so that the sink gets the whole table again, or let `OnGapRecreate` (`on_gap: recreate`) do that; look at RetentionNear and at the consumer's lag", Source: docTable},
	{Code: CodeTrimmed, Status: 404, Tunnel: Gap, Table: Gap,
		Means: "the same, as the code of its own that the stream API answers with", Advice: "as above", Source: "DataX"},
	{Code: "OTSTunnelServerUnavailable", Status: 503, Tunnel: Transient, Table: Transient,
		Means: "the tunnel service has an internal error", Advice: "nothing, unless it lasts: then ask Aliyun, with the request id", Source: docTunnel},
	{Code: "OTSResourceGone", Status: 410, Tunnel: Lost, Table: Refused,
		Means: "the service does not know the client any more, as its heartbeats were late; the message may be `[tunnelservice] client not exist`", Advice: "nothing, unless it happens often: then look for pauses of the process, or raise HeartbeatTimeout", Source: docTunnel},
	{Code: "OTSSequenceNumberNotMatch", Status: 400, Tunnel: Mismatch, Table: Refused,
		Means: "the checkpoint has a sequence number that another client has used", Advice: "nothing: the checkpoint is compared and stored again", Source: docTunnel},
	{Code: CodeTunnelExpired, Status: 400, Tunnel: Gone, Table: Refused,
		Means: "the tunnel's position is older than the log, or its base data took longer than the log is kept", Advice: "recreate the tunnel, or let `OnGapRecreate` (`on_gap: recreate`) do that; changes of the time between are missing unless it is BaseAndStream", Source: docTunnel},
	{Code: CodePermissionDenied, Status: 403, Tunnel: Auth, Table: Auth,
		Means: "the access key may not use the tunnel", Advice: "allow the RAM user of the key what the message names, on the table and its tunnels", Source: docTunnel},
	{Code: "OTSTunnelExist", Status: 409, Tunnel: Transient, Table: Refused,
		Means: "a tunnel of this name exists", Advice: "nothing: Initialize uses it", Source: docTunnel},
	{Code: CodeAuthFailed, Status: 403, Tunnel: Auth, Table: Auth,
		Means: "unknown key or instance, wrong signature, wrong clock (more than 15 minutes), or an expired token", Advice: "check the key, its secret, the token, the instance's name, SignatureVersion and Region, and the machine's clock", Source: docTable},
	{Code: CodeNoPermission, Status: 403, Tunnel: Auth, Table: Auth,
		Means: "the access key may not make this call", Advice: "give the key the right that the message names", Source: docTable},
	{Code: CodeParameterInvalid, Status: 400, Tunnel: Gone, Table: Refused,
		Means: "a parameter is wrong, or the table or tunnel does not exist", Advice: "check the table's and the tunnel's name, or create the tunnel", Source: docTunnel},
	{Code: CodeObjectNotExist, Status: 404, Tunnel: Gone, Table: Refused,
		Means: "the table or the tunnel does not exist", Advice: "check the names and the instance", Source: docTable},
	{Code: CodeObjectAlreadyExist, Status: 409, Tunnel: Transient, Table: Refused,
		Means: "the table exists", Advice: "nothing: what creates a table here uses the one that exists", Source: docTable},
	{Code: CodeConditionFailed, Status: 403, Tunnel: Transient, Table: Refused,
		Means: "the row is not as the condition says", Advice: "none here: the publisher tells of it with the message", Source: docTable},
	{Code: CodeInvalidPK, Status: 400, Tunnel: Transient, Table: Refused,
		Means: "the row's key does not fit the table", Advice: "compare the key with the table's", Source: docTable},
	{Code: "OTSOutOfColumnCountLimit", Status: 400, Tunnel: Transient, Table: Refused,
		Means: "the row has more columns than a request may have", Advice: "write fewer columns", Source: docTable},
	{Code: "OTSOutOfRowSizeLimit", Status: 400, Tunnel: Transient, Table: Refused,
		Means: "the row is too large", Advice: "write smaller values", Source: docTable},
	{Code: CodeServerBusy, Status: 503, Tunnel: Throttled, Table: Throttled,
		Means: "the partition or the service is busy", Advice: "nothing, unless it lasts: then spread the keys, or raise the instance's capacity", Source: docTable},
	{Code: CodeFlowControl, Status: 429, Tunnel: Throttled, Table: Throttled,
		Means: "calls are made too often", Advice: "make fewer: EmptyReadsPerSecond, MinPollInterval, the publisher's concurrency", Source: docTable},
	{Code: CodeQuotaExhausted, Prefix: "Number of tables exceeded the quota", Status: 403, Tunnel: Transient, Table: Refused,
		Means: "the instance has as many tables as it may", Advice: "delete one, or ask Aliyun for more", Source: docTable},
	{Code: CodeQuotaExhausted, Status: 403, Tunnel: Throttled, Table: Throttled,
		Means: "operations on tables are made too often", Advice: "nothing, unless it lasts", Source: docTable},
	{Code: CodeNotEnoughCU, Status: 403, Tunnel: Throttled, Table: Throttled,
		Means: "the table's reserved throughput is used up", Advice: "raise it", Source: sdks},
	{Code: CodeCUExhausted, Status: 403, Tunnel: Throttled, Table: Throttled,
		Means: "the instance's capacity units are used up", Advice: "raise the limit of the instance; the documentation does not promise that a retry helps", Source: docTable},
	{Code: "OTSTooFrequentReservedThroughputAdjustment", Status: 403, Tunnel: Throttled, Table: Throttled,
		Means: "the throughput was changed too often", Advice: "wait", Source: docTable},
	{Code: "OTSStorageServerBusy", Tunnel: Throttled, Table: Throttled,
		Means: "the storage is busy", Advice: "nothing, unless it lasts", Source: sdks},
	{Code: "OTSPartitionUnavailable", Status: 503, Tunnel: Transient, Table: Transient,
		Means: "the partition is being loaded", Advice: "nothing", Source: docTable},
	{Code: "OTSTableNotReady", Status: 404, Tunnel: Transient, Table: Transient,
		Means: "the table was just created", Advice: "nothing", Source: docTable},
	{Code: "OTSRowOperationConflict", Status: 409, Tunnel: Transient, Table: Transient,
		Means: "another request writes the row", Advice: "nothing", Source: docTable},
	{Code: "OTSRequestTimeout", Status: 408, Tunnel: Transient, Table: Transient,
		Means: "the request was not received in time", Advice: "look at the network when it lasts", Source: docTable},
	{Code: "OTSTimeout", Status: 503, Tunnel: Transient, Table: Transient,
		Means: "the service did not finish in time; a write may have had its effect", Advice: "nothing, unless it lasts", Source: docTable},
	{Code: "OTSServerUnavailable", Status: 503, Tunnel: Transient, Table: Transient,
		Means: "the service is away; a write may have had its effect", Advice: "nothing, unless it lasts", Source: docTable},
	{Code: "OTSInternalServerError", Status: 500, Tunnel: Transient, Table: Transient,
		Means: "the service has an internal error; a write may have had its effect", Advice: "nothing, unless it lasts: then ask Aliyun, with the request id", Source: docTable},
	{Code: "OTSRequestBodyTooLarge", Status: 413, Tunnel: Transient, Table: Refused,
		Means: "the request is too large", Advice: "write smaller batches", Source: docTable},
	{Code: "OTSMethodNotAllowed", Status: 405, Tunnel: Transient, Table: Refused,
		Means: "something between here and the service changed the request", Advice: "look at proxies", Source: docTable},
}

// answerOf returns the row of an answer, nil if the table has none.
func answerOf(code, message string) *Answer {
	for i := range Answers {
		if a := &Answers[i]; a.Code == code && strings.HasPrefix(message, a.Prefix) {
			return a
		}
	}
	return nil
}

// TunnelClass returns the class of an error answer of the tunnel API. An answer whose
// message says that the log was trimmed is a Gap, whatever its code
// [docs/protocol.md, Trimmed logs]; an unknown code is Transient.
func TunnelClass(code, message string) Class {
	if strings.HasPrefix(message, CodeTrimmed) {
		return Gap
	}
	if a := answerOf(code, message); a != nil {
		return a.Tunnel
	}
	return Transient
}

// IsTransient reports whether a call of the table API that failed with err may succeed
// when it is retried. Errors that are not answers of the service come from the network or
// the CredentialsProvider, and are transient. That includes errors that wrap
// context.Canceled, because the cancelled call may be one of theirs: callers check their
// own context first. Errors of single rows of a batch have no HTTP status. An unknown
// code is transient with a status of 500 and more.
func IsTransient(err error) bool {
	var se *ots.ServiceError
	if !errors.As(err, &se) {
		return true
	}
	if a := answerOf(se.Code, se.Message); a != nil {
		return a.Table == Transient || a.Table == Throttled || se.Status >= 500
	}
	return se.Status >= 500
}
