package router

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// expected says what values a field takes, for people.
func expected(t reflect.Type, tag reflect.StructTag) string {
	switch {
	case t == durationType:
		return "a duration such as 30s, 1m30s or 500ms, or a number of seconds"
	case t == timeType:
		return "a time such as 2026-01-31T00:00:00Z"
	case tag.Get("unit") == "bytes":
		return "a number of bytes such as 65536, 512KiB or 64MiB"
	case tag.Get("enum") != "":
		return "one of " + strings.ReplaceAll(tag.Get("enum"), ",", ", ")
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int64:
		return "a whole number"
	}
	return "a text"
}

func parseBool(text string) (bool, error) {
	switch text {
	case "true", "True", "TRUE":
		return true, nil
	case "false", "False", "FALSE":
		return false, nil
	}
	return false, errors.New("neither true nor false")
}

// parseNumber sets v, a number, a duration or a time, from text.
func parseNumber(text string, v reflect.Value, tag reflect.StructTag) error {
	switch {
	case v.Type() == durationType:
		d, err := parseDuration(text)
		v.SetInt(int64(d))
		return err
	case v.Type() == timeType:
		t, err := time.Parse(time.RFC3339, text)
		v.Set(reflect.ValueOf(t))
		return err
	case tag.Get("unit") == "bytes":
		n, err := parseBytes(text)
		v.SetInt(n)
		return err
	}
	n, err := strconv.ParseInt(text, 10, v.Type().Bits())
	v.SetInt(n)
	return err
}

// parseDuration takes Go durations and bare numbers, which are seconds.
func parseDuration(text string) (time.Duration, error) {
	if s, err := strconv.ParseFloat(text, 64); err == nil {
		d := s * float64(time.Second)
		if math.IsNaN(d) || math.Abs(d) > math.MaxInt64/2 {
			return 0, errors.New("too long")
		}
		return time.Duration(d), nil
	}
	return time.ParseDuration(text)
}

var byteUnits = []struct {
	suffix string
	factor int64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}}

// parseBytes takes whole numbers, with a binary unit or without.
func parseBytes(text string) (int64, error) {
	factor := int64(1)
	for _, u := range byteUnits {
		if number, ok := strings.CutSuffix(text, u.suffix); ok {
			text, factor = strings.TrimRight(number, " "), u.factor
			break
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, err
	}
	if n > math.MaxInt64/factor || n < math.MinInt64/factor {
		return 0, errors.New("too large")
	}
	return n * factor, nil
}

// outOfBounds compares v with the bounds in its tag and returns what is wrong,
// or "".
func outOfBounds(v reflect.Value, tag reflect.StructTag) string {
	if enum := tag.Get("enum"); enum != "" {
		if all := strings.Split(enum, ","); !slices.Contains(all, v.String()) {
			return strings.TrimPrefix(suggest(v.String(), all, "possible values"), "; ")
		}
	}
	least := tag.Get("min")
	if least == "" {
		return ""
	}
	var low int64
	if v.Type() == durationType {
		d, err := time.ParseDuration(least)
		if err != nil {
			panic("router: malformed min tag " + least)
		}
		low = int64(d)
	} else {
		n, err := strconv.ParseInt(least, 10, 64)
		if err != nil {
			panic("router: malformed min tag " + least)
		}
		low = n
	}
	if v.Int() >= low {
		return ""
	}
	text := "it must be at least " + least
	if def := tag.Get("default"); v.Int() == 0 && def != "" {
		text += " (leave the key out for the default: " + def + ")"
	}
	return text
}

// variable matches an escaped opening, a reference, or an opening that begins none.
var variable = regexp.MustCompile(`\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)(:-([^}]*))?\}|\$\{`)

// expand replaces the references to the environment in text. The errors name variables
// and never their content.
func expand(text string, lookup func(string) (string, bool)) (out string, expanded bool, err error) {
	out = variable.ReplaceAllStringFunc(text, func(ref string) string {
		expanded = true
		if ref == "$${" {
			return "${"
		}
		m := variable.FindStringSubmatch(ref)
		if m[1] == "" {
			err = errors.New("has a ${ that begins no ${VARIABLE} or ${VARIABLE:-default}; write $${ for a plain ${")
			return ""
		}
		value, set := lookup(m[1])
		switch {
		case set && (value != "" || m[2] == ""):
			return value
		case m[2] != "":
			return m[3]
		}
		err = fmt.Errorf("the environment variable %s is not set; set it, or give a default: ${%s:-default}", m[1], m[1])
		return ""
	})
	return out, expanded, err
}
