package ots

import "errors"

var (
	// ErrTunnelExpired means that the service has deleted part of the log that the
	// tunnel still had to read (it keeps the log for the stream's retention, at most
	// 7 days). The tunnel cannot be used any longer; create another one.
	ErrTunnelExpired = errors.New("tunnel expired")

	// ErrTunnelGone means that the table or the tunnel does not exist, or has been
	// deleted.
	ErrTunnelGone = errors.New("no such table or tunnel")

	// ErrGap means that changes are lost: the service has deleted a part of the stream's
	// log that had not been read. Only a new tunnel that reads the whole table again
	// (BaseAndStream) makes the sink match the table.
	ErrGap = errors.New("changes are lost")

	// ErrAuth means that the service refused the credentials.
	ErrAuth = errors.New("credentials refused")
)

// ServiceError is an error response of the Tablestore service, or an error of the
// SDK or this library with a code of the service (Local). Match it with errors.As;
// Unwrap returns ErrTunnelExpired, ErrTunnelGone, ErrGap or ErrAuth if the code
// means that.
type ServiceError struct {
	Op        string // the operation, such as "readrecords"
	Status    int    // HTTP status, 0 if unknown
	Code      string // the service's code, such as "OTSParameterInvalid"
	Message   string
	RequestID string // quote it in a support ticket

	// Means is what Unwrap returns: ErrTunnelExpired, ErrTunnelGone, ErrGap or ErrAuth
	// if the code or the message means that, else nil.
	Means error
	// Local is true if the SDK or this library set the code, not the service.
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
