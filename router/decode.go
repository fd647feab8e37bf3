package router

import (
	"fmt"
	"reflect"
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
	return &decoder{lookup: lookup, source: &source{file: file, lines: make(map[string]int), templates: make(map[string]string)}, bad: make(map[string]bool)}
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
		d.value(node, v.Elem(), path, tag)
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

// tagged reports a tag that is not one of YAML's own, and whether there is one.
// The tag is not shown: it may be a secret that begins with an exclamation mark.
func (d *decoder) tagged(node *yaml.Node, path string) bool {
	if node.Style&yaml.TaggedStyle == 0 || strings.HasPrefix(node.ShortTag(), "!!") {
		return false
	}
	d.fault(node.Line, path, "has a tag that means nothing here; leave it out, or put a value that begins with ! in quotes")
	return true
}

// hidden reports a key that has no value, in a mapping that has secrets: such a
// key is what comes of a secret with a comma that is not in quotes.
func (d *decoder) hidden(line int, path string) {
	d.fault(line, path, "has an unknown key without a value, which is not shown; if it is a part of a secret, put that in quotes")
}

// hasSecrets reports whether t is a struct that has a secret.
func hasSecrets(t reflect.Type) bool {
	for i := 0; t.Kind() == reflect.Struct && i < t.NumField(); i++ {
		if t.Field(i).Tag.Get("secret") != "" {
			return true
		}
	}
	return false
}

// isTemplate reports whether key, at the top of the file, is one that holds what
// the file itself uses by way of anchors, and that nothing else looks at.
func isTemplate(path, key string) bool { return path == "" && strings.HasPrefix(key, "x-") }

// structure decodes a mapping with fixed keys.
func (d *decoder) structure(node *yaml.Node, v reflect.Value, path string) {
	type target struct {
		field reflect.StructField
		value reflect.Value
	}
	targets := make(map[string]target)
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if !f.IsExported() || f.Tag.Get("yaml") == "-" {
			continue
		}
		targets[f.Tag.Get("yaml")] = target{f, v.Field(i)}
		if alias := f.Tag.Get("alias"); alias != "" {
			targets[alias] = target{f, v.Field(i)}
		}
	}
	given := make(map[string]*yaml.Node)
	for _, e := range d.entries(node, path, v.Type()) {
		name := e.key.Value
		at := join(path, name)
		t, ok := targets[name]
		if !ok {
			if isTemplate(path, name) {
				continue
			}
			if hasSecrets(v.Type()) && isNull(e.value) {
				d.hidden(e.key.Line, path)
				continue
			}
			kind := "keys here"
			if path == "" {
				kind = "keys here, besides x-...,"
			}
			d.fault(e.key.Line, join(path, shorten(name)), "unknown key%s", suggest(name, names(targets), kind))
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
		if opposite := t.field.Tag.Get("zero"); t.value.Kind() == reflect.Bool && opposite != "" {
			v.FieldByName(opposite).SetBool(!t.value.Bool())
		}
		if d.bad[at] {
			d.bad[join(path, canonical)] = true
		}
		if text, ok := d.source.templates[at]; ok {
			d.source.templates[join(path, canonical)] = text
		}
	}
}

// named decodes a mapping whose keys are names of the user's.
func (d *decoder) named(node *yaml.Node, v reflect.Value, path string) {
	v.Set(reflect.MakeMap(v.Type()))
	for _, e := range d.entries(node, path, v.Type()) {
		at := join(path, e.key.Value)
		d.source.lines[at] = e.key.Line
		element := reflect.New(v.Type().Elem()).Elem()
		d.structure(resolve(e.value), element, at)
		v.SetMapIndex(reflect.ValueOf(e.key.Value), element)
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
