// Package wire holds what both halves of the emulator's service say on the
// wire in the same form: its errors with their HTTP statuses, and the small
// pieces of protobuf framing that are written by hand.
package wire

import (
	"fmt"
	"net/http"
)

// Error codes of the service. The SDKs compare them as text.
const (
	// Common to both API families.
	CodeParameterInvalid    = "OTSParameterInvalid"
	CodeAuthFailed          = "OTSAuthFailed"
	CodeRequestBodyTooLarge = "OTSRequestBodyTooLarge"
	CodeRequestTimeout      = "OTSRequestTimeout"
	CodeMethodNotAllowed    = "OTSMethodNotAllowed"
	CodeInternalServerError = "OTSInternalServerError"
	CodeUnsupportOperation  = "OTSUnsupportOperation"
	CodeNoPermissionAccess  = "OTSNoPermissionAccess"

	// Tunnel operations.
	CodeTunnelExpired           = "OTSTunnelExpired"
	CodeTunnelExist             = "OTSTunnelExist"
	CodeSequenceNumberNotMatch  = "OTSSequenceNumberNotMatch"
	CodeResourceGone            = "OTSResourceGone"
	CodeTunnelServerUnavailable = "OTSTunnelServerUnavailable"

	// Table operations.
	CodeObjectNotExist        = "OTSObjectNotExist"
	CodeObjectAlreadyExist    = "OTSObjectAlreadyExist"
	CodeConditionCheckFail    = "OTSConditionCheckFail"
	CodeInvalidPK             = "OTSInvalidPK"
	CodeOutOfColumnCountLimit = "OTSOutOfColumnCountLimit"
	CodeOutOfRowSizeLimit     = "OTSOutOfRowSizeLimit"
	CodeDataOutOfRange        = "OTSDataOutOfRange"
	CodeTooFrequentAdjustment = "OTSTooFrequentReservedThroughputAdjustment"
	CodeQuotaExhausted        = "OTSQuotaExhausted"
	CodeServerUnavailable     = "OTSServerUnavailable"
	CodeTrimmedDataAccess     = "OTSTrimmedDataAccess"
	CodeRowOperationConflict  = "OTSRowOperationConflict"
	CodeSessionNotExist       = "OTSSessionNotExist"
	CodeSessionBusy           = "OTSSessionBusy"
	CodeOutOfTransactionSize  = "OTSOutOfTransactionDataSizeLimit"
)

// Error is an answer of the service's own form: a non-2xx status and a
// protobuf Error as the body. It is safe for concurrent use, as nothing
// changes it.
type Error struct {
	Status   int // HTTP status
	Code     string
	Message  string
	TunnelID string // set by tunnel operations only, may be empty
}

// Error implements error.
func (e *Error) Error() string {
	return fmt.Sprintf("%s: %s (status %d)", e.Code, e.Message, e.Status)
}

// statuses maps codes to the HTTP status that the service answers them with.
// Codes that are missing here are answered with 400. Those without a constant
// are never this emulator's own answer, but a fault may be injected with them.
var statuses = map[string]int{
	CodeAuthFailed:              http.StatusForbidden,
	CodeRequestBodyTooLarge:     http.StatusRequestEntityTooLarge,
	CodeRequestTimeout:          http.StatusRequestTimeout,
	CodeMethodNotAllowed:        http.StatusMethodNotAllowed,
	CodeInternalServerError:     http.StatusInternalServerError,
	CodeTunnelExist:             http.StatusConflict,
	CodeResourceGone:            http.StatusGone,
	CodeTunnelServerUnavailable: http.StatusServiceUnavailable,
	CodeObjectNotExist:          http.StatusNotFound,
	CodeObjectAlreadyExist:      http.StatusConflict,
	CodeConditionCheckFail:      http.StatusForbidden,
	CodeQuotaExhausted:          http.StatusForbidden,
	CodeServerUnavailable:       http.StatusServiceUnavailable,
	CodeNoPermissionAccess:      http.StatusForbidden,
	"OTSPermissionDenied":       http.StatusForbidden,
	"OTSTableNotReady":          http.StatusNotFound,
	CodeRowOperationConflict:    http.StatusConflict,
	"OTSNotEnoughCapacityUnit":  http.StatusForbidden,
	"OTSCapacityUnitExhausted":  http.StatusForbidden,
	"OTSServerBusy":             http.StatusServiceUnavailable,
	"OTSPartitionUnavailable":   http.StatusServiceUnavailable,
	"OTSTimeout":                http.StatusServiceUnavailable,
	CodeTooFrequentAdjustment:   http.StatusForbidden,
	CodeTrimmedDataAccess:       http.StatusNotFound, // as DataX's test double of the service has it
}

// StatusOf returns the HTTP status that the service answers a code with.
func StatusOf(code string) int {
	if status, ok := statuses[code]; ok {
		return status
	}
	return http.StatusBadRequest
}

// Errorf returns an Error with the code's usual status.
func Errorf(code, format string, args ...any) *Error {
	return &Error{Status: StatusOf(code), Code: code, Message: fmt.Sprintf(format, args...)}
}

// TunnelErrorf is Errorf for an error that names the tunnel.
func TunnelErrorf(code, tunnelID, format string, args ...any) *Error {
	e := Errorf(code, format, args...)
	e.TunnelID = tunnelID
	return e
}

// Invalid returns OTSParameterInvalid, status 400.
func Invalid(format string, args ...any) *Error {
	return Errorf(CodeParameterInvalid, format, args...)
}

// ResourceGone returns OTSResourceGone, status 410.
func ResourceGone(tunnelID, format string, args ...any) *Error {
	return TunnelErrorf(CodeResourceGone, tunnelID, format, args...)
}
