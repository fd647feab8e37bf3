package health

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
)

// Remote says what requests from other machines may see.
type Remote uint8

const (
	// RemoteNone answers only requests from this machine, and ListenAndServe
	// accepts only loopback addresses.
	RemoteNone Remote = iota
	// RemoteProbes answers /livez and /readyz to every machine, as a kubelet needs,
	// and the rest only to this machine, for example through kubectl port-forward.
	RemoteProbes
	// RemoteAll answers all requests from every machine. A proxy in front should
	// authenticate them: the status has primary keys and error texts.
	RemoteAll
)

// String returns "none", "probes" or "all".
func (r Remote) String() string {
	switch r {
	case RemoteNone:
		return "none"
	case RemoteProbes:
		return "probes"
	case RemoteAll:
		return "all"
	}
	return fmt.Sprintf("Remote(%d)", uint8(r))
}

// refuse returns why the request is not answered, or "".
func (r Remote) refuse(req *http.Request) string {
	probe := req.URL.Path == "/livez" || req.URL.Path == "/readyz"
	switch {
	case r == RemoteAll, r == RemoteProbes && probe:
		return ""
	case !loopback(req.RemoteAddr):
		return "only requests from this machine are answered (health.Config.Remote)"
	case !probe && !loopback(req.Host):
		// A web page may make its own name resolve to 127.0.0.1 and read the status
		// (DNS rebinding); it cannot change the name in the request.
		return "use the name localhost: a web page elsewhere may use other names for this machine (health.Config.Remote)"
	}
	return ""
}

// loopback reports whether addr, with or without a port, is a loopback address.
func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		host = addr
	}
	if host == "localhost" {
		return true
	}
	if n := len(host); n > 1 && host[0] == '[' && host[n-1] == ']' {
		host = host[1 : n-1]
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}
