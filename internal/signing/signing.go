// Package signing builds the credentials that the SDK signs requests with, for
// signature version 2 (HMAC-SHA1 with the access key's secret) and version 4
// (HMAC-SHA256 with a key derived from the secret, the day and the region).
//
// The SDK chooses the version by the credentials' method set: credentials with
// GetRegion and GetSigningDate sign version 4. The SDK's own common.V4Credentials are
// not used here, for three reasons. They change while they sign, without a lock, so
// clients that share them race. The first request of a day carries yesterday's date
// with a signature of today's key. And they keep the keys that they were created with,
// so they cannot follow a provider.
package signing

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/common"
)

// Salt is the text that version 4 signs after the headers.
const Salt = "ots"

// dateLayout is the format of x-ots-signdate.
const dateLayout = "20060102"

// Credentials returns the SDK credentials for a request at this moment: version 4 for
// region, or version 2 if region is empty. Call it for each request, because a version 4
// key is valid for one day.
func Credentials(region, id, secret, token string) common.Credentials {
	if region == "" {
		return &common.DefaultCredentials{AccessKeyID: id, AccessKeySecret: secret, SecurityToken: token}
	}
	date := Date(time.Now())
	return &v4{id: id, key: Key(secret, date, region), token: token, region: region, date: date}
}

// Date returns the day of t, in the format that version 4 signs.
func Date(t time.Time) string { return t.UTC().Format(dateLayout) }

// Key derives the version 4 key for the requests of a day and region.
func Key(secret, date, region string) string {
	key := []byte("aliyun_v4" + secret)
	for _, part := range []string{date, region, "ots", "aliyun_v4_request"} {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(part))
		key = mac.Sum(nil)
	}
	// The base64 text, not the bytes that it encodes, is the key of the signature.
	return base64.StdEncoding.EncodeToString(key)
}

// v4 signs version 4. It implements the SDK's common.CredentialsV4, and never changes.
type v4 struct{ id, key, token, region, date string }

func (c *v4) GetAccessKeyID() string     { return c.id }
func (c *v4) GetAccessKeySecret() string { return c.key }
func (c *v4) GetSecurityToken() string   { return c.token }
func (c *v4) GetRegion() string          { return c.region }
func (c *v4) GetSigningDate() string     { return c.date }

// String returns a text without secrets.
func (c *v4) String() string { return "credentials of " + c.id + " for " + c.region }

// GoString returns the same as String, so that %#v shows no secret either.
func (c *v4) GoString() string { return c.String() }

// Fixed is the credentials provider of an SDK client that is created for one call.
type Fixed struct{ Of common.Credentials }

var _ common.CredentialsProvider = Fixed{}

// GetCredentials implements common.CredentialsProvider.
func (f Fixed) GetCredentials() common.Credentials { return f.Of }
