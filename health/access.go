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
	// RemoteNone answers requests from this machine only, and ListenAndServe
	// takes loopback addresses only.
	RemoteNone Remote = iota
	// RemoteProbes answers /livez and /readyz to everybody, as a kubelet needs
	// it, and the rest to this machine only: by way of kubectl port-forward, say.
	RemoteProbes
	// RemoteAll answers everything to everybody. Something in front should
	// ask who they are: the status holds primary keys and error texts.
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
		return "this is for requests from the machine itself (health.Config.Remote)"
	case !probe && !loopback(req.Host):
		// A web page may have its own name resolve to 127.0.0.1 and read what is
		// here (DNS rebinding); it cannot change the name in the request.
		return "ask for localhost: other names could be those of a web page elsewhere (health.Config.Remote)"
	}
	return ""
}

// loopback reports whether an address, with or without a port, is this
// machine's to itself.
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
