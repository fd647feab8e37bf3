package service

import (
	"reflect"
	"strings"
	"testing"
)

// A text field that is added to a Config is hidden until it is listed as not secret.
func TestShow_hides_text_fields_unless_they_are_known(t *testing.T) {
	var cfg struct{ Endpoint, Instance, AccessKeyID, AccessKeySecret, SecurityToken, Region, Added string }
	v := reflect.ValueOf(&cfg).Elem()
	for i := range v.NumField() {
		v.Field(i).SetString("text-of-" + v.Type().Field(i).Name)
	}
	text := Show(cfg).Text("Config")
	for i := range v.NumField() {
		name := v.Type().Field(i).Name
		if shown := strings.Contains(text, "text-of-"+name); shown != shownTexts[name] {
			t.Errorf("%s: shown %v in %s", name, shown, text)
		}
	}
}
