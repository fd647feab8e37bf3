package router_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite schema.json and the tables of docs/config.md")

type object = map[string]any

// reference matches a value that comes out of the environment.
var reference = object{"type": "string", "pattern": `\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?\}`}

// schemaOf describes one key.
func schemaOf(k key) object {
	s := typeSchema(k)
	s["description"] = k.doc
	if def := k.tag.Get("default"); def != "" {
		s["description"] = k.doc + " Default: " + def + "."
	}
	return s
}

func typeSchema(k key) object {
	switch {
	case k.typ == reflect.TypeFor[time.Duration]():
		return object{"anyOf": []any{
			object{"type": "string", "pattern": `^([0-9]+(\.[0-9]+)?|([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+)$`},
			object{"type": "number", "exclusiveMinimum": 0},
			reference,
		}}
	case k.typ == reflect.TypeFor[time.Time]():
		return object{"anyOf": []any{object{"type": "string", "format": "date-time"}, reference}}
	case k.tag.Get("unit") == "bytes":
		return object{"anyOf": []any{object{"type": "string", "pattern": `^[0-9]+ *(KiB|MiB|GiB)?$`}, object{"type": "integer", "minimum": 1}, reference}}
	case k.tag.Get("enum") != "":
		return object{"anyOf": []any{object{"enum": strings.Split(k.tag.Get("enum"), ",")}, reference}}
	}
	switch k.typ.Kind() {
	case reflect.Map:
		return object{"type": "object", "additionalProperties": ref(k.typ.Elem())}
	case reflect.Pointer:
		return object{"allOf": []any{ref(k.typ.Elem())}}
	case reflect.Struct:
		return object{"anyOf": []any{ref(k.typ), object{"type": "null"}}}
	case reflect.Bool:
		return object{"anyOf": []any{object{"type": "boolean"}, reference}}
	case reflect.Int:
		n := object{"type": "integer"}
		if least, err := strconv.Atoi(k.tag.Get("min")); err == nil {
			n["minimum"] = least
		}
		return object{"anyOf": []any{n, reference}}
	}
	return object{"type": "string"}
}

func ref(typ reflect.Type) object { return object{"$ref": "#/$defs/" + typ.Name()} }

// schema returns the JSON Schema of the configuration.
func schema(t *testing.T) []byte {
	t.Helper()
	defs := make(object)
	for _, s := range sections(t) {
		properties := make(object)
		var required []string
		for _, k := range s.keys {
			properties[k.name] = schemaOf(k)
			if k.alias != "" {
				properties[k.alias] = object{"description": "The same as " + k.name + ".", "anyOf": typeSchema(k)["anyOf"]}
			}
			if k.tag.Get("required") != "" {
				required = append(required, k.name)
			}
		}
		def := object{"type": "object", "description": s.doc, "properties": properties, "additionalProperties": false}
		if len(required) > 0 {
			def["required"] = required
		}
		if s.typ.Name() == "Config" { // templates for anchors
			def["patternProperties"] = object{"^x-": true}
		}
		if s.typ.Name() == "Batcher" { // a name alone is a batcher with all defaults
			def["type"] = []string{"object", "null"}
		}
		defs[s.typ.Name()] = def
	}
	root := object{
		"$schema": "https://json-schema.org/draft/2020-12/schema",
		"title":   "watermill-ots pipelines",
		"$ref":    "#/$defs/Config",
		"$defs":   defs,
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(root); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestSchema_is_what_the_structs_say(t *testing.T) {
	want := schema(t)
	if *update {
		if err := os.WriteFile("schema.json", want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("schema.json is out of date; run: go test ./router -run Schema -update")
	}
	for _, s := range sections(t) {
		if s.doc == "" {
			t.Errorf("%s has no comment", s.typ)
		}
		for _, k := range s.keys {
			if k.doc == "" || k.name == "" {
				t.Errorf("%s: key %q has no comment or no name", s.typ, k.name)
			}
		}
	}
}
