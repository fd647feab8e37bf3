package emulator

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/watermill-ots/watermill-ots/emulator/internal/assume"
)

// Options configures an emulator. The zero value is ready for use: any
// credentials and any instance are accepted, and everything is kept in memory.
type Options struct {
	// Addr is the TCP address to listen on. Empty: 127.0.0.1 and a free port.
	Addr string

	// InMemory replaces the TCP listener with pipes in memory, which Transport
	// dials; Addr is not used then.
	InMemory bool

	// DataDir is a directory that keeps tables, logs and tunnels; it is created
	// if missing. One emulator at a time can use it. An acknowledged write
	// survives the death of the process at any moment. Empty: everything is
	// lost when the emulator ends.
	DataDir string

	// Sync also flushes every group of writes to the device before they are
	// acknowledged, so that they survive a power failure.
	Sync bool

	// AllowedHosts are host names, without ports, under which clients may
	// address the emulator, such as the name of its container. IP addresses and
	// localhost are always allowed. Any other name is refused, so that no web
	// page can reach the emulator under a name that resolves to this machine.
	AllowedHosts []string

	// AdminToken is the token that requests to AdminHandler must carry, as
	// "Authorization: Bearer TOKEN". Empty: none is needed on loopback, and on
	// any other address the admin API refuses all requests.
	AdminToken string

	// Instance is the emulator's instance name: requests that name another one
	// are refused. Empty: any name is accepted.
	Instance string

	// AccessKeyID and AccessKeySecret are the credentials that requests must
	// be signed with. Both empty: signatures are not checked.
	AccessKeyID, AccessKeySecret string

	// SecurityToken is the STS token that requests must carry, in addition to
	// the two keys. Empty: any or none is accepted.
	SecurityToken string

	// Region is the region that signatures of version 4 must be made for. It
	// needs the two keys. Empty: any is accepted.
	Region string

	// Lenient accepts what the documentation forbids and the official SDKs' own
	// tests do: a row twice in one BatchWriteRow that is not atomic, or in one
	// BatchGetRow, a table without rows in BatchGetRow, up to 1024 columns to get,
	// column names of any characters, and local transactions in a table that does
	// not ask for them. docs/emulator.md has the sources for each.
	Lenient bool

	// Assume are names of ways in which the real service may behave other than the
	// emulator does by default, where the right one is not known. Assumptions lists
	// them, and docs/assumptions.md says what depends on each. A program that works
	// under all of them does not rely on a guess. Empty: the defaults.
	Assume []string

	// Seed determines the outcome of faults that happen by chance.
	Seed uint64

	// Logger logs the emulator's start and end, tunnels and clients that come
	// and go, and responses with status 5xx. Nil: nothing is logged.
	Logger *slog.Logger
}

// Assumption is a behaviour that Options.Assume can choose.
type Assumption struct {
	Name string
	Text string // what the emulator does if it is chosen
}

// Assumptions lists what Options.Assume takes, in the order of docs/assumptions.md.
func Assumptions() []Assumption {
	all := make([]Assumption, len(assume.All))
	for i, b := range assume.All {
		all[i] = Assumption(b)
	}
	return all
}

// OptionsError is returned by Start for options that it does not take.
type OptionsError struct {
	Faults []string // all of them; each names the fields of Options that it is about
}

// Error implements error.
func (e *OptionsError) Error() string { return "emulator options: " + strings.Join(e.Faults, "\n") }

func (o Options) check() error {
	var faults []string
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	if (o.AccessKeyID == "") != (o.AccessKeySecret == "") {
		fault("AccessKeyID and AccessKeySecret go together: set both, or neither to accept any")
	}
	if o.SecurityToken != "" && o.AccessKeyID == "" {
		fault("SecurityToken needs AccessKeyID and AccessKeySecret")
	}
	if o.Region != "" && o.AccessKeyID == "" {
		fault("Region needs AccessKeyID and AccessKeySecret: without them signatures are not checked")
	}
	for _, name := range o.Assume {
		if names := assume.Names(); !slices.Contains(names, name) {
			fault("Assume has an unknown behaviour, %.64q%s; there are %s", name, suggest(name, names), strings.Join(names, ", "))
		}
	}
	for _, host := range o.AllowedHosts {
		if host == "" || strings.ContainsAny(host, ":/*") {
			fault("AllowedHosts has %q; it takes host names such as \"ots-emulator\", without scheme, port or wildcard", host)
		}
	}
	if len(faults) > 0 {
		return &OptionsError{Faults: faults}
	}
	return nil
}

const (
	// defaultInstance is the name in answers when Options.Instance is empty.
	defaultInstance = "emulator"

	// memoryEndpoint is the endpoint of an emulator that has no socket.
	memoryEndpoint = "http://emulator.invalid"

	// Timeouts of the HTTP server. They close connections that a client
	// abandoned half way. writeTimeout starts with the response, since faults
	// may hold a request for longer.
	readHeaderTimeout = 10 * time.Second
	readTimeout       = time.Minute
	writeTimeout      = time.Minute
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 64 << 10

	// closeGrace is how long Close lets requests in flight finish.
	closeGrace = 2 * time.Second
)
