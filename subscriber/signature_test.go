package subscriber

import (
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/watermill-ots/watermill-ots/internal/service"
	"github.com/watermill-ots/watermill-ots/internal/service/servicetest"
	"github.com/watermill-ots/watermill-ots/ots"
)

func TestConfig_signature_version_and_region_go_together(t *testing.T) {
	for name, c := range map[string]struct {
		version ots.SignatureVersion
		region  string
		want    string // in the error; empty: valid
	}{
		"default":                      {0, "", ""},
		"version 2":                    {ots.SignatureV2, "", ""},
		"version 4":                    {ots.SignatureV4, "cn-hangzhou", ""},
		"version 4 far away":           {ots.SignatureV4, "ap-southeast-1", ""},
		"version 4 without a region":   {ots.SignatureV4, "", "Config.Region is empty"},
		"a region without version 4":   {0, "cn-hangzhou", "set Config.SignatureVersion to SignatureV4"},
		"a region with version 2":      {ots.SignatureV2, "cn-hangzhou", "set Config.SignatureVersion to SignatureV4"},
		"an endpoint for a region":     {ots.SignatureV4, "cn-hangzhou.ots.aliyuncs.com", "Config.Region is"},
		"a region with an end of line": {ots.SignatureV4, "cn-hangzhou\n", "Config.Region is"},
		"a region in upper case":       {ots.SignatureV4, "CN-HANGZHOU", "Config.Region is"},
		"an unknown version":           {3, "", "Config.SignatureVersion is 3"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := validConfig()
			cfg.SignatureVersion, cfg.Region = c.version, c.region
			err := cfg.Validate()
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestSignatureVersion_has_a_name(t *testing.T) {
	for version, want := range map[ots.SignatureVersion]string{ots.SignatureV2: "v2", ots.SignatureV4: "v4", 3: "SignatureVersion(3)"} {
		if got := version.String(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// The SDK's clients are given a provider and nothing else: what they keep beside
// it may be wrong (NewTunnelApiWithCredentialsProvider takes the key id for the
// secret) and does not follow the provider.
func TestSDKClients_keep_no_keys(t *testing.T) {
	f := new(fakeService)
	for _, region := range []string{"", "cn-hangzhou"} {
		e := fakeEndpoint(f)
		e.Region = region
		e.Creds = service.NewCredentialsCache(service.StaticCredentials{AccessKeyID: "the-key-id", AccessKeySecret: "hush-hush", SecurityToken: "psst"}, watermill.NopLogger{})
		if _, err := e.Creds.Get(t.Context()); err != nil {
			t.Fatal(err)
		}
		for name, api := range map[string]reflect.Value{
			"calls": reflect.ValueOf(e.API(f)).Elem(), "workers": reflect.ValueOf(e.SDK(f)).Elem().FieldByName("api").Elem(),
		} {
			text := fmt.Sprintf("%+v", api) // which does not follow the pointer to our cache
			if !strings.Contains(text, "instanceName:inst") {
				t.Fatalf("the client of the %s does not print its fields: %s", name, text)
			}
			for _, key := range []string{"the-key-id", "hush-hush", "psst"} {
				if strings.Contains(text, key) {
					t.Errorf("the client of the %s has %s of its own", name, key)
				}
			}
		}
	}
}

func TestSDK_signs_with_renewed_credentials_in_either_version(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, region := range []string{"", "cn-hangzhou"} {
			c, _, _ := servicetest.Scripted(t, servicetest.Gives("a", time.Hour), servicetest.Gives("b", time.Hour))
			sdk := c.SDK(region)
			servicetest.WantCredentials(t, c, "a")
			before := sdk.GetCredentials()
			c.Forget()
			time.Sleep(service.AskPause)
			servicetest.WantCredentials(t, c, "b")
			after := sdk.GetCredentials()
			if before.GetAccessKeyID() != "a" || after.GetAccessKeyID() != "b" || after.GetSecurityToken() != "token of b" || before.GetAccessKeySecret() == after.GetAccessKeySecret() {
				t.Errorf("region %q: the SDK signs with %v after %v", region, after, before)
			}
		}
	})
}

func TestSubscriber_advice_about_refused_keys_names_the_region(t *testing.T) {
	for region, want := range map[string]bool{"": false, "cn-hangzhou": true} {
		cfg := validConfig()
		if cfg.Region = region; region != "" {
			cfg.SignatureVersion = ots.SignatureV4
		}
		cfg.Transport = roundTripFunc(func(r *http.Request) (*http.Response, error) {
			refused := errorReply(http.StatusForbidden, "OTSAuthFailed")
			return answer(r, refused.status, refused.body), nil
		})
		s, err := New(cfg, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Subscribe(t.Context(), "table/tunnel")
		if !errors.Is(err, ots.ErrAuth) || strings.Contains(err.Error(), "Config.Region") != want {
			t.Errorf("region %q: %v", region, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}
