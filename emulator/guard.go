package emulator

import (
	"crypto/subtle"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"

	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
)

// guard refuses what a web page could send. An emulator listens on loopback and
// often accepts any credentials, so every page that is open in a browser on the
// same machine can reach it, and a browser sends a POST without asking the
// server first.
//
//   - A request that comes from another origin, as its browser says, is
//     refused, whatever its method.
//   - A request for an unknown host name is refused: a page's owner can make a
//     name resolve to 127.0.0.1, and the request is then of the same origin. IP
//     addresses are accepted, since no name has to be resolved for them.
//
// It is safe for concurrent use.
type guard struct {
	hosts map[string]bool // allowed in addition to addresses and localhost
	cross *http.CrossOriginProtection
	own   sync.Map // remote addresses (string) of the connections that Transport dialed
	pipes bool     // every connection is a pipe in this process
}

func newGuard(hosts []string) *guard {
	g := &guard{hosts: make(map[string]bool), cross: http.NewCrossOriginProtection()}
	for _, host := range hosts {
		g.hosts[strings.ToLower(host)] = true
	}
	return g
}

// check returns why the request is refused.
func (g *guard) check(r *http.Request) error {
	if !g.knows(r.Host) {
		return fmt.Errorf("the host %.253q is not known to this emulator; address it as localhost or by its IP address, or list the name in Options.AllowedHosts (ots-emulator --allowed-host)", r.Host)
	}
	posted := *r
	posted.Method = http.MethodPost // refuses reads too
	if g.cross.Check(&posted) != nil {
		return fmt.Errorf("a web page of another origin (%.253q) sent this request; pages cannot use the emulator", r.Header.Get("Origin"))
	}
	return nil
}

// trusts reports whether the request came through Emulator.Transport, which
// dials this emulator whatever host a request names. Use it for requests of the
// emulator's own listener only.
func (g *guard) trusts(r *http.Request) bool {
	_, own := g.own.Load(r.RemoteAddr)
	return own || g.pipes
}

// knows reports whether a Host header names this emulator.
func (g *guard) knows(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || g.hosts[host]
}

// guarded answers the requests that the guard refuses and passes the others to
// next.
func (e *Emulator) guarded(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if e.guard.trusts(r) {
			next(w, r)
			return
		}
		err := e.guard.check(r)
		if err == nil {
			next(w, r)
			return
		}
		e.log.Warn("request refused", "remote", r.RemoteAddr, "path", r.URL.Path, "error", err)
		refusal := wire.Errorf(wire.CodeNoPermissionAccess, "%v.", err)
		w.Header().Set("x-ots-requestid", e.requestID())
		w.WriteHeader(refusal.Status)
		w.Write(appendError(nil, refusal)) // the client may have disconnected
	}
}

// adminRefusal returns why a request of the admin API is refused. The API is
// open to this machine; other machines need the token.
func (e *Emulator) adminRefusal(r *http.Request) error {
	if err := e.guard.check(r); err != nil {
		return err
	}
	if e.opts.AdminToken != "" {
		token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if !ok || subtle.ConstantTimeCompare([]byte(token), []byte(e.opts.AdminToken)) == 0 {
			return fmt.Errorf("the admin API needs the header \"Authorization: Bearer TOKEN\" with the token of Options.AdminToken (ots-emulator --admin-token)")
		}
		return nil
	}
	if addr, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok && reachable(addr) {
		return fmt.Errorf("the admin API at %s, which other machines can reach, needs a token: set Options.AdminToken (ots-emulator --admin-token), or serve it on 127.0.0.1", addr)
	}
	return nil
}

// reachable reports whether other machines may reach an address.
func reachable(addr net.Addr) bool {
	tcp, ok := addr.(*net.TCPAddr)
	return ok && !tcp.IP.IsLoopback()
}
