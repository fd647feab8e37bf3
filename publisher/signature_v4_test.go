//go:build !sdk_1_7_17

package publisher_test

import (
	"errors"
	"net/http"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/publisher"
)

// onlyV4 fails the test when a request is not signed in version 4.
type onlyV4 struct {
	testing.TB
	base http.RoundTripper
}

func (o onlyV4) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Header.Get("x-ots-signaturev4") == "" || req.Header.Get("x-ots-signature") != "" {
		o.Errorf("%s is not signed in version 4", req.URL.Path)
	}
	return o.base.RoundTrip(req)
}

func TestSignatureV4_stores_rows_in_its_region_only(t *testing.T) {
	em, err := emulator.Start(emulator.Options{Instance: instance, AccessKeyID: keyID, AccessKeySecret: keySecret, Region: "cn-hangzhou"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := em.Close(); err != nil {
			t.Errorf("closing the emulator: %v", err)
		}
	})
	base := new(http.Transport)
	t.Cleanup(base.CloseIdleConnections)
	v4 := func(region string) *publisher.Publisher {
		return publish(t, em, func(c *publisher.Config) {
			c.SignatureVersion, c.Region, c.Transport = ots.SignatureV4, region, onlyV4{t, base}
		})
	}
	if err := v4("cn-beijing").Publish("events", message.NewMessage("1", nil)); !errors.Is(err, ots.ErrAuth) {
		t.Errorf("another region: %v", err)
	}
	if err := v4("cn-hangzhou").Publish("events", message.NewMessage("2", nil)); err != nil {
		t.Error(err)
	}
	if n := em.Stats().Operations["BatchWriteRow"]; n.Requests-n.Errors != 1 {
		t.Errorf("%d requests stored rows, want 1", n.Requests-n.Errors)
	}
}
