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
	CodeFlowControl        = "OTSFlowControl"
	CodeParameterInvalid   = "OTSParameterInvalid"
	CodePermissionDenied   = "OTSPermissionDenied"
	CodeTunnelExpired      = "OTSTunnelExpired"

	// CodeTrimmed is a code of the stream API. In an answer of the tunnel API it is what the
	// message begins with [docs/protocol.md, Trimmed logs].
	CodeTrimmed = "OTSTrimmedDataAccess"

	// CodeUnknown is the code of an answer without one.
	CodeUnknown = "OTSUnknown"
)

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
