package sinks

import (
	"strings"
	"testing"

	"github.com/watermill-ots/watermill-ots/examples/simple/pxytest"
)

func TestCompare(t *testing.T) {
	written := []pxytest.Row{{ID: 1, Value: 2, Change: 1}, {ID: 1, Value: 4, Change: 2}, {ID: 2, Value: 3, Change: 1}}
	sinkOf := func(row pxytest.Row) string {
		if row.Value%2 == 0 {
			return "sqs"
		}
		return "s3"
	}
	first, second, odd := Arrival{"sqs", "u1", written[0]}, Arrival{"sqs", "u2", written[1]}, Arrival{"s3", "u3", written[2]}
	for name, test := range map[string]struct {
		arrived []Arrival
		missing int
		fault   string // part of the error; empty: none
	}{
		"everything has arrived":       {[]Arrival{first, second, odd}, 0, ""},
		"missing changes are counted":  {[]Arrival{first}, 2, ""},
		"a change in the wrong sink":   {[]Arrival{first, second, {"sqs", "u3", written[2]}}, 0, "belongs in s3"},
		"a change that arrived twice":  {[]Arrival{first, second, odd, {"s3", "u4", written[2]}}, 0, "twice"},
		"a message that arrived twice": {[]Arrival{first, second, {"s3", "u1", written[2]}}, 0, "twice"},
		"a change with other content":  {[]Arrival{first, second, odd, {"s3", "u4", pxytest.Row{ID: 2, Value: 5, Change: 1}}}, 0, "never written"},
		"changes out of order":         {[]Arrival{second, first, odd}, 0, "after change 2"},
	} {
		t.Run(name, func(t *testing.T) {
			missing, err := compare(written, sinkOf, test.arrived)
			if missing != test.missing {
				t.Errorf("%d are missing, want %d", missing, test.missing)
			}
			if test.fault == "" && err != nil || test.fault != "" && (err == nil || !strings.Contains(err.Error(), test.fault)) {
				t.Errorf("the error is %v, want one with %q", err, test.fault)
			}
		})
	}
}
