package subscriber

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"go.yaml.in/yaml/v3"

	"github.com/watermill-ots/watermill-ots/ots"
)

// secretive is a provider whose fields are secrets.
type secretive struct{ Key string }

func (s secretive) Credentials(context.Context) (ots.Credentials, error) {
	return ots.Credentials{AccessKeyID: "id", AccessKeySecret: s.Key}, nil
}

// showings are the ways in which a value reaches a log by accident.
func showings(t *testing.T, v any) map[string]string {
	shown := make(map[string]string)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T %[1]v", "%t", "%e"} {
		shown["fmt "+verb] = fmt.Sprintf(verb, v)
	}
	shown["Sprint"] = fmt.Sprint(v)
	for name, handler := range map[string]func(b *bytes.Buffer) slog.Handler{
		"text": func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
		"JSON": func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
	} {
		var b bytes.Buffer
		log := slog.New(handler(&b))
		log.Info("of mine", "it", v)
		log.Info("of mine", "in a struct", struct{ It any }{v})
		log.Info("of mine", "in a list", []any{v})
		watermill.NewSlogLogger(log).Info("of mine", watermill.LogFields{"it": v})
		shown["slog "+name] = b.String()
	}
	return shown
}

func TestSecrets_are_shown_by_nothing_that_shows_a_Config_or_Credentials(t *testing.T) {
	cfg := Config{
		Endpoint: "https://pasted:psst@inst.example/psst?key=psst", Instance: "inst", AccessKeyID: "the-id", AccessKeySecret: "hush", SecurityToken: "psst",
		Credentials: secretive{"hush"}, HeartbeatInterval: 3 * time.Second, MaxInFlight: 77, OnAlarm: func(Alarm) {},
		Tunnel: TunnelSpec{Type: Stream},
	}
	cred := ots.Credentials{AccessKeyID: "the-id", AccessKeySecret: "hush", SecurityToken: "psst", Expires: time.Unix(1700000000, 0).UTC()}
	valid := cfg
	valid.Endpoint = "https://inst.example"
	sub, err := New(valid, nil)
	if err != nil {
		t.Fatal(err)
	}
	static := valid
	static.Credentials = nil
	withKeys, err := New(static, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, v := range map[string]any{
		"Config": cfg, "*Config": &cfg, "Credentials": cred, "*Credentials": &cred,
		"struct of both": struct {
			Config
			Creds ots.Credentials
		}{cfg, cred}, "map": map[string]ots.Credentials{"a": cred}, "slice": []Config{cfg},
		"Subscriber": sub, "Subscriber with keys": withKeys,
		"defaults": static.withDefaults(),
	} {
		ways := showings(t, v)
		if !strings.HasPrefix(name, "Subscriber") {
			text, err := json.Marshal(v)
			if err != nil {
				t.Errorf("JSON of %s: %v", name, err)
			}
			ways["JSON"] = string(text)
			if text, err = yaml.Marshal(v); err == nil {
				ways["YAML"] = string(text)
			}
		}
		for way, text := range ways {
			for _, secret := range []string{"hush", "psst", fmt.Sprintf("%x", "hush"), fmt.Sprintf("%X", "psst")} {
				if strings.Contains(text, secret) {
					t.Errorf("%s of %s shows a secret: %s", way, name, text)
				}
			}
		}
	}
	for _, want := range []string{"inst.example", "the-id", "3s", "MaxInFlight: 77", "Stream", "secretive", "AccessKeySecret: (hidden)", "SecurityToken: (hidden)"} {
		if !strings.Contains(cfg.String(), want) {
			t.Errorf("%q is not in %s", want, cfg)
		}
	}
	for want, v := range map[string]any{"it.MaxInFlight=77": cfg, "it.AccessKeyID=the-id": cred} {
		if text := showings(t, v)["slog text"]; !strings.Contains(text, want) {
			t.Errorf("slog does not show %s as a field: %s", want, text)
		}
	}
	if strings.Contains(cfg.String(), "CloseTimeout") {
		t.Errorf("a field that is not set is in %s", cfg)
	}
	for _, s := range []*Subscriber{sub, withKeys} {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestCredentials_are_read_from_JSON(t *testing.T) {
	var c ots.Credentials
	if err := json.Unmarshal([]byte(`{"AccessKeyID":"id","AccessKeySecret":"hush","SecurityToken":"psst","Expires":"2026-01-01T00:00:00Z"}`), &c); err != nil {
		t.Fatal(err)
	}
	if c.AccessKeyID != "id" || c.AccessKeySecret != "hush" || c.SecurityToken != "psst" || c.Expires.Year() != 2026 {
		t.Errorf("got %s and %d bytes of secret", c, len(c.AccessKeySecret))
	}
}
