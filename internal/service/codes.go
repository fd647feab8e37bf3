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

	// CodeUnknown stands for an answer without a code.
	CodeUnknown = "OTSUnknown"
)

// passing are the codes of the table API after which the same call may succeed. The
// last five leave open whether the call had its effect.
var passing = map[string]bool{
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

// Passing reports whether a call of the table API that failed so may succeed when it is
// made again. What is not an answer of the service comes from the network or the
// CredentialsProvider, and passes; also when it wraps context.Canceled, since the call
// that was cancelled may be theirs. Whether ours was is up to its context, which callers
// look at first. Single rows of a batch fail without an HTTP status.
func Passing(err error) bool {
	var se *ots.ServiceError
	if errors.As(err, &se) {
		return passing[se.Code] || se.Status >= 500
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

// Bounds on what is kept of an error answer, in bytes.
const (
	maxCode    = 100
	maxMessage = 2000
)

// NewError returns the error of an answer to a call of op; means is what the code means,
// or nil. What the answer says ends up in logs, labels, dead letters and pages, so it is
// made safe to show here. No code that the service is known to send changes by that.
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
