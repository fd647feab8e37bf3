package subscriber_test

import (
	"net/http"
	"strconv"

	"github.com/watermill-ots/watermill-ots/emulator"
)

// paramInvalid is the answer to a call about a tunnel that does not exist.
func paramInvalid(operation string) emulator.Fault {
	return emulator.Fault{Operation: operation, Code: "OTSParameterInvalid"}
}

// denied is the answer to a key that may not make the call.
func denied(operation string) emulator.Fault {
	return always(emulator.Fault{Operation: operation, Code: "OTSNoPermissionAccess"})
}

// always has a fault last.
func always(f emulator.Fault) emulator.Fault {
	f.Times = -1
	return f
}

// before calls a function before each request to one path.
type before struct {
	http.RoundTripper
	path string
	call func()
}

func (b before) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Path == b.path {
		b.call()
	}
	return b.RoundTripper.RoundTrip(req)
}

func snapshot(ns int64) string { return strconv.FormatInt(ns, 10) }
