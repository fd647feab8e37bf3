// Package auth verifies the signatures of requests and signs responses, as the
// service does: version 2 (HMAC-SHA1) and version 4 (HMAC-SHA256 with a key
// derived for the day and the region).
package auth

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/watermill-ots/watermill-ots/emulator/internal/assume"
	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
	"github.com/watermill-ots/watermill-ots/internal/signing"
)

const (
	prefix = "x-ots-"

	// MaxSkew is how far a request's date may be from the server's time.
	MaxSkew = 15 * time.Minute

	// dateLayout covers the part of x-ots-date that all SDKs agree on. The Go
	// SDK appends month, day and hour to it, not a fraction.
	dateLayout = "2006-01-02T15:04:05"
)

// Keys are the credentials of the emulator's only user. The zero Keys accept
// every request.
type Keys struct {
	ID, Secret string
	Token      string // security token; when set, requests must carry it
	Instance   string // when set, requests may name no other
	Region     string // when set, version 4 signatures must be made for it
	Assume     assume.Set
}

// required are the headers without which a request is refused.
var required = []string{
	"x-ots-apiversion", "x-ots-date", "x-ots-accesskeyid", "x-ots-instancename", "x-ots-contentmd5",
}

// The headers of the two versions' signatures. A request that has the second
// one is verified as version 4, whatever else it contains.
const (
	headerV2 = "x-ots-signature"
	headerV4 = "x-ots-signaturev4"
)

// Verify checks a request's headers, date, body digest and signature. The error
// is a *wire.Error and reveals no more than the service would.
func (k Keys) Verify(header http.Header, path string, body []byte, now time.Time) error {
	if k.ID == "" {
		return k.checkInstance(header)
	}
	for _, name := range required {
		if header.Get(name) == "" {
			return wire.Invalid("Missing header: '%s'.", name)
		}
	}
	date := header.Get("x-ots-date")
	if len(date) < len(dateLayout) {
		return wire.Invalid("Invalid date format: %.64s.", date)
	}
	sent, err := time.Parse(dateLayout, date[:len(dateLayout)])
	if err != nil {
		return wire.Invalid("Invalid date format: %.64s.", date)
	}
	allowed := MaxSkew
	if k.Assume[assume.StrictClock] {
		allowed = time.Minute
	}
	if skew := now.Sub(sent); skew > allowed || skew < -allowed {
		return wire.Errorf(wire.CodeAuthFailed, "Mismatch between system time and x-ots-date: %s.", date[:len(dateLayout)])
	}
	if id := header.Get("x-ots-accesskeyid"); id != k.ID {
		return wire.Errorf(wire.CodeAuthFailed, "The AccessKeyID does not exist: %.64s.", id)
	}
	if err := k.checkInstance(header); err != nil {
		return err
	}
	if k.Token != "" && subtle.ConstantTimeCompare([]byte(header.Get("x-ots-ststoken")), []byte(k.Token)) == 0 {
		return wire.Errorf(wire.CodeAuthFailed, "The security token is invalid.")
	}
	if sum := md5.Sum(body); !digestOf(header.Get("x-ots-contentmd5"), sum) {
		return wire.Errorf(wire.CodeAuthFailed, "Mismatch between MD5 value of request body and x-ots-contentmd5 in header.")
	}
	if header.Get(headerV4) != "" {
		return k.verifyV4(header, path, now)
	}
	got := header.Get(headerV2)
	if got == "" {
		return wire.Invalid("Missing header: '%s'.", headerV2)
	}
	return k.same(got, k.sign(stringToSign(path, header)))
}

// verifyV4 checks a version 4 signature and what only that version has: region
// and day.
//
// The service's documentation says that a derived key is invalid the next day.
// A request may be signed before midnight and arrive after it, so a day is
// accepted if any moment that x-ots-date may stand for falls on it.
func (k Keys) verifyV4(header http.Header, path string, now time.Time) error {
	region, date := header.Get("x-ots-signregion"), header.Get("x-ots-signdate")
	if region == "" {
		return wire.Invalid("Missing header: 'x-ots-signregion'.")
	}
	if date == "" {
		return wire.Invalid("Missing header: 'x-ots-signdate'.")
	}
	if k.Region != "" && region != k.Region {
		return wire.Errorf(wire.CodeAuthFailed, "Mismatch between the region of the instance and x-ots-signregion: %.64s.", region)
	}
	if date != signing.Date(now.Add(-MaxSkew)) && date != signing.Date(now.Add(MaxSkew)) {
		return wire.Errorf(wire.CodeAuthFailed, "Mismatch between system time and x-ots-signdate: %.64s.", date)
	}
	mac := hmac.New(sha256.New, []byte(signing.Key(k.Secret, date, region)))
	mac.Write([]byte(stringToSign(path, header) + signing.Salt))
	return k.same(header.Get(headerV4), base64.StdEncoding.EncodeToString(mac.Sum(nil)))
}

// stringToSign returns the part of a request that both versions sign.
func stringToSign(path string, header http.Header) string {
	return path + "\nPOST\n\n" + canonical(header)
}

// same refuses a signature that is not the wanted one.
func (k Keys) same(got, want string) error {
	if subtle.ConstantTimeCompare([]byte(got), []byte(want)) == 0 {
		if k.Assume[assume.WrongKeysAreInvalid] {
			return wire.Invalid("Signature mismatch.")
		}
		return wire.Errorf(wire.CodeAuthFailed, "Signature mismatch.")
	}
	return nil
}

// digestOf reports whether the header's value is the MD5 sum of a body: its
// base64 or, as ex_aliyun_ots sends for table operations, the base64 of its
// upper-case hexadecimal form.
func digestOf(value string, sum [md5.Size]byte) bool {
	return value == base64.StdEncoding.EncodeToString(sum[:]) ||
		value == base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%X", sum))
}

// checkInstance refuses a request that names another instance. A request
// without an instance name has no credentials either and comes from a person,
// not from an SDK.
func (k Keys) checkInstance(header http.Header) error {
	name := header.Get("x-ots-instancename")
	if k.Instance == "" || name == "" || name == k.Instance {
		return nil
	}
	return wire.Errorf(wire.CodeAuthFailed, "The instance is not found: %.64s.", name)
}

// SignResponse adds the headers that the Java SDK's table client verifies. All
// other headers must be set already, and body is the uncompressed body. Without
// keys it adds only the headers that need none. Without digest it leaves out
// the body's digest and therefore the signature.
func (k Keys) SignResponse(header http.Header, path string, body []byte, digest bool) {
	header.Set("x-ots-contenttype", "protocol buffer")
	if !digest {
		return
	}
	sum := md5.Sum(body)
	header.Set("x-ots-contentmd5", base64.StdEncoding.EncodeToString(sum[:]))
	if k.ID != "" {
		header.Set("authorization", "OTS "+k.ID+":"+k.sign(canonical(header)+path))
	}
}

// canonical returns the x-ots headers except the signatures, sorted, one per
// line.
func canonical(header http.Header) string {
	var lines []string
	for name, values := range header {
		name = strings.ToLower(name)
		if strings.HasPrefix(name, prefix) && name != headerV2 && name != headerV4 && len(values) > 0 {
			lines = append(lines, name+":"+strings.TrimSpace(values[0])+"\n")
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

func (k Keys) sign(text string) string {
	mac := hmac.New(sha1.New, []byte(k.Secret))
	mac.Write([]byte(text))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}
