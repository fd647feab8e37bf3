package ack

import (
	"fmt"
	"runtime/debug"
)

// PanicError is a recovered panic of user code, returned as the failure of the
// messages that the code was handling. All of this module uses it: handlers,
// batch handlers, middlewares and Unmarshalers fail with it.
type PanicError struct {
	In    string // what panicked, such as "batch handler"
	Value any    // what was passed to panic
	Stack []byte // the goroutine's stack, as from runtime/debug.Stack
}

// NewPanicError returns the error for a recovered panic. It is called in the
// deferred function that recovered, whose stack is still that of the panic.
func NewPanicError(in string, value any) *PanicError {
	return &PanicError{In: in, Value: value, Stack: debug.Stack()}
}

// Error implements error. The text has the value but not the stack: error texts
// end up in metadata, dead letters and Status. Logs show Stack in a field.
func (e *PanicError) Error() string { return fmt.Sprintf("%s panicked: %v", e.In, e.Value) }

// Unwrap returns the value when the code panicked with an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}
