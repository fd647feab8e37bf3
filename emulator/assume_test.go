package emulator_test

import (
	"strings"
	"testing"

	"github.com/watermill-ots/watermill-ots/emulator"
)

// What the behaviours do is tested by the checks that they refute, in package
// internal/verify.
func TestAssume_refuses_a_behaviour_that_does_not_exist(t *testing.T) {
	_, err := emulator.Start(emulator.Options{Assume: []string{"finish-need-report"}})
	if err == nil {
		t.Fatal("it was accepted")
	}
	for _, want := range []string{`"finish-need-report"`, `did you mean "finish-needs-report"`, "Assume"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %s", err, want)
		}
	}
}

func TestAssumptions_have_names_and_texts(t *testing.T) {
	seen := make(map[string]bool)
	for _, a := range emulator.Assumptions() {
		if a.Name == "" || a.Text == "" || seen[a.Name] {
			t.Errorf("%+v", a)
		}
		seen[a.Name] = true
	}
}
