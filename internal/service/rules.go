package service

import (
	"net"
	"net/url"
	"regexp"
	"strings"

	"github.com/watermill-ots/watermill-ots/ots"
)

var (
	tableName  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,254}$`)
	tunnelName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,255}$`)
	regionName = regexp.MustCompile(`^[a-z]+(-[a-z0-9]+)+$`)
)

// What names must be like, as the end of a sentence that begins with "a table's name has".
const (
	TableNameRule  = "up to 255 letters, digits and underscores, and begins with no digit"
	TunnelNameRule = "up to 255 letters, digits, underscores and hyphens"
)

// IsTableName reports whether the service takes a table, or a column that a Publisher
// writes, of that name [docs/protocol.md, Limits and cost].
func IsTableName(name string) bool { return tableName.MatchString(name) }

// IsTunnelName reports whether a tunnel can have that name. The service's own rule is not
// documented; none of its consoles and SDKs makes other names.
func IsTunnelName(name string) bool { return tunnelName.MatchString(name) }

// EndpointFault is what is wrong with an endpoint.
type EndpointFault uint8

// The faults of endpoints.
const (
	EndpointGood    EndpointFault = iota
	EndpointEmpty                 // there is none
	EndpointNoURL                 // it does not parse
	EndpointHasMore               // it has a user, path, query or fragment
	EndpointNoHost                // it has no host, or another scheme than http and https
	EndpointPlain                 // it is http to another machine
)

// CheckEndpoint returns what is wrong with an endpoint, and its host as far as there is
// one. insecure allows http to other machines. What is behind the host may hold a secret,
// keys are pasted into URLs: show the host alone.
func CheckEndpoint(endpoint string, insecure bool) (fault EndpointFault, host string) {
	if endpoint == "" {
		return EndpointEmpty, ""
	}
	u, err := url.Parse(endpoint)
	switch {
	case err != nil:
		return EndpointNoURL, ""
	case u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "" && u.Host != "":
		return EndpointHasMore, u.Host
	case u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https":
		return EndpointNoHost, u.Host
	case u.Scheme == "http" && !insecure && !isLoopback(u.Hostname()):
		return EndpointPlain, u.Host
	}
	return EndpointGood, u.Host
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// SignatureFault is what is wrong with a signature version and a region.
type SignatureFault uint8

// The faults of signature versions and regions.
const (
	SignatureGood      SignatureFault = iota
	SignatureUnknown                  // there is no such version
	RegionMissing                     // version 4 without a region
	RegionMalformed                   // not like cn-hangzhou
	RegionWithoutCause                // a region that version 2 does not use
)

// CheckSignature returns what is wrong with a version, of which 0 means the default, and
// a region. A region that does not go with the instance is found only by the service,
// which refuses the signature.
func CheckSignature(v ots.SignatureVersion, region string) SignatureFault {
	if v == 0 {
		v = ots.DefaultSignatureVersion
	}
	switch {
	case v != ots.SignatureV2 && v != ots.SignatureV4:
		return SignatureUnknown
	case v == ots.SignatureV2 && region != "":
		return RegionWithoutCause
	case v == ots.SignatureV4 && region == "":
		return RegionMissing
	case v == ots.SignatureV4 && !regionName.MatchString(region):
		return RegionMalformed
	}
	return SignatureGood
}
