// Package auth checks the signatures of requests and signs responses, as the
// service does (signature version 2, HMAC-SHA1).
package auth

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/base64"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
)

const (
	prefix = "x-ots-"

	// MaxSkew is how far a request's date may be from the server's time.
	MaxSkew = 15 * time.Minute

	// dateLayout covers the part of x-ots-date that all SDKs agree on. What
	// the Go SDK writes behind it are month, day and hour, not a fraction.
	dateLayout = "2006-01-02T15:04:05"
)

// Keys are the credentials of the one user that the emulator knows. The zero
// Keys accept every request.
type Keys struct {
	ID, Secret string
	Token      string // security token; when set, requests must carry it
	Instance   string // when set, requests must name it
}

// required are the headers without which a request is refused.
var required = []string{
	"x-ots-apiversion", "x-ots-date", "x-ots-accesskeyid", "x-ots-instancename", "x-ots-contentmd5", "x-ots-signature",
}

// Verify checks a request's headers, date, body digest and signature. The error
// is a *wire.Error that says no more than the service would.
func (k Keys) Verify(header http.Header, path string, body []byte, now time.Time) error {
	if k.ID == "" {
		return nil
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
	if skew := now.Sub(sent); skew > MaxSkew || skew < -MaxSkew {
		return wire.Errorf(wire.CodeAuthFailed, "Mismatch between system time and x-ots-date: %s.", date[:len(dateLayout)])
	}
	if id := header.Get("x-ots-accesskeyid"); id != k.ID {
		return wire.Errorf(wire.CodeAuthFailed, "The AccessKeyID does not exist: %.64s.", id)
	}
	if k.Instance != "" && header.Get("x-ots-instancename") != k.Instance {
		return wire.Errorf(wire.CodeAuthFailed, "The instance is not found: %.64s.", header.Get("x-ots-instancename"))
	}
	if k.Token != "" && subtle.ConstantTimeCompare([]byte(header.Get("x-ots-ststoken")), []byte(k.Token)) == 0 {
		return wire.Errorf(wire.CodeAuthFailed, "The security token is invalid.")
	}
	sum := md5.Sum(body)
	if header.Get("x-ots-contentmd5") != base64.StdEncoding.EncodeToString(sum[:]) {
		return wire.Errorf(wire.CodeAuthFailed, "Mismatch between MD5 value of request body and x-ots-contentmd5 in header.")
	}
	want := k.sign(path + "\nPOST\n\n" + canonical(header))
	if subtle.ConstantTimeCompare([]byte(header.Get("x-ots-signature")), []byte(want)) == 0 {
		return wire.Errorf(wire.CodeAuthFailed, "Signature mismatch.")
	}
	return nil
}

// SignResponse adds the headers that the Java SDK's table client verifies; the
// request id and date must be there already. Without keys it adds what needs
// none. With digest unset the body's digest, and so the signature, is left out.
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

// canonical returns the x-ots headers but the signature, sorted, one a line.
func canonical(header http.Header) string {
	var lines []string
	for name, values := range header {
		name = strings.ToLower(name)
		if strings.HasPrefix(name, prefix) && name != "x-ots-signature" && len(values) > 0 {
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
