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
	columnName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]{0,254}$`)
	tunnelName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,255}$`)
	regionName = regexp.MustCompile(`^[a-z]+(-[a-z0-9]+)+$`)
)

// The rules for names, as the end of a sentence that begins with "a table's name has".
const (
	TableNameRule  = "up to 255 letters, digits and underscores, and does not begin with a digit"
	ColumnNameRule = "up to 255 letters, digits, underscores and hyphens, and begins with a letter or an underscore"
	TunnelNameRule = "up to 255 letters, digits, underscores and hyphens"
)

// IsTableName reports whether the service accepts the name for a table, or for a column
// that a Publisher writes [docs/protocol.md, Limits and cost].
func IsTableName(name string) bool { return tableName.MatchString(name) }

// IsColumnName reports whether the service accepts the name for a column.
func IsColumnName(name string) bool { return columnName.MatchString(name) }

// IsTunnelName reports whether a tunnel can have the name. The service does not document
// its rule; its consoles and SDKs do not create other names.
func IsTunnelName(name string) bool { return tunnelName.MatchString(name) }

// EndpointFault is a fault of an endpoint.
type EndpointFault uint8

// The faults of endpoints.
const (
	EndpointGood      EndpointFault = iota
	EndpointEmpty                   // it is empty
	EndpointMalformed               // it does not parse as a URL
	EndpointHasMore                 // it has a user, path, query or fragment
	EndpointNoHost                  // it has no host, or a scheme other than http and https
	EndpointPlain                   // it is http to another machine
)

// CheckEndpoint returns the fault of an endpoint, and its host if it has one. insecure
// allows http to other machines. Show only the host: the rest of the URL may contain a
// secret, because users paste keys into URLs.
func CheckEndpoint(endpoint string, insecure bool) (fault EndpointFault, host string) {
	if endpoint == "" {
		return EndpointEmpty, ""
	}
	u, err := url.Parse(endpoint)
	switch {
	case err != nil:
		return EndpointMalformed, ""
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

// SignatureFault is a fault of a signature version and a region.
type SignatureFault uint8

// The faults of signature versions and regions.
const (
	SignatureGood    SignatureFault = iota
	SignatureUnknown                // there is no such version
	RegionMissing                   // version 4 without a region
	RegionMalformed                 // not like cn-hangzhou
	RegionUnused                    // a region with version 2, which does not use it
)

// CheckSignature returns the fault of a signature version (0 means the default) and a
// region. It cannot tell whether the region is the instance's: if it is not, the service
// refuses the signature.
func CheckSignature(v ots.SignatureVersion, region string) SignatureFault {
	if v == 0 {
		v = ots.DefaultSignatureVersion
	}
	switch {
	case v != ots.SignatureV2 && v != ots.SignatureV4:
		return SignatureUnknown
	case v == ots.SignatureV2 && region != "":
		return RegionUnused
	case v == ots.SignatureV4 && region == "":
		return RegionMissing
	case v == ots.SignatureV4 && !regionName.MatchString(region):
		return RegionMalformed
	}
	return SignatureGood
}
