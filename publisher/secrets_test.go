package publisher

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/watermill-ots/watermill-ots/ots"
)

func TestSecrets_are_not_shown_by_anything_that_prints_a_Config(t *testing.T) {
	cfg := Config{
		Endpoint: "https://psst:psst@inst.example/?key=psst", Instance: "inst", AccessKeyID: "the-id", AccessKeySecret: "hush", SecurityToken: "psst",
		Credentials: ots.CredentialsProviderFunc(nil), Table: func(topic string) string { return topic }, MaxBatchRows: 7,
	}
	var shown []string
	for _, v := range []any{cfg, &cfg, struct{ Config }{cfg}, []Config{cfg}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d"} {
			shown = append(shown, fmt.Sprintf(verb, v))
		}
		text, err := json.Marshal(v)
		if err != nil {
			t.Errorf("JSON of %T: %v", v, err)
		}
		var b bytes.Buffer
		slog.New(slog.NewTextHandler(&b, nil)).Info("of mine", "it", v)
		slog.New(slog.NewJSONHandler(&b, nil)).Info("of mine", "it", v)
		shown = append(shown, string(text), b.String())
	}
	for _, text := range shown {
		if strings.Contains(text, "hush") || strings.Contains(text, "psst") || !strings.Contains(text, "the-id") {
			t.Errorf("shown as %s", text)
		}
	}
	for _, want := range []string{"publisher.Config{", "https://inst.example", "MaxBatchRows: 7", "AccessKeySecret: (hidden)"} {
		if !strings.Contains(cfg.String(), want) {
			t.Errorf("%s is not in %s", want, cfg)
		}
	}
}
