package router

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/publisher"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// A file that loads must run: what the strict reader takes, the subscriber and the
// publisher take, and what it refuses, they refuse.
func TestParse_takes_what_subscribers_and_publishers_take(t *testing.T) {
	// Each field is good more often than not, or nearly no file would be.
	oneOf := func(t *rapid.T, name, good string, others ...string) string {
		if rapid.IntRange(0, 2).Draw(t, name+" is as usual") != 0 {
			return good
		}
		return rapid.SampledFrom(append(others, good)).Draw(t, name)
	}
	duration := func(t *rapid.T, name string, values ...time.Duration) time.Duration {
		if rapid.IntRange(0, 2).Draw(t, name+" is absent") != 0 {
			return 0
		}
		return rapid.SampledFrom(values).Draw(t, name)
	}
	long := strings.Repeat("n", 256)
	accepted := 0
	rapid.Check(t, func(t *rapid.T) {
		insecure := rapid.Bool().Draw(t, "allow_insecure")
		v4 := rapid.Bool().Draw(t, "signature v4")
		region := ""
		if v4 {
			region = "cn-hangzhou"
		}
		region = oneOf(t, "region", region, "", "cn-hangzhou", "CN-Hangzhou", "cn-hangzhou.ots.aliyuncs.com", "hangzhou")
		endpoint := oneOf(t, "endpoint", "https://main.cn-hangzhou.ots.aliyuncs.com", "http://main.example.com", "http://127.0.0.1:8087",
			"http://localhost/", "https://host/path", "https://host#x", "https://host?a=b", "https://user:pw@host", "https://:443", "ftp://host", "host", "https://in st:%")
		table := oneOf(t, "table", "orders", "_o1", "1orders", "or ders", "or/ders", "größe", "o-1", long)
		tunnel := oneOf(t, "tunnel", "to_warehouse", "to-1", "1", "to.warehouse", "to/warehouse", "größe", "a b", long)
		tag := oneOf(t, "client_tag", "", "pod-1", "größe", strings.Repeat("t", 300))
		interval := duration(t, "heartbeat_interval", 30*time.Nanosecond, 900*time.Millisecond, time.Second, 5*time.Second, 30*time.Second, 10*time.Minute)
		timeout := duration(t, "heartbeat_timeout", 30*time.Nanosecond, time.Second, 1500*time.Millisecond, 6*time.Second, 20*time.Second, 5*time.Minute)
		least := duration(t, "min_poll_interval", 30*time.Nanosecond, time.Millisecond, 2*time.Second, time.Hour)
		longest := duration(t, "max_poll_interval", 30*time.Nanosecond, time.Millisecond, time.Second, 10*time.Second)

		var file strings.Builder
		line := func(indent, format string, args ...any) { fmt.Fprintf(&file, indent+format+"\n", args...) }
		line("", "instances:")
		line("  ", "main:")
		line("    ", "name: main")
		line("    ", "endpoint: %q", endpoint)
		line("    ", "access_key_id: id")
		line("    ", "access_key_secret: secret")
		line("    ", "allow_insecure: %v", insecure)
		version := ots.SignatureV2
		if v4 {
			line("    ", "signature_version: v4")
			version = ots.SignatureV4
		}
		if region != "" {
			line("    ", "region: %q", region)
		}
		line("", "tunnels:")
		line("  ", "orders:")
		line("    ", "instance: main")
		line("    ", "table_name: %q", table)
		line("    ", "tunnel_name: %q", tunnel)
		if tag != "" {
			line("    ", "client_tag: %q", tag)
		}
		for key, d := range map[string]time.Duration{
			"heartbeat_interval": interval, "heartbeat_timeout": timeout, "min_poll_interval": least, "max_poll_interval": longest,
		} {
			if d != 0 {
				line("    ", "%s: %s", key, d)
			}
		}
		_, refused := Parse("ots.yaml", []byte(file.String()))

		s, err := subscriber.New(subscriber.Config{
			Endpoint: endpoint, Instance: "main", AccessKeyID: "id", AccessKeySecret: "secret", AllowInsecure: insecure,
			SignatureVersion: version, Region: region, ClientTag: tag,
			HeartbeatInterval: interval, HeartbeatTimeout: timeout, MinPollInterval: least, MaxPollInterval: longest,
		}, nil)
		if err == nil {
			_ = s.Close() // the topic is looked at first, and nothing is called
			if _, err = s.Subscribe(t.Context(), table+"/"+tunnel); errors.Is(err, subscriber.ErrClosed) {
				err = nil
			}
		}
		if (refused == nil) != (err == nil) {
			t.Fatalf("of\n%sParse says: %v\nthe subscriber: %v", file.String(), refused, err)
		}
		_, err = publisher.New(publisher.Config{
			Endpoint: endpoint, Instance: "main", AccessKeyID: "id", AccessKeySecret: "secret", AllowInsecure: insecure,
			SignatureVersion: version, Region: region,
		}, nil)
		if ofInstance := refused != nil && strings.Contains(refused.Error(), "instances.main."); ofInstance != (err != nil) {
			t.Fatalf("of\n%sParse says: %v\nthe publisher: %v", file.String(), refused, err)
		}
		if refused == nil {
			accepted++
		}
	})
	if accepted == 0 && !testing.Short() { // short runs have a fifth of the files, and may have no good one
		t.Error("no file was taken: the test compares nothing")
	}
}
