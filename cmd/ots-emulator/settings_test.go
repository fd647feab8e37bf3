package main

import (
	"testing"

	"github.com/watermill-ots/watermill-ots/health"
)

// A developer runs the emulator, and beside it a consumer with its page.
func TestDefaultAddr_is_not_that_of_the_page(t *testing.T) {
	if addr := newSettings().options.Addr; addr == health.DefaultAddr {
		t.Errorf("both listen on %s", addr)
	}
}
