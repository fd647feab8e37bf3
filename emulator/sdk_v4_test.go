//go:build !sdk_1_7_17

package emulator_test

import (
	"cmp"
	"errors"
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/common"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
)

// TestSDKSignatureV4 signs with the SDK's own version 4 credentials, for tables
// and tunnels.
func TestSDKSignatureV4(t *testing.T) {
	opts := keys
	opts.SecurityToken, opts.Region = "sts", "cn-hangzhou"
	for _, v := range []struct{ name, id, secret, token, region, date, code string }{
		{name: "accepts the right credentials"},
		{name: "refuses a wrong secret", secret: "wrong", code: "OTSAuthFailed"},
		{name: "refuses an unknown key", id: "other", code: "OTSAuthFailed"},
		{name: "refuses a wrong security token", token: "old", code: "OTSAuthFailed"},
		{name: "refuses another region", region: "cn-beijing", code: "OTSAuthFailed"},
		// Not of yesterday: shortly after midnight that key still counts (auth.MaxSkew).
		{name: "refuses a key of an earlier day", date: time.Now().Add(-48 * time.Hour).UTC().Format("20060102"), code: "OTSAuthFailed"},
	} {
		t.Run(v.name, func(t *testing.T) {
			e := start(t, opts)
			fixed := &common.DefaultCredentials{AccessKeyID: cmp.Or(v.id, "ak"), AccessKeySecret: cmp.Or(v.secret, "sk"), SecurityToken: cmp.Or(v.token, "sts")}
			cred := common.CreateByCredentials(fixed, cmp.Or(v.region, "cn-hangzhou"))
			if v.date != "" { // a derived key that is valid for one day
				cred = &common.V4Credentials{
					AccessKeyID: "ak", V4SigningStsToken: "sts", Region: "cn-hangzhou", SigningDate: v.date,
					V4SigningAccessKey: common.FinalSigningKeyString("sk", v.date, "cn-hangzhou", "ots", "HmacSHA256"),
				}
			}
			cfg := tablestore.NewDefaultTableStoreConfig()
			cfg.Transport = e.Transport()
			_, err := tablestore.NewClientWithCredentialsProvider(e.Endpoint(), "inst", cred, cfg).ListTable()
			if v.code != "" || err != nil {
				expect(t, "error of tables", sdkCode(err), v.code)
			}
			api := tunnel.NewTunnelApi(e.Endpoint(), "inst", "", "", &tunnel.TunnelConfig{Transport: e.Transport()}, tunnel.SetCredentialsProvider(cred))
			_, err = api.DescribeTunnel(&tunnel.DescribeTunnelRequest{TableName: "none", TunnelName: "none"})
			var terr *tunnel.TunnelError
			if !errors.As(err, &terr) {
				t.Fatalf("tunnels: %v", err)
			}
			expect(t, "error of tunnels", terr.Code, cmp.Or(v.code, "OTSParameterInvalid"))
		})
	}
}
