package emulator_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/watermill-ots/watermill-ots/emulator"
)

func TestSDKUnsupported(t *testing.T) {
	t.Run("operations answer with an error that says what is missing", func(t *testing.T) {
		s := newSDK(t, start(t, keys))
		_, err := s.SQLQuery(&tablestore.SQLQueryRequest{Query: "select 1"})
		expect(t, "SQL", sdkCode(err), "OTSUnsupportOperation")
		if !strings.Contains(fmt.Sprint(err), "Unsupported operation: 'SQLQuery': this emulator has no SQL.") {
			t.Errorf("the error does not help: %v", err)
		}
	})
}

func TestSDKAuth(t *testing.T) {
	for _, v := range []struct{ name, instance, id, secret, token string }{
		{"a wrong secret", "inst", "ak", "wrong", "sts"},
		{"an unknown key", "inst", "other", "sk", "sts"},
		{"another instance", "other", "ak", "sk", "sts"},
		{"a wrong security token", "inst", "ak", "sk", "old"},
	} {
		t.Run("refuses "+v.name, func(t *testing.T) {
			opts := keys
			opts.SecurityToken = "sts"
			e := start(t, opts)
			cfg := tablestore.NewDefaultTableStoreConfig()
			cfg.Transport = e.Transport()
			c := tablestore.NewClientWithConfig(e.Endpoint(), v.instance, v.id, v.secret, v.token, cfg)
			_, err := c.ListTable()
			expect(t, "error", sdkCode(err), "OTSAuthFailed")
			good := tablestore.NewClientWithConfig(e.Endpoint(), "inst", "ak", "sk", "sts", cfg)
			if _, err := good.ListTable(); err != nil {
				t.Errorf("the right credentials: %v", err)
			}
		})
	}
	t.Run("refuses a client whose clock is wrong", func(t *testing.T) {
		e := start(t, keys)
		s := newSDK(t, e)
		e.SkewClock(16 * time.Minute)
		_, err := s.ListTable()
		expect(t, "error", sdkCode(err), "OTSAuthFailed")
		e.SkewClock(-14 * time.Minute)
		if _, err := s.ListTable(); err != nil {
			t.Error(err)
		}
	})
	t.Run("accepts any credentials without keys", func(t *testing.T) {
		e := start(t, emulator.Options{})
		if _, err := tablestore.NewClient(e.Endpoint(), "any", "any", "any").ListTable(); err != nil {
			t.Error(err)
		}
	})
	t.Run("accepts an endpoint with a trailing slash, with which the SDK signs another path than it requests", func(t *testing.T) {
		e := start(t, keys)
		if _, err := tablestore.NewClient(e.Endpoint()+"/", "inst", "ak", "sk").ListTable(); err != nil {
			t.Error(err)
		}
	})
}
