//go:build !sdk_1_7_17

package signing

import (
	"net/http"
	"testing"

	"github.com/aliyun/aliyun-tablestore-go-sdk/common"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
)

var _ common.CredentialsV4 = (*v4)(nil)

func TestV4_has_the_key_that_the_SDK_derives(t *testing.T) {
	keys := &common.DefaultCredentials{AccessKeyID: "id", AccessKeySecret: "secret"}
	sdk := common.CreateByCredentials(keys, "cn-hangzhou")
	if got := Key("secret", sdk.GetSigningDate(), "cn-hangzhou"); got != sdk.GetAccessKeySecret() {
		t.Errorf("%s, want %s", got, sdk.GetAccessKeySecret())
	}
}

// The request and its signature are those of the SDK's own tests.
func TestV4_signs_as_the_SDK_does(t *testing.T) {
	header := http.Header{}
	for name, value := range map[string]string{
		"x-ots-date": "2024-08-08T03:22:47.8123Z", "x-ots-apiversion": "2015-12-31", "x-ots-accesskeyid": "credentials_test_id",
		"x-ots-instancename": "credentials_test", "x-ots-contentmd5": "1B2M2Y8AsgTpgAmY7PhCfg==",
	} {
		header.Set(name, value)
	}
	c := &v4{id: "credentials_test_id", key: Key("credentials_test_secret", "20240808", "cn-hangzhou"), region: "cn-hangzhou", date: "20240808"}
	tablestore.AddExtraHeader(&http.Request{Header: header}, c)
	for name, sign := range map[string]func(string, string, common.Credentials, http.Header) (string, error){
		"tables": tablestore.GetSignature, "tunnels": tunnel.GetSignature,
	} {
		const want = "mUSbIuIfN/JuO4/mCOaQZ72JHDc8z6gjPdBpPyAd/ac="
		if got, err := sign("/ListTable", "POST", c, header); got != want || err != nil {
			t.Errorf("%s: %s, %v; want %s", name, got, err, want)
		}
	}
}
