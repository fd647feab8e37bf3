package wire_test

import (
	"slices"
	"testing"

	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
	"github.com/watermill-ots/watermill-ots/internal/service"
)

// TestCodes_include_every_answer_that_clients_know: tests must be able to inject each answer that
// the library gives a meaning, with the status that the service sends.
func TestCodes_include_every_answer_that_clients_know(t *testing.T) {
	for _, a := range service.Answers {
		if !slices.Contains(wire.Codes(), a.Code) {
			t.Errorf("%s is not a code of the emulator", a.Code)
		}
		if a.Prefix == "" && a.Status != 0 && wire.StatusOf(a.Code) != a.Status {
			t.Errorf("%s: the emulator sends status %d, clients know %d", a.Code, wire.StatusOf(a.Code), a.Status)
		}
	}
}
