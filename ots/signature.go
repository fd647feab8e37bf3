package ots

import "fmt"

// SignatureVersion is how requests are signed.
type SignatureVersion uint8

const (
	// SignatureV2 signs with the access key's secret. It is the default, here and in
	// the SDK. Each request carries the signature, not the secret.
	SignatureV2 SignatureVersion = 2
	// SignatureV4 signs with a key that is derived from the secret for one day,
	// region and product. It needs the region of the instance.
	SignatureV4 SignatureVersion = 4
)

// DefaultSignatureVersion is used by a Config whose SignatureVersion is zero.
const DefaultSignatureVersion = SignatureV2

// String returns "v2" or "v4".
func (v SignatureVersion) String() string {
	switch v {
	case SignatureV2, SignatureV4:
		return fmt.Sprintf("v%d", uint8(v))
	}
	return fmt.Sprintf("SignatureVersion(%d)", uint8(v))
}
