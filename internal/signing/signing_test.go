package signing

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/common"
)

// signsV4 is the interface that the SDK looks for. Versions before 1.8.0 do not have its
// name, common.CredentialsV4.
type signsV4 interface {
	common.Credentials
	GetRegion() string
	GetSigningDate() string
}

func TestKey_is_that_of_the_SDKs_own_tests(t *testing.T) {
	const want = "RNN1/s8/m45SdD+EzXlvpyGxc4Enu0RiODs1Lg+xFpo="
	if got := Key("credentials_test_secret", "20240808", "cn-hangzhou"); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestCredentials_without_a_region_sign_version_2(t *testing.T) {
	c := Credentials("", "id", "secret", "token")
	if _, v4 := c.(signsV4); v4 {
		t.Error("the SDK would sign version 4")
	}
	if c.GetAccessKeyID() != "id" || c.GetAccessKeySecret() != "secret" || c.GetSecurityToken() != "token" {
		t.Error("other keys")
	}
}

func TestCredentials_with_a_region_sign_version_4(t *testing.T) {
	c, v4 := Credentials("cn-hangzhou", "id", "hush", "psst").(signsV4)
	if !v4 {
		t.Fatal("the SDK would sign version 2")
	}
	if c.GetAccessKeyID() != "id" || c.GetSecurityToken() != "psst" || c.GetRegion() != "cn-hangzhou" {
		t.Error("other keys, or another region")
	}
	if got, want := c.GetAccessKeySecret(), Key("hush", c.GetSigningDate(), "cn-hangzhou"); got != want {
		t.Error("the key is not that of the date and region which the request carries")
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		text := fmt.Sprintf(verb, c)
		for _, secret := range []string{"hush", "psst", c.GetAccessKeySecret()} {
			if strings.Contains(text, secret) {
				t.Errorf("%s shows a secret: %s", verb, text)
			}
		}
	}
}

func TestCredentials_follow_the_day_in_UTC_and_never_change(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // it is midnight in UTC
		time.Local = time.FixedZone("far east", 13*60*60)
		defer func() { time.Local = time.UTC }()
		time.Sleep(24*time.Hour - time.Nanosecond)
		before := Credentials("cn-hangzhou", "id", "secret", "").(signsV4)
		key := before.GetAccessKeySecret()
		time.Sleep(time.Nanosecond)
		after := Credentials("cn-hangzhou", "id", "secret", "").(signsV4)
		if before.GetSigningDate() != "20000101" || after.GetSigningDate() != "20000102" {
			t.Errorf("dates %s and %s, want 20000101 and 20000102", before.GetSigningDate(), after.GetSigningDate())
		}
		if before.GetAccessKeySecret() != key {
			t.Error("credentials changed after a request was signed with them: its date is that of the day before")
		}
		if after.GetAccessKeySecret() == key {
			t.Error("the key of the day before signs on")
		}
	})
}
