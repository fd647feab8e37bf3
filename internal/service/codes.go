package service

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/watermill-ots/watermill-ots/internal/oneline"
	"github.com/watermill-ots/watermill-ots/ots"
)

// Codes of the table API, and those that both APIs have [docs/protocol.md, Codes of the table API].
const (
	CodeAuthFailed         = "OTSAuthFailed"
	CodeNoPermission       = "OTSNoPermissionAccess"
	CodeServerBusy         = "OTSServerBusy"
	CodeQuotaExhausted     = "OTSQuotaExhausted"
	CodeNotEnoughCU        = "OTSNotEnoughCapacityUnit"
	CodeCUExhausted        = "OTSCapacityUnitExhausted"
	CodeObjectNotExist     = "OTSObjectNotExist"
	CodeObjectAlreadyExist = "OTSObjectAlreadyExist"
	CodeConditionFailed    = "OTSConditionCheckFail"
	CodeInvalidPK          = "OTSInvalidPK"
	CodeTrimmed            = "OTSTrimmedDataAccess"

	// CodeUnknown is the code of an answer without one.
	CodeUnknown = "OTSUnknown"
)

// transient are the codes of the table API after which the same call may succeed. After
// the last five the call may or may not have had its effect.
var transient = map[string]bool{
	CodeServerBusy:            true,
	CodeQuotaExhausted:        true,
	CodeNotEnoughCU:           true,
	CodeCUExhausted:           true,
	"OTSStorageServerBusy":    true,
	"OTSPartitionUnavailable": true,
	"OTSTableNotReady":        true,
	"OTSRowOperationConflict": true,
	"OTSRequestTimeout":       true,
	"OTSTimeout":              true,
	"OTSServerUnavailable":    true,
	"OTSInternalServerError":  true,
}

// IsTransient reports whether a call of the table API that failed with err may succeed
// when it is retried. Errors that are not answers of the service come from the network or
// the CredentialsProvider, and are transient. That includes errors that wrap
// context.Canceled, because the cancelled call may be one of theirs: callers check their
// own context first. Errors of single rows of a batch have no HTTP status.
func IsTransient(err error) bool {
	var se *ots.ServiceError
	if errors.As(err, &se) {
		return transient[se.Code] || se.Status >= 500
	}
	return true
}

// HasCode reports whether err is an answer of the service with one of the codes.
func HasCode(err error, codes ...string) bool {
	var se *ots.ServiceError
	if !errors.As(err, &se) {
		return false
	}
	for _, code := range codes {
		if se.Code == code {
			return true
		}
	}
	return false
}

// IsTrimmed reports whether an answer says that the log was trimmed before it was read. The
// documented answer has the code OTSTunnelServerUnavailable, which otherwise means a fault
// of the service, and says it in its message [docs/protocol.md, Trimmed logs].
func IsTrimmed(code, message string) bool {
	return code == CodeTrimmed || strings.HasPrefix(message, CodeTrimmed)
}

// Limits on the texts that are kept of an error answer, in bytes.
const (
	maxCode    = 100
	maxMessage = 2000
)

// NewError returns the error for an answer to a call of op; means is the sentinel for the
// code, or nil. The texts of the answer end up in logs, labels, dead letters and pages, so
// NewError makes them safe to show. That does not change any known code of the service.
func NewError(op string, status int, code, message, requestID string, means error) *ots.ServiceError {
	if code == "" {
		code = CodeUnknown
		if message == "" {
			message = strings.TrimSpace(fmt.Sprintf("HTTP status %d %s", status, http.StatusText(status)))
		}
	}
	return &ots.ServiceError{
		Op: op, Status: status,
		Code: oneline.Text(code, maxCode), Message: oneline.Text(message, maxMessage), RequestID: oneline.Text(requestID, maxCode),
		Means: means,
	}
}
