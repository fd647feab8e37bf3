package ots

import (
	"fmt"
	"strings"
	"testing"
)

func TestCredentials_show_no_secret_as_text(t *testing.T) {
	c := Credentials{AccessKeyID: "the-id", AccessKeySecret: "hush", SecurityToken: "psst"}
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		text := fmt.Sprintf(format, c)
		if strings.Contains(text, "hush") || strings.Contains(text, "psst") || !strings.Contains(text, "the-id") {
			t.Errorf("%s gives %q", format, text)
		}
		if text = fmt.Sprintf(format, struct{ C Credentials }{c}); strings.Contains(text, "hush") {
			t.Errorf("%s of a struct gives %q", format, text)
		}
	}
}
