package router

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// decoder fills a Config from YAML nodes and collects all faults on the way.
// The yaml package's own decoding gives neither lines for values nor all
// faults at once.
//
// Invariants:
//   - source.lines has every path that is in the file.
//   - bad has every path with a fault, and the path that a misspelt key
//     probably stands for: what follows from these faults is not reported.
type decoder struct {
	lookup func(string) (string, bool) // environment
	faults []Fault
	source *source
	bad    map[string]bool
}

func newDecoder(file string, lookup func(string) (string, bool)) *decoder {
	return &decoder{lookup: lookup, source: &source{file: file, lines: make(map[string]int)}, bad: make(map[string]bool)}
}

func (d *decoder) fault(line int, path, format string, args ...any) {
	d.bad[path] = true
	d.faults = append(d.faults, Fault{File: d.source.file, Line: line, Path: path, Text: fmt.Sprintf(format, args...)})
}

// known reports whether a fault at path, or around it, has been found before.
func (d *decoder) known(path string) bool {
	for ; path != ""; path = parent(path) {
		if d.bad[path] {
			return true
		}
	}
	return d.bad[""]
}

func parent(path string) string {
	i := strings.LastIndexByte(path, '.')
	return path[:max(i, 0)]
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

var (
	durationType = reflect.TypeFor[time.Duration]()
	timeType     = reflect.TypeFor[time.Time]()
)

// value decodes node into v.
func (d *decoder) value(node *yaml.Node, v reflect.Value, path string, tag reflect.StructTag) {
	node = resolve(node)
	if _, ok := d.source.lines[path]; !ok {
		d.source.lines[path] = node.Line
	}
	switch t := v.Type(); {
	case t == durationType, t == timeType:
		d.scalar(node, v, path, tag)
	case t.Kind() == reflect.Struct:
		d.structure(node, v, path)
	case t.Kind() == reflect.Map:
		d.named(node, v, path)
	case t.Kind() == reflect.Pointer:
		if isNull(node) {
			d.fault(node.Line, path, "is empty; fill it in or leave it out")
			return
		}
		v.Set(reflect.New(t.Elem()))
		d.structure(node, v.Elem(), path)
	default:
		d.scalar(node, v, path, tag)
	}
}

// resolve follows an alias. An alias cannot lead to an alias.
func resolve(node *yaml.Node) *yaml.Node {
	if node.Kind == yaml.AliasNode {
		return node.Alias
	}
	return node
}

func isNull(node *yaml.Node) bool { return node.Kind == yaml.ScalarNode && node.ShortTag() == "!!null" }

// entry is one key of a mapping with its value.
type entry struct{ key, value *yaml.Node }

// entries returns the keys of a mapping. It reports keys that come twice, and
// puts in what "<<" merges, behind the mapping's own keys.
func (d *decoder) entries(node *yaml.Node, path string) []entry {
	if isNull(node) {
		return nil
	}
	if node.Kind != yaml.MappingNode {
		d.fault(node.Line, path, "is %s; it must be a mapping (key: value)", describe(node))
		return nil
	}
	var own []entry
	var merged []*yaml.Node
	seen := make(map[string]int)
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := resolve(node.Content[i]), node.Content[i+1]
		switch first, twice := seen[key.Value]; {
		case key.Kind != yaml.ScalarNode || isNull(key) || key.Value == "":
			d.fault(key.Line, path, "has a key that is not a name")
			continue
		case key.ShortTag() == "!!merge":
			merged = append(merged, resolve(value))
			continue
		case twice:
			d.fault(key.Line, join(path, key.Value), "is given twice, first on line %d", first)
			continue
		}
		seen[key.Value] = key.Line
		own = append(own, entry{key, value})
	}
	for _, m := range merged {
		own = d.merge(own, m, path, seen)
	}
	return own
}

// merge adds the entries of m, a mapping or a list of mappings, whose keys are
// not there yet.
func (d *decoder) merge(own []entry, m *yaml.Node, path string, seen map[string]int) []entry {
	sources := []*yaml.Node{m}
	if m.Kind == yaml.SequenceNode {
		sources = m.Content
	}
	for _, source := range sources {
		source = resolve(source)
		if source.Kind != yaml.MappingNode {
			d.fault(source.Line, path, "merges %s; << takes mappings", describe(source))
			continue
		}
		for i := 0; i+1 < len(source.Content); i += 2 {
			key := resolve(source.Content[i])
			if key.ShortTag() == "!!merge" {
				d.fault(key.Line, path, "merges a mapping that merges another one; name both in a list: <<: [*a, *b]")
				continue
			}
			if _, ok := seen[key.Value]; !ok {
				seen[key.Value] = key.Line
				own = append(own, entry{key, source.Content[i+1]})
			}
		}
	}
	return own
}

