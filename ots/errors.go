package ots

import "errors"

var (
	// ErrTunnelExpired means that the log the tunnel still needed is gone (the
	// service keeps it for the stream's retention, at most 7 days). The tunnel
	// is of no use any more; create another one.
	ErrTunnelExpired = errors.New("tunnel expired")

	// ErrTunnelGone means that the table or the tunnel does not exist (any more).
	ErrTunnelGone = errors.New("no such table or tunnel")

	// ErrGap means that changes are lost: the service has deleted a part of the stream's
	// log that was yet to be read. Only a new tunnel that reads the whole table again
	// (BaseAndStream) brings the sink and the table together.
	ErrGap = errors.New("changes are lost")

	// ErrAuth means that the service refused the credentials.
	ErrAuth = errors.New("credentials refused")
)

// ServiceError is an error answer of the Tablestore service, or what the SDK says
// with a code of the service (its text then does not say that the service
// answered so). Match it with errors.As; Unwrap gives ErrTunnelExpired,
// ErrTunnelGone, ErrGap or ErrAuth where the code means that.
type ServiceError struct {
	Op        string // the operation, such as "readrecords"
	Status    int    // HTTP status, 0 if unknown
	Code      string // the service's code, such as "OTSParameterInvalid"
	Message   string
	RequestID string // to be named in a support ticket

	// Means is what Unwrap returns: ErrTunnelExpired, ErrTunnelGone, ErrGap or ErrAuth
	// where the code or the message means that, else nil.
	Means error
	// Local says that the code is the SDK's or this library's, not one that the
	// service sent.
	Local bool
}

// Error implements error.
func (e *ServiceError) Error() string {
	s := e.Op + ": "
	if !e.Local {
		s += "the service answered "
	}
	s += e.Code
	if e.Message != "" {
		s += ": " + e.Message
	}
	if e.RequestID != "" {
		s += " (request " + e.RequestID + ")"
	}
	return s
}

// Unwrap returns the sentinel that the code stands for, or nil.
func (e *ServiceError) Unwrap() error { return e.Means }
