package auth

import (
	"crypto/md5"
	"encoding/base64"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
)

// The vectors were created with the official Go SDK. Only the digests and the
// signatures matter, so the bodies behind the digests are not needed.
func TestSign(t *testing.T) {
	k := Keys{ID: "ak", Secret: "sk"}
	for _, v := range []struct {
		path, apiVersion, digest, trace, want string
	}{
		{"/PutRow", "2015-12-31", "EHK533WoC83qN8hsxwu2Sw==", "", "S/g3YkjySzDUaB/8mSrTdCroUR8="},
		{"/tunnel/create", "2018-04-01", "BwnmGduQ5Sa9LHrmoonH3g==", "4395aa3a-cb08-42b4-b467-74bef6dd0470", "c31KUnpQk/MKcPui6cMpeuV2mzw="},
	} {
		t.Run("matches the SDK for "+v.path, func(t *testing.T) {
			h := http.Header{}
			h.Set("x-ots-accesskeyid", "ak")
			h.Set("x-ots-apiversion", v.apiVersion)
			h.Set("x-ots-contentmd5", v.digest)
			h.Set("x-ots-date", "2026-11-24T07:17:38.11247Z")
			h.Set("x-ots-instancename", "inst")
			h.Set("x-ots-signature", "not signed")
			h.Set("User-Agent", "not signed")
			if v.trace != "" {
				h.Set("x-ots-trace-id", v.trace)
			}
			if got := k.sign(v.path + "\nPOST\n\n" + canonical(h)); got != v.want {
				t.Errorf("signature %s, want %s", got, v.want)
			}
		})
	}
}

func signed(k Keys, path, body string, date string) http.Header {
	h := http.Header{}
	h.Set("x-ots-accesskeyid", k.ID)
	h.Set("x-ots-apiversion", "2015-12-31")
	h.Set("x-ots-date", date)
	h.Set("x-ots-instancename", k.Instance)
	if k.Token != "" {
		h.Set("x-ots-ststoken", k.Token)
	}
	k.SignResponse(h, path, []byte(body), true) // for the digest
	h.Del("authorization")
	h.Set("x-ots-signature", k.sign(path+"\nPOST\n\n"+canonical(h)))
	return h
}

func TestVerify(t *testing.T) {
	now := time.Date(2026, 11, 24, 7, 20, 0, 0, time.UTC)
	k := Keys{ID: "ak", Secret: "sk", Instance: "inst", Token: "sts"}
	const goDate = "2026-11-24T07:17:38.11247Z" // month, day, hour after the dot
	for _, v := range []struct {
		name   string
		change func(h http.Header, body *string)
		sign   Keys
		date   string
		hex    bool
		code   string
	}{
		{name: "accepts the Go SDK's date"},
		{name: "accepts milliseconds", date: "2026-11-24T07:17:38.123Z"},
		{name: "accepts a date without a fraction", date: "2026-11-24T07:17:38Z"},
		{name: "refuses a date 16 minutes old", date: "2026-11-24T07:04:00Z", code: wire.CodeAuthFailed},
		{name: "refuses a date 16 minutes ahead", date: "2026-11-24T07:36:00Z", code: wire.CodeAuthFailed},
		{name: "refuses what is not a date", date: "yesterday, about noon", code: wire.CodeParameterInvalid},
		{name: "refuses a short date", date: "2026", code: wire.CodeParameterInvalid},
		{name: "refuses another secret", sign: Keys{ID: "ak", Secret: "other", Instance: "inst", Token: "sts"}, code: wire.CodeAuthFailed},
		{name: "refuses another key id", sign: Keys{ID: "other", Secret: "sk", Instance: "inst", Token: "sts"}, code: wire.CodeAuthFailed},
		{name: "refuses another instance", sign: Keys{ID: "ak", Secret: "sk", Instance: "other", Token: "sts"}, code: wire.CodeAuthFailed},
		{name: "refuses another security token", sign: Keys{ID: "ak", Secret: "sk", Instance: "inst", Token: "old"}, code: wire.CodeAuthFailed},
		{name: "accepts a digest in hexadecimal, as ex_aliyun_ots sends it", hex: true},
		{name: "refuses a changed body with a digest in hexadecimal", hex: true, change: func(_ http.Header, body *string) { *body += "x" }, code: wire.CodeAuthFailed},
		{name: "refuses a changed body", change: func(_ http.Header, body *string) { *body += "x" }, code: wire.CodeAuthFailed},
		{name: "refuses a header added after signing", change: func(h http.Header, _ *string) { h.Set("x-ots-extra", "1") }, code: wire.CodeAuthFailed},
		{name: "refuses a missing signature", change: func(h http.Header, _ *string) { h.Del("x-ots-signature") }, code: wire.CodeParameterInvalid},
	} {
		t.Run(v.name, func(t *testing.T) {
			date, by, body := v.date, v.sign, "body"
			if date == "" {
				date = goDate
			}
			if by.ID == "" {
				by = k
			}
			h := signed(by, "/PutRow", body, date)
			if v.hex {
				h.Set("x-ots-contentmd5", base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%X", md5.Sum([]byte(body)))))
				h.Set("x-ots-signature", by.sign("/PutRow\nPOST\n\n"+canonical(h)))
			}
			if v.change != nil {
				v.change(h, &body)
			}
			err := k.Verify(h, "/PutRow", []byte(body), now)
			if v.code == "" && err != nil {
				t.Fatalf("refused: %v", err)
			}
			if v.code != "" {
				e, ok := err.(*wire.Error)
				if !ok || e.Code != v.code {
					t.Fatalf("got %v, want code %s", err, v.code)
				}
			}
		})
	}
	t.Run("without keys still refuses another instance", func(t *testing.T) {
		for name, want := range map[string]string{"inst": "", "": "", "other": wire.CodeAuthFailed} {
			h := http.Header{}
			if name != "" {
				h.Set("x-ots-instancename", name)
			}
			err := Keys{Instance: "inst"}.Verify(h, "/PutRow", nil, now)
			if e, ok := err.(*wire.Error); want == "" && err != nil || want != "" && (!ok || e.Code != want) {
				t.Errorf("instance %q: %v, want code %q", name, err, want)
			}
		}
	})
	t.Run("without keys accepts anything", func(t *testing.T) {
		if err := (Keys{}).Verify(http.Header{}, "/PutRow", nil, now); err != nil {
			t.Error(err)
		}
	})
}
