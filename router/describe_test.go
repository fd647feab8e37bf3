package router_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/watermill-ots/watermill-ots/router"
)

// section is one struct of the configuration, for the schema and the docs. Both are
// made of the structs' tags and comments, so that they cannot say anything else.
type section struct {
	typ  reflect.Type
	doc  string
	keys []key
}

type key struct {
	name, alias string
	typ         reflect.Type
	tag         reflect.StructTag
	doc         string
	example     string // from the configuration that the tests read; "" for mappings
}

// sections returns all structs in the order in which they are met.
func sections(t *testing.T) []section {
	t.Helper()
	docs := comments(t)
	examples := make(map[string]string)
	var root yaml.Node
	if err := yaml.Unmarshal([]byte(whole), &root); err != nil {
		t.Fatal(err)
	}
	collectExamples(root.Content[0], reflect.TypeFor[router.Config](), examples)

	var out []section
	seen := make(map[reflect.Type]bool)
	var visit func(reflect.Type)
	visit = func(typ reflect.Type) {
		if typ.Kind() == reflect.Map || typ.Kind() == reflect.Pointer {
			typ = typ.Elem()
		}
		if typ.Kind() != reflect.Struct || typ == reflect.TypeFor[time.Time]() || seen[typ] {
			return
		}
		seen[typ] = true
		s := section{typ: typ, doc: docs[typ.Name()]}
		for f := range fields(typ) {
			s.keys = append(s.keys, key{
				name: f.Tag.Get("yaml"), alias: f.Tag.Get("alias"), typ: f.Type, tag: f.Tag,
				doc:     docs[typ.Name()+"."+f.Name],
				example: examples[typ.Name()+"."+f.Tag.Get("yaml")],
			})
		}
		out = append(out, s)
		for f := range fields(typ) {
			visit(f.Type)
		}
	}
	visit(reflect.TypeFor[router.Config]())
	return out
}

// fields iterates over the exported fields of a struct.
func fields(typ reflect.Type) func(func(reflect.StructField) bool) {
	return func(yield func(reflect.StructField) bool) {
		for i := range typ.NumField() {
			if f := typ.Field(i); f.IsExported() && f.Tag.Get("yaml") != "-" && !yield(f) {
				return
			}
		}
	}
}

// comments returns the doc comments of config.go by "Type" and "Type.Field".
func comments(t *testing.T) map[string]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "config.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]string)
	line := func(g *ast.CommentGroup) string { return strings.Join(strings.Fields(g.Text()), " ") }
	for _, d := range file.Decls {
		gen, ok := d.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, s := range gen.Specs {
			ts, ok := s.(*ast.TypeSpec)
			if !ok {
				continue
			}
			out[ts.Name.Name] = line(gen.Doc)
			st, ok := ts.Type.(*ast.StructType)
			if !ok {
				continue
			}
			for _, f := range st.Fields.List {
				for _, name := range f.Names {
					out[ts.Name.Name+"."+name.Name] = line(f.Doc)
				}
			}
		}
	}
	return out
}

// collectExamples finds a value for each key by "Type.key".
func collectExamples(node *yaml.Node, typ reflect.Type, into map[string]string) {
	if node.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		name, value := node.Content[i].Value, node.Content[i+1]
		switch typ.Kind() {
		case reflect.Map, reflect.Pointer:
			collectExamples(value, typ.Elem(), into)
			continue
		}
		for f := range fields(typ) {
			canonical := f.Tag.Get("yaml")
			if name != canonical && name != f.Tag.Get("alias") {
				continue
			}
			if at := typ.Name() + "." + canonical; into[at] == "" {
				into[at] = value.Value
			}
			inner := f.Type
			if inner.Kind() == reflect.Pointer {
				inner = inner.Elem()
			}
			collectExamples(value, inner, into)
		}
	}
}
