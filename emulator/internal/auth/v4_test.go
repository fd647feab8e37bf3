package auth

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"testing"
	"time"

	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
	"github.com/watermill-ots/watermill-ots/internal/signing"
)

// The request and its signature are from the official Go SDK's tests.
func TestVerifyV4_takes_the_SDKs_own_vector(t *testing.T) {
	h := http.Header{}
	for name, value := range map[string]string{
		"User-Agent": "not signed", "x-ots-date": "2024-08-08T03:22:47.8123Z", "x-ots-apiversion": "2015-12-31",
		"x-ots-accesskeyid": "credentials_test_id", "x-ots-instancename": "credentials_test", "x-ots-contentmd5": "1B2M2Y8AsgTpgAmY7PhCfg==",
		"x-ots-signregion": "cn-hangzhou", "x-ots-signdate": "20240808", "x-ots-signaturev4": "mUSbIuIfN/JuO4/mCOaQZ72JHDc8z6gjPdBpPyAd/ac=",
	} {
		h.Set(name, value)
	}
	k := Keys{ID: "credentials_test_id", Secret: "credentials_test_secret", Instance: "credentials_test", Region: "cn-hangzhou"}
	if err := k.Verify(h, "/ListTable", nil, time.Date(2024, 8, 8, 3, 23, 0, 0, time.UTC)); err != nil {
		t.Error(err)
	}
}

// signedV4 is a request signed at a given time, as by a client of a region.
func signedV4(k Keys, body string, at time.Time) http.Header {
	h := http.Header{}
	sum := md5.Sum([]byte(body))
	for name, value := range map[string]string{
		"x-ots-accesskeyid": k.ID, "x-ots-apiversion": "2018-04-01", "x-ots-date": at.UTC().Format(dateLayout), "x-ots-instancename": k.Instance,
		"x-ots-contentmd5": base64.StdEncoding.EncodeToString(sum[:]), "x-ots-signregion": k.Region, "x-ots-signdate": signing.Date(at),
	} {
		h.Set(name, value)
	}
	resignV4(h, k)
	return h
}

func resignV4(h http.Header, k Keys) {
	mac := hmac.New(sha256.New, []byte(signing.Key(k.Secret, h.Get("x-ots-signdate"), h.Get("x-ots-signregion"))))
	mac.Write([]byte("/tunnel/read\nPOST\n\n" + canonical(h) + "ots"))
	h.Set("x-ots-signaturev4", base64.StdEncoding.EncodeToString(mac.Sum(nil)))
}

func TestVerifyV4(t *testing.T) {
	k := Keys{ID: "ak", Secret: "sk", Instance: "inst", Region: "cn-hangzhou"}
	anywhere, elsewhere, other := k, k, k
	anywhere.Region, elsewhere.Region, other.Secret = "", "cn-beijing", "other"
	noon := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	midnight := time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC)
	for _, v := range []struct {
		name   string
		server Keys // k if it has no ID
		client Keys // k if it has no ID
		sent   time.Time
		now    time.Time
		change func(http.Header)
		code   string
	}{
		{name: "accepts its region"},
		{name: "accepts any region if the server has none", server: anywhere, client: elsewhere},
		{name: "refuses another region", client: elsewhere, code: wire.CodeAuthFailed},
		{name: "refuses a region that was replaced after signing", server: anywhere, change: func(h http.Header) { h.Set("x-ots-signregion", "cn-beijing") }, code: wire.CodeAuthFailed},
		{name: "refuses another secret", client: other, code: wire.CodeAuthFailed},
		{name: "refuses a changed signature", change: func(h http.Header) { h.Set("x-ots-signaturev4", "x"+h.Get("x-ots-signaturev4")) }, code: wire.CodeAuthFailed},
		{name: "refuses a header added after signing", change: func(h http.Header) { h.Set("x-ots-extra", "1") }, code: wire.CodeAuthFailed},
		{name: "refuses the key of yesterday", change: func(h http.Header) { h.Set("x-ots-signdate", "20261123"); resignV4(h, k) }, code: wire.CodeAuthFailed},
		{name: "refuses the key of tomorrow", change: func(h http.Header) { h.Set("x-ots-signdate", "20261125"); resignV4(h, k) }, code: wire.CodeAuthFailed},
		{name: "refuses what is not a day", change: func(h http.Header) { h.Set("x-ots-signdate", "today"); resignV4(h, k) }, code: wire.CodeAuthFailed},
		{name: "refuses an old request", sent: noon.Add(-16 * time.Minute), code: wire.CodeAuthFailed},
		{name: "accepts what was signed before midnight and arrives after it", sent: midnight.Add(-time.Second), now: midnight.Add(time.Second)},
		{name: "accepts a client whose clock is already on the next day", sent: midnight.Add(time.Second), now: midnight.Add(-time.Second)},
		{name: "refuses a missing region", change: func(h http.Header) { h.Del("x-ots-signregion"); resignV4(h, k) }, code: wire.CodeParameterInvalid},
		{name: "refuses a missing day", change: func(h http.Header) { h.Del("x-ots-signdate"); resignV4(h, k) }, code: wire.CodeParameterInvalid},
		{name: "refuses a missing signature", change: func(h http.Header) { h.Del("x-ots-signaturev4") }, code: wire.CodeParameterInvalid},
		{name: "refuses a version 2 signature in addition to a wrong one", change: func(h http.Header) {
			h.Set("x-ots-signaturev4", "wrong")
			h.Set("x-ots-signature", k.sign(stringToSign("/tunnel/read", h)))
		}, code: wire.CodeAuthFailed},
	} {
		t.Run(v.name, func(t *testing.T) {
			server, client, sent, now := v.server, v.client, v.sent, v.now
			if server.ID == "" {
				server = k
			}
			if client.ID == "" {
				client = k
			}
			if now.IsZero() {
				now = noon
			}
			if sent.IsZero() {
				sent = now
			}
			h := signedV4(client, "body", sent)
			if v.change != nil {
				v.change(h)
			}
			err := server.Verify(h, "/tunnel/read", []byte("body"), now)
			if v.code == "" && err != nil {
				t.Fatalf("refused: %v", err)
			}
			if e, ok := err.(*wire.Error); v.code != "" && (!ok || e.Code != v.code) {
				t.Fatalf("got %v, want code %s", err, v.code)
			}
		})
	}
}
