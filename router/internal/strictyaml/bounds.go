package strictyaml

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/watermill-ots/watermill-ots/router/internal/keypath"
)

// Check returns the values in config, a struct, that are missing or outside of their
// bounds, as its field tags say, in no particular order. A zero value is an absent one.
// It finds in a struct made in code what Read finds in a file.
func Check(config any) []Fault {
	var c bounds
	c.check(reflect.ValueOf(config), "")
	return c.faults
}

type bounds struct{ faults []Fault }

func (c *bounds) fault(path, format string, args ...any) {
	c.faults = append(c.faults, Fault{Path: path, Text: fmt.Sprintf(format, args...)})
}

// check checks v, which is at path.
func (c *bounds) check(v reflect.Value, path string) {
	switch v.Kind() {
	case reflect.Map:
		for _, name := range v.MapKeys() {
			c.check(v.MapIndex(name), keypath.Join(path, name.String()))
		}
		return
	case reflect.Pointer:
		if !v.IsNil() {
			c.check(v.Elem(), path)
		}
		return
	case reflect.Struct:
	default:
		return
	}
	for i := range v.NumField() {
		f, field := v.Type().Field(i), v.Field(i)
		if !f.IsExported() || f.Tag.Get("yaml") == "-" {
			continue
		}
		at := keypath.Join(path, f.Tag.Get("yaml"))
		switch {
		case field.Kind() == reflect.Map && f.Tag.Get("required") != "" && field.Len() == 0:
			c.fault(at, "is missing or empty; at least one is needed")
		case field.IsZero() && f.Tag.Get("required") != "":
			c.fault(at, "is missing")
		case field.IsZero():
		case field.Type() == timeType:
		default:
			if text := outOfBounds(field, f.Tag); text != "" {
				c.fault(at, "is %v; %s", field, text)
			}
			c.check(field, at)
		}
	}
}

// outOfBounds returns what is wrong with v according to the bounds in its tag, or "".
func outOfBounds(v reflect.Value, tag reflect.StructTag) string {
	if enum := tag.Get("enum"); enum != "" {
		if all := strings.Split(enum, ","); !slices.Contains(all, v.String()) {
			return strings.TrimPrefix(Suggest(v.String(), all, "possible values"), "; ")
		}
	}
	if v.Type() == durationType && v.Int() > int64(longestDuration) {
		return "it must be at most 876000h, which is 100 years"
	}
	least := tag.Get("min")
	if least == "" {
		return ""
	}
	var low int64
	if v.Type() == durationType {
		d, err := time.ParseDuration(least)
		if err != nil {
			panic("strictyaml: malformed min tag " + least)
		}
		low = int64(d)
	} else {
		n, err := strconv.ParseInt(least, 10, 64)
		if err != nil {
			panic("strictyaml: malformed min tag " + least)
		}
		low = n
	}
	if v.Int() >= low || v.Int() == Off && tag.Get("zero") != "" {
		return ""
	}
	text := "it must be at least " + least
	if def := tag.Get("default"); v.Int() == 0 && def != "" {
		text += " (leave the key out for the default: " + def + ")"
	}
	return text
}
