package router_test

import (
	"testing"
	"time"

	"github.com/watermill-ots/watermill-ots/router"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

func TestSubscriberConfig_has_what_the_file_says_of_fleets(t *testing.T) {
	setEnv(t)
	cfg, err := router.Parse("ots.yaml", []byte(whole))
	if err != nil {
		t.Fatal(err)
	}
	r, err := router.New(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	got := router.SubscriberConfig(r, "audit")
	if got.Preset != subscriber.PresetFleet || got.ClientTag != "audit-0" || got.ExpectedClients != 3 || got.TunnelViewInterval != 30*time.Second {
		t.Errorf("preset %q, tag %q, %d clients, view every %v", got.Preset, got.ClientTag, got.ExpectedClients, got.TunnelViewInterval)
	}
	if interval, timeout := got.Heartbeats(); interval != 5*time.Second || timeout != 20*time.Second {
		t.Errorf("heartbeats of %v and %v", interval, timeout)
	}
	cfg, err = router.Parse("ots.yaml", []byte("instances: {i: {name: i, endpoint: 'http://localhost', access_key_id: a, access_key_secret: b}}\ntunnels: {t: {instance: i, table_name: t, tunnel_name: u, tunnel_view_interval: 0}}"))
	if err != nil {
		t.Fatal(err)
	}
	if r, err = router.New(cfg, nil); err != nil {
		t.Fatal(err)
	}
	if got := router.SubscriberConfig(r, "t").TunnelViewInterval; got != subscriber.NoTunnelView {
		t.Errorf("0 is %v, not never", got)
	}
}
