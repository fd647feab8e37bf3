package emulator

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
)

// check returns everything that is wrong with the fault. operations are all
// operations that requests can name; field returns the name of a Fault's field
// as the caller knows it.
func (f *Fault) check(operations []string, field func(string) string) error {
	var errs []error
	wrong := func(name, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s "+format, append([]any{field(name)}, args...)...))
	}
	if !slices.ContainsFunc(operations, f.matches) {
		wrong("Operation", "is %.64q, and there is no such operation%s", f.Operation, suggest(strings.TrimSuffix(f.Operation, "*"), operations))
	}
	switch guess := suggest(f.Code, wire.Codes()); {
	case f.Code == "":
		if f.Status != 0 {
			wrong("Status", "goes with %s, which is not set", field("Code"))
		}
		if f.Message != "" {
			wrong("Message", "goes with %s, which is not set", field("Code"))
		}
	case slices.Contains(wire.Codes(), f.Code):
	case guess != "":
		wrong("Code", "is %.64q, which is not a code of the service%s", f.Code, guess)
	case f.Status == 0:
		wrong("Code", "is %.64q, which is not a code of the service; set %s too if it is meant", f.Code, field("Status"))
	}
	if f.Status != 0 && (f.Status < 400 || f.Status > 599) {
		wrong("Status", "is %d; it must be from 400 to 599", f.Status)
	}
	if !(f.Chance >= 0 && f.Chance <= 1) { // refuses NaN too
		wrong("Chance", "is %v; it must be from 0 to 1", f.Chance)
	}
	if f.After < 0 {
		wrong("After", "is %d; it must not be negative", f.After)
	}
	if f.Delay < 0 {
		wrong("Delay", "is %v; it must not be negative", f.Delay)
	}
	if f.Trickle < 0 {
		wrong("Trickle", "is %v; it must not be negative", f.Trickle)
	}
	if f.Break < NoBreak || f.Break > MidAnswer {
		wrong("Break", "is %d, which is not one of its values", f.Break)
	}
	if len(errs) == 0 && !f.acts() {
		errs = append(errs, fmt.Errorf("it does nothing: set one of %s, %s, %s, %s, %s, %s and %s", field("Delay"), field("Hang"),
			field("Code"), field("Break"), field("Corrupt"), field("Trickle"), field("Duplicate")))
	}
	return errors.Join(errs...)
}

// acts reports whether anything happens to a request that meets the fault.
func (f *Fault) acts() bool {
	return f.Delay > 0 || f.Hang || f.Code != "" || f.Break != NoBreak || f.Corrupt || f.Trickle > 0 || f.Duplicate
}

// httpStatus returns the status to answer with Code.
func (f *Fault) httpStatus() int {
	if f.Status != 0 {
		return f.Status
	}
	return wire.StatusOf(f.Code)
}

// matches reports whether the fault is for requests of the operation op.
func (f *Fault) matches(op string) bool {
	if prefix, ok := strings.CutSuffix(f.Operation, "*"); ok {
		return strings.HasPrefix(op, prefix)
	}
	return f.Operation == "" || f.Operation == op
}

// maxCompared bounds the length, in bytes, of names that suggest compares.
const maxCompared = 64

// suggest returns what a misspelt name probably means, as the end of a sentence,
// or nothing if no known name is similar.
func suggest(name string, known []string) string {
	if len(name) > maxCompared {
		return ""
	}
	best, least := "", max(2, len(name)/4)+1
	for _, k := range known {
		for _, candidate := range []string{k, k[strings.LastIndexByte(k, '/')+1:]} { // "readrecords" means "tunnel/readrecords"
			if d := distance(strings.ToLower(name), strings.ToLower(candidate)); d < least {
				best, least = k, d
			}
		}
	}
	if best == "" || name == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// distance is the number of single-byte changes between a and b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(diagonal+cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