// structure decodes a mapping with fixed keys.
func (d *decoder) structure(node *yaml.Node, v reflect.Value, path string) {
	type target struct {
		field reflect.StructField
		value reflect.Value
	}
	targets := make(map[string]target)
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if !f.IsExported() {
			continue
		}
		targets[f.Tag.Get("yaml")] = target{f, v.Field(i)}
		if alias := f.Tag.Get("alias"); alias != "" {
			targets[alias] = target{f, v.Field(i)}
		}
	}
	given := make(map[string]*yaml.Node)
	for _, e := range d.entries(node, path) {
		name := e.key.Value
		at := join(path, name)
		t, ok := targets[name]
		if !ok {
			d.fault(e.key.Line, at, "unknown key%s", suggest(name, names(targets), "keys here"))
			if meant := nearest(name, names(targets)); meant != "" {
				d.bad[join(path, targets[meant].field.Tag.Get("yaml"))] = true
			}
			continue
		}
		canonical := t.field.Tag.Get("yaml")
		if other := given[canonical]; other != nil {
			d.fault(e.key.Line, at, "means the same as %s on line %d; keep one of them", other.Value, other.Line)
			continue
		}
		given[canonical] = e.key
		d.source.lines[join(path, canonical)] = e.key.Line
		d.source.lines[at] = e.key.Line
		d.value(e.value, t.value, at, t.field.Tag)
		if d.bad[at] {
			d.bad[join(path, canonical)] = true
		}
	}
}

// named decodes a mapping whose keys are names of the user's.
func (d *decoder) named(node *yaml.Node, v reflect.Value, path string) {
	v.Set(reflect.MakeMap(v.Type()))
	for _, e := range d.entries(node, path) {
		at := join(path, e.key.Value)
		d.source.lines[at] = e.key.Line
		element := reflect.New(v.Type().Elem()).Elem()
		d.structure(resolve(e.value), element, at)
		v.SetMapIndex(reflect.ValueOf(e.key.Value), element)
	}
}

// scalar decodes a single value.
func (d *decoder) scalar(node *yaml.Node, v reflect.Value, path string, tag reflect.StructTag) {
	want := expected(v.Type(), tag)
	if node.Kind != yaml.ScalarNode {
		d.fault(node.Line, path, "is %s; it must be %s", describe(node), want)
		return
	}
	if isNull(node) {
		d.fault(node.Line, path, "is empty; give %s, or leave the key out", want)
		return
	}
	secret := tag.Get("secret") != ""
	text, expanded, err := expand(node.Value, d.lookup)
	if err != nil {
		d.fault(node.Line, path, "%s", err)
		return
	}
	quoted := func() string {
		switch {
		case secret:
			return "a text that is not shown"
		case expanded:
			return strconv.Quote(text) + " (" + node.Value + ")"
		}
		return strconv.Quote(text)
	}
	// What is in quotes is a text, unless it came out of the environment, where
	// everything is one.
	isText := node.ShortTag() == "!!str" || node.ShortTag() == "!!timestamp"
	typed := !expanded && node.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0

	switch v.Kind() {
	case reflect.String:
		if !isText && !expanded {
			d.fault(node.Line, path, "is %s; it must be a text, so put it in quotes", describe(node))
			return
		}
		v.SetString(text)
	case reflect.Bool:
		b, err := parseBool(text)
		switch {
		case err != nil:
			d.fault(node.Line, path, "is %s; it must be %s", quoted(), want)
			return
		case typed:
			d.fault(node.Line, path, "is the text %s; it must be %s, without quotes", quoted(), want)
			return
		}
		v.SetBool(b)
	default:
		// A duration is a text as well as a number.
		number := v.Type() != durationType && v.Type() != timeType && tag.Get("unit") == ""
		switch err := parseNumber(text, v, tag); {
		case err != nil:
			d.fault(node.Line, path, "is %s; it must be %s", quoted(), want)
			return
		case typed && number:
			d.fault(node.Line, path, "is the text %s; it must be %s, without quotes", quoted(), want)
			return
		}
	}
	if text := outOfBounds(v, tag); text != "" {
		d.fault(node.Line, path, "is %s; %s", quoted(), text)
	}
}

// describe says what a node is, without its content: that may be a secret.
func describe(node *yaml.Node) string {
	switch node.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	switch node.ShortTag() {
	case "!!int", "!!float":
		return "a number"
	case "!!bool":
		return "a boolean"
	case "!!null":
		return "empty"
	}
	return "a single value"
}
