package strictyaml

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/watermill-ots/watermill-ots/router/internal/keypath"
)

// decoder fills a struct from YAML nodes and its Document from what it finds on the way.
type decoder struct {
	*Document
	lookup func(string) (string, bool) // environment
}

func (d *decoder) fault(line int, path, format string, args ...any) {
	d.bad[path] = true
	d.faults = append(d.faults, Fault{Line: line, Path: path, Text: fmt.Sprintf(format, args...)})
}

var (
	durationType = reflect.TypeFor[time.Duration]()
	timeType     = reflect.TypeFor[time.Time]()
)

// value decodes node into v.
func (d *decoder) value(node *yaml.Node, v reflect.Value, path string, tag reflect.StructTag) {
	node = resolve(node)
	if _, ok := d.lines[path]; !ok {
		d.lines[path] = placeOf(node)
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

// tagged reports a tag that is not one of YAML's own as a fault, and returns whether there is one.
// The tag is not shown: it may be a secret that begins with an exclamation mark.
func (d *decoder) tagged(node *yaml.Node, path string) bool {
	if node.Style&yaml.TaggedStyle == 0 || strings.HasPrefix(node.ShortTag(), "!!") {
		return false
	}
	d.fault(node.Line, path, "has a tag that means nothing here; leave it out, or put a value that begins with ! in quotes")
	return true
}

// hidden reports a key without a value, in a mapping that has secrets. Such a key
// may be a part of a secret: one with a comma that is not in quotes.
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

// isTemplate reports whether key is at the top of the file and holds what anchors
// share. It is not decoded.
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
		at := keypath.Join(path, name)
		t, ok := targets[name]
		if !ok {
			if isTemplate(path, name) {
				continue
			}
			if hasSecrets(v.Type()) && isNull(e.value) {
				d.hidden(e.key.Line, path)
				continue
			}
			known, kind := slices.Sorted(maps.Keys(targets)), "keys here"
			if path == "" {
				kind = "keys here, besides x-...,"
			}
			d.lines[keypath.Join(path, shorten(name))] = placeOf(e.key)
			d.fault(e.key.Line, keypath.Join(path, shorten(name)), "unknown key%s", Suggest(name, known, kind))
			if meant := nearest(name, known); meant != "" {
				d.bad[keypath.Join(path, targets[meant].field.Tag.Get("yaml"))] = true
			}
			continue
		}
		canonical := t.field.Tag.Get("yaml")
		if other := given[canonical]; other != nil {
			d.fault(e.key.Line, at, "means the same as %s on line %d; keep one of them", other.Value, other.Line)
			continue
		}
		given[canonical] = e.key
		d.lines[keypath.Join(path, canonical)] = placeOf(e.key)
		d.lines[at] = placeOf(e.key)
		d.value(e.value, t.value, at, t.field.Tag)
		if opposite := t.field.Tag.Get("zero"); t.value.Kind() == reflect.Bool && opposite != "" {
			v.FieldByName(opposite).SetBool(!t.value.Bool())
		}
		if d.bad[at] {
			d.bad[keypath.Join(path, canonical)] = true
		}
		if text, ok := d.templates[at]; ok {
			d.templates[keypath.Join(path, canonical)] = text
		}
	}
}

// named decodes a mapping whose keys are names that the user chooses.
func (d *decoder) named(node *yaml.Node, v reflect.Value, path string) {
	v.Set(reflect.MakeMap(v.Type()))
	for _, e := range d.entries(node, path, v.Type()) {
		at := keypath.Join(path, e.key.Value)
		d.lines[at] = placeOf(e.key)
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

// place is where a key or value is in the file.
type place struct{ line, column int }

// placeOf returns where a node begins.
func placeOf(node *yaml.Node) place { return place{node.Line, node.Column} }
