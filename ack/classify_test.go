package ack_test

import (
	"errors"
	"fmt"
	"net"
	"testing"

	"github.com/watermill-ots/watermill-ots/ack"
)

func TestIsTransient_is_true_for_failures_that_the_message_did_not_cause(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	_, refused := net.Dial("tcp", addr)
	if refused == nil {
		t.Fatal("a closed port takes connections")
	}
	for name, tc := range map[string]struct {
		err  error
		want bool
	}{
		"marked":             {fmt.Errorf("write: %w", ack.Transient(errors.New("busy"))), true},
		"connection refused": {fmt.Errorf("post: %w", refused), true},
		"connection reset":   {&net.OpError{Op: "read", Err: errors.New("connection reset by peer")}, false}, // the message may be what breaks the server
		"another":            {errors.New("value too long"), false},
		"none":               {nil, false},
	} {
		if got := ack.IsTransient(tc.err); got != tc.want {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
	if ack.Transient(nil) != nil {
		t.Error("nil is marked")
	}
}
