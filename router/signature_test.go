package router_test

import (
	"strings"
	"testing"

	"github.com/watermill-ots/watermill-ots/router"
)

func TestParse_signature(t *testing.T) {
	setEnv(t)
	for text, want := range map[string]router.Instance{
		"    debug: false":                                       {},
		"    signature_version: v2":                              {SignatureVersion: "v2"},
		"    signature_version: v4\n    region: cn-hangzhou":     {SignatureVersion: "v4", Region: "cn-hangzhou"},
		"    region: us-east-1\n    signature_version: ${V:-v4}": {SignatureVersion: "v4", Region: "us-east-1"},
	} {
		cfg, err := router.Parse("ots.yaml", []byte(strings.Replace(whole, "    debug: false", text, 1)))
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if in := cfg.Instances["main"]; in.SignatureVersion != want.SignatureVersion || in.Region != want.Region {
			t.Errorf("%q: got %q and %q", text, in.SignatureVersion, in.Region)
		}
	}
}
