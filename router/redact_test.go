package router_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestConfig_shows_no_secret_when_it_is_logged(t *testing.T) {
	setEnv(t)
	t.Setenv("OTS_TOKEN", "sts-token")
	cfg := mustParse(t, whole)
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("loaded", "config", cfg, "instance", cfg.Instances["main"])
	slog.New(slog.NewTextHandler(&log, nil)).Info("loaded", "config", cfg, "instance", cfg.Instances["main"])
	for form, text := range map[string]string{
		"%v": fmt.Sprintf("%v", cfg), "%+v": fmt.Sprintf("%+v", cfg), "%#v": fmt.Sprintf("%#v", cfg),
		"instance": fmt.Sprint(cfg.Instances["main"]), "slog": log.String(),
	} {
		for _, secret := range []string{"LTAI-id", "very-secret", "sts-token"} {
			if strings.Contains(text, secret) {
				t.Errorf("%s shows %q: %s", form, secret, text)
			}
		}
		if !strings.Contains(text, "my-instance") || !strings.Contains(text, "REDACTED") {
			t.Errorf("%s is %s", form, text)
		}
	}
	if in := cfg.Instances["main"]; in.AccessKeySecret != "very-secret" {
		t.Errorf("the secret itself is %q", in.AccessKeySecret)
	}
}
