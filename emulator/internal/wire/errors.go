// Package wire holds what both APIs of the emulator have in common on the wire:
// errors with their HTTP statuses, and small pieces of protobuf framing that
// are written by hand.
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
	CodeFlowControl           = "OTSFlowControl"
	CodeRowOperationConflict  = "OTSRowOperationConflict"
	CodeSessionNotExist       = "OTSSessionNotExist"
	CodeSessionBusy           = "OTSSessionBusy"
	CodeOutOfTransactionSize  = "OTSOutOfTransactionDataSizeLimit"
)

// Error is an error response in the service's form: a non-2xx status and a
// protobuf Error as the body. It is immutable and therefore safe for concurrent
// use.
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

// statuses maps codes to the HTTP statuses with which the service sends them.
// The status of other codes is 400. The emulator itself never sends the codes
// that have no constant, but a fault may be injected with them.
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
	CodeFlowControl:             http.StatusTooManyRequests,
	CodeTooFrequentAdjustment:   http.StatusForbidden,
	CodeTrimmedDataAccess:       http.StatusNotFound, // as in DataX's test double of the service
}

// StatusOf returns the HTTP status with which the service sends a code.
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
