package emulator_test

import (
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/watermill-ots/watermill-ots/emulator"
)

func TestImpossibleFaults(t *testing.T) {
	for name, v := range map[string]struct {
		fault emulator.Fault
		json  string // the same for the admin API, empty if JSON cannot express it
		want  string // in the error, with %s before the name of a field
	}{
		"an operation misspelt":               {emulator.Fault{Operation: "PutRwo", Hang: true}, `{"operation":"PutRwo","hang":true}`, `Operation is "PutRwo", and there is no such operation; did you mean "PutRow"?`},
		"an operation in lower case":          {emulator.Fault{Operation: "putrow", Hang: true}, `{"operation":"putrow","hang":true}`, `did you mean "PutRow"?`},
		"an operation without its prefix":     {emulator.Fault{Operation: "readrecords", Hang: true}, `{"operation":"readrecords","hang":true}`, `did you mean "tunnel/readrecords"?`},
		"an operation with a slash":           {emulator.Fault{Operation: "/PutRow", Hang: true}, `{"operation":"/PutRow","hang":true}`, `did you mean "PutRow"?`},
		"an operation unlike any other":       {emulator.Fault{Operation: "Tidy", Hang: true}, `{"operation":"Tidy","hang":true}`, `Operation is "Tidy", and there is no such operation`},
		"a prefix of no operation":            {emulator.Fault{Operation: "tunel/*", Hang: true}, `{"operation":"tunel/*","hang":true}`, `Operation is "tunel/*"`},
		"a code misspelt":                     {emulator.Fault{Code: "OTSSeverBusy"}, `{"code":"OTSSeverBusy"}`, `Code is "OTSSeverBusy", which is not a code of the service; did you mean "OTSServerBusy"?`},
		"a code misspelt, with a status":      {emulator.Fault{Code: "OTSResorceGone", Status: 410}, `{"code":"OTSResorceGone","status":410}`, `did you mean "OTSResourceGone"?`},
		"a code unlike any other":             {emulator.Fault{Code: "Teapot"}, `{"code":"Teapot"}`, `Code is "Teapot", which is not a code of the service; set`},
		"a status that is not an error":       {emulator.Fault{Code: "OTSServerBusy", Status: 200}, `{"code":"OTSServerBusy","status":200}`, `Status is 200; it must be from 400 to 599`},
		"a status alone":                      {emulator.Fault{Hang: true, Status: 500}, `{"hang":true,"status":500}`, `Status goes with`},
		"a message alone":                     {emulator.Fault{Hang: true, Message: "x"}, `{"hang":true,"message":"x"}`, `Message goes with`},
		"a chance above one":                  {emulator.Fault{Hang: true, Chance: 2}, `{"hang":true,"chance":2}`, `Chance is 2; it must be from 0 to 1`},
		"a negative chance":                   {emulator.Fault{Hang: true, Chance: -1}, `{"hang":true,"chance":-1}`, `Chance is -1`},
		"a chance that is not a number":       {emulator.Fault{Hang: true, Chance: math.NaN()}, "", `Chance is NaN`},
		"a negative number of requests first": {emulator.Fault{Hang: true, After: -1}, `{"hang":true,"after":-1}`, `After is -1; it must not be negative`},
		"a negative delay":                    {emulator.Fault{Delay: -time.Second}, `{"delay":"-1s"}`, `Delay is -1s; it must not be negative`},
		"a negative pause between pieces":     {emulator.Fault{Trickle: -time.Second}, `{"trickle":"-1s"}`, `Trickle is -1s`},
		"an unknown moment":                   {emulator.Fault{Break: 7}, "", `Break is 7`},
		"no effect":                           {emulator.Fault{Operation: "PutRow", Times: 3}, `{"operation":"PutRow","times":3}`, `it does nothing: set one of`},
	} {
		t.Run(name+" is refused from Go and from the admin API", func(t *testing.T) {
			e := start(t, emulator.Options{})
			err := e.Inject(v.fault)
			if err == nil || !strings.Contains(err.Error(), v.want) {
				t.Errorf("from Go: %v, want %s", err, v.want)
			}
			if v.json != "" {
				admin := httptest.NewServer(e.AdminHandler())
				defer admin.Close()
				resp, err := http.Post(admin.URL+"/faults", "application/json", strings.NewReader(v.json))
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				body, err := io.ReadAll(resp.Body)
				if err != nil {
					t.Fatal(err)
				}
				// The admin API uses its own keys.
				field, rest, _ := strings.Cut(v.want, " ")
				want := strings.ReplaceAll(strings.ToLower(field)+" "+rest, `"`, `\"`)
				if resp.StatusCode != http.StatusBadRequest || !strings.Contains(string(body), want) {
					t.Errorf("from the admin API: %s %s, want %s", resp.Status, body, want)
				}
			}
			newRaw(t, e).createIntTable("t", 0, 1, true) // it must not meet the fault
		})
	}
	t.Run("are all reported at once", func(t *testing.T) {
		err := start(t, emulator.Options{}).Inject(emulator.Fault{Operation: "PutRwo", Code: "OTSSeverBusy", After: -1})
		for _, want := range []string{"PutRow", "OTSServerBusy", "After"} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v does not mention %s", err, want)
			}
		}
	})
	t.Run("do not include those for missing operations, and for unknown codes with a status", func(t *testing.T) {
		e := start(t, emulator.Options{})
		for _, f := range []emulator.Fault{
			{Operation: "SQLQuery", Hang: true}, {Operation: "tunnel/schedule", Hang: true}, {Operation: "Batch*", Hang: true}, {Operation: "*", Hang: true},
			{Code: "Teapot", Status: 418}, {Code: "OTSTunnelExpired"},
		} {
			if err := e.Inject(f); err != nil {
				t.Errorf("%+v: %v", f, err)
			}
		}
	})
	t.Run("are refused quickly, however long their names", func(t *testing.T) {
		e := start(t, emulator.Options{})
		long := strings.Repeat("x", 1<<20)
		if err := e.Inject(emulator.Fault{Operation: long, Code: long}); err == nil || len(err.Error()) > 1000 {
			t.Errorf("got an error of %d bytes", len(fmt.Sprint(err)))
		}
	})
}
