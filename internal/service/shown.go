package service

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/url"
	"reflect"
	"strings"
	"time"
)

// hidden replaces a secret when a Config is printed.
const hidden = "(hidden)"

// shownTexts are the text fields of Configs that may be printed. All others are hidden.
var shownTexts = map[string]bool{"Instance": true, "AccessKeyID": true, "Region": true}

// Shown is the printable form of a Config: the fields that are set, without secrets.
type Shown []shownField

type shownField struct {
	name  string
	value any // a string, number or boolean
}

// Show returns the printable form of a Config. Of a provider, a transport or another
// interface, which may hold secrets, it has only the type; of Endpoint only the scheme
// and the host.
func Show(config any) (fields Shown) {
	v := reflect.ValueOf(config)
	for i := range v.NumField() {
		name, f := v.Type().Field(i).Name, v.Field(i)
		if f.IsZero() {
			continue
		}
		var value any
		switch f.Kind() {
		case reflect.String:
			switch {
			case name == "Endpoint":
				value = shownEndpoint(f.String())
			case shownTexts[name]:
				value = f.String()
			default:
				value = hidden
			}
		case reflect.Func:
			value = "func"
		case reflect.Interface:
			value = f.Elem().Type().String()
		case reflect.Bool:
			value = f.Bool()
		default: // numbers, durations, enumerations and structs of them
			value = fmt.Sprint(f.Interface())
			if f.Kind() == reflect.Int || f.Kind() == reflect.Int64 && f.Type() != reflect.TypeFor[time.Duration]() {
				value = f.Int()
			}
		}
		fields = append(fields, shownField{name, value})
	}
	return fields
}

// shownEndpoint returns the scheme and host of an endpoint: users paste keys into the
// rest, as the user, in the path or in the query.
func shownEndpoint(endpoint string) string {
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" {
		return hidden
	}
	return u.Scheme + "://" + u.Host
}

// Text returns the fields printed like a struct of that type.
func (s Shown) Text(typ string) string {
	var b strings.Builder
	b.WriteString(typ + "{")
	for i, f := range s {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s: %v", f.name, f.value)
	}
	b.WriteString("}")
	return b.String()
}

// LogValue returns the fields as a group.
func (s Shown) LogValue() slog.Value {
	var attrs []slog.Attr
	for _, f := range s {
		attrs = append(attrs, slog.Any(f.name, f.value))
	}
	return slog.GroupValue(attrs...)
}

// MarshalJSON returns the fields as an object.
func (s Shown) MarshalJSON() ([]byte, error) {
	fields := make(map[string]any)
	for _, f := range s {
		fields[f.name] = f.value
	}
	return json.Marshal(fields)
}
