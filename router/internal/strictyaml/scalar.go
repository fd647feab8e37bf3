package strictyaml

import (
	"errors"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/watermill-ots/watermill-ots/internal/oneline"
)

// scalar decodes a single value.
func (d *decoder) scalar(node *yaml.Node, v reflect.Value, path string, tag reflect.StructTag) {
	want := expected(v.Type(), tag)
	secret := tag.Get("secret") != ""
	switch {
	case node.Kind != yaml.ScalarNode:
		d.fault(node.Line, path, "is %s; it must be %s", describe(node), want)
		return
	case d.tagged(node, path):
		return
	case isNull(node) && secret:
		d.fault(node.Line, path, "is empty; give %s, or leave the key out; one that begins with # or & must be in quotes", want)
		return
	case isNull(node):
		d.fault(node.Line, path, "is empty; give %s, or leave the key out", want)
		return
	}
	x, err := expand(node.Value, d.lookup)
	if err != nil {
		d.fault(node.Line, path, "%s", err)
		return
	}
	if x.fromEnv {
		d.templates[path] = node.Value
	}
	quoted := "a text that is not shown"
	if !secret {
		quoted = d.quoted(node, path, x)
	}
	// A value in quotes is a text, unless it came from the environment, where all
	// values are texts.
	isText := node.ShortTag() == "!!str" || node.ShortTag() == "!!timestamp"
	const marked = yaml.SingleQuotedStyle | yaml.DoubleQuotedStyle | yaml.LiteralStyle | yaml.FoldedStyle
	typed := !x.changed && (node.Style&marked != 0 || isText && node.Style&yaml.TaggedStyle != 0)

	switch v.Kind() {
	case reflect.String:
		if !isText && !x.changed {
			d.fault(node.Line, path, "is %s; it must be a text, so put it in quotes", describe(node))
			return
		}
		v.SetString(x.text)
	case reflect.Bool:
		b, err := parseBool(x.text)
		if !d.parsed(node, path, err, typed, quoted, want) {
			return
		}
		v.SetBool(b)
	default:
		// A duration is a text as well as a number.
		number := v.Type() != durationType && v.Type() != timeType && tag.Get("unit") == ""
		if !d.parsed(node, path, parseNumber(x.text, v, tag), typed && number, quoted, want) {
			return
		}
	}
	if v.CanInt() && v.IsZero() && tag.Get("zero") != "" { // a meaning of its own, where an absent key means the default
		v.SetInt(Off)
		return
	}
	if text := outOfBounds(v, tag); text != "" {
		d.fault(node.Line, path, "is %s; %s", quoted, text)
	}
}

// Off is what 0 in a file becomes where the field tag zero gives it a meaning.
const Off = -1

// parsed reports a value that is not what is wanted, or only in quotes, as a fault, and
// returns whether it is as wanted.
func (d *decoder) parsed(node *yaml.Node, path string, err error, isText bool, quoted, want string) bool {
	switch {
	case err != nil:
		d.fault(node.Line, path, "is %s; it must be %s", quoted, want)
	case isText:
		d.fault(node.Line, path, "is the text %s; it must be %s, without quotes", quoted, want)
	}
	return err == nil && !isText
}

// quoted returns a value that is not a secret as errors show it.
func (d *decoder) quoted(node *yaml.Node, path string, x expansion) string {
	switch {
	case x.changed && x.text == "":
		return "empty (" + oneline.Text(node.Value, maxShown) + ")"
	case x.changed && !x.fromEnv:
		return strconv.Quote(shorten(x.text)) + " (" + oneline.Text(node.Value, maxShown) + ")"
	}
	return d.Show(path, x.text)
}

// expected describes the values that a field takes, for error texts.
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
	if digits := strings.TrimLeft(text, "+-"); len(digits) > 1 && digits[0] == '0' {
		return errors.New("octal for some readers of YAML, decimal for others")
	}
	n, err := strconv.ParseInt(text, 10, v.Type().Bits())
	v.SetInt(n)
	return err
}

// longestDuration bounds durations so that sums of them do not overflow.
const longestDuration = 876000 * time.Hour // 100 years

// parseDuration takes Go durations, and plain numbers as seconds. The result for a longer
// number than longestDuration is slightly above longestDuration.
func parseDuration(text string) (time.Duration, error) {
	if strings.ContainsAny(text, "_xXiI") { // forms of ParseFloat that no other number here has: 1_000, 0x1p4, Inf
		return 0, errors.New("neither a duration nor a number")
	}
	if s, err := strconv.ParseFloat(text, 64); err == nil || errors.Is(err, strconv.ErrRange) {
		if math.IsNaN(s) {
			return 0, errors.New("not a number")
		}
		limit := longestDuration.Seconds() + 1
		return time.Duration(min(max(s, -limit), limit) * float64(time.Second)), nil
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
