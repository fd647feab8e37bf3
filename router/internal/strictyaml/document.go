package strictyaml

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/watermill-ots/watermill-ots/internal/oneline"
	"github.com/watermill-ots/watermill-ots/router/internal/keypath"
)

// Fault is one thing that is wrong in a document.
type Fault struct {
	Line int    // from 1; 0 for a value that was not read from a file
	Path string // see package keypath; empty for the whole document
	Text string // what is wrong, and what to do
}

// Document is what is known of a file that was read: where its keys are, and which
// values came from the environment. A nil Document stands for a struct that was
// not read from a file.
//
// Invariants:
//   - lines has every path that is in the file.
//   - bad has every path with a fault, and the path that a misspelt key
//     probably stands for, so that consequences of these faults are not reported.
type Document struct {
	file      string
	faults    []Fault
	lines     map[string]place  // by path
	templates map[string]string // the text of values that contain environment variables, by path
	bad       map[string]bool   // by path
}

// Read decodes the only YAML document in data into a T, which must be a struct.
// file names the document. lookup finds environment variables. The value is
// usable only if the Document has no Faults.
func Read[T any](file string, data []byte, lookup func(string) (string, bool)) (T, *Document) {
	var value T
	d := &decoder{lookup: lookup, Document: &Document{
		file: file, lines: make(map[string]place), templates: make(map[string]string), bad: make(map[string]bool),
	}}
	v := reflect.ValueOf(&value).Elem()
	root, fault := parse(data, v.Type())
	if fault != nil {
		d.bad[""] = true
		d.faults = append(d.faults, *fault)
		return value, d.Document
	}
	d.value(root, v, "", "")
	return value, d.Document
}

// parse returns the root of the only YAML document in data, which is to be decoded into a t.
func parse(data []byte, t reflect.Type) (*yaml.Node, *Fault) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	if err := dec.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, &Fault{Text: "the file is empty; it needs " + strings.Join(requiredKeys(t), " and ")}
		}
		return nil, syntaxFault(data, err)
	}
	switch err := dec.Decode(&second); {
	case err == nil:
		return nil, &Fault{Line: second.Line, Text: "a second document begins here; put everything into one"}
	case !errors.Is(err, io.EOF):
		return nil, syntaxFault(data, err)
	}
	return doc.Content[0], nil
}

// requiredKeys returns the keys that a t must have.
func requiredKeys(t reflect.Type) (keys []string) {
	for i := range t.NumField() {
		if f := t.Field(i); f.Tag.Get("required") != "" {
			keys = append(keys, f.Tag.Get("yaml"))
		}
	}
	return keys
}

// File returns the document's name.
func (d *Document) File() string {
	if d == nil {
		return ""
	}
	return d.file
}

// Faults returns what is wrong in the document, in no particular order.
func (d *Document) Faults() []Fault { return d.faults }

// Faulty reports whether the document has a fault at path, or in a mapping that
// contains it.
func (d *Document) Faulty(path string) bool {
	for ; path != ""; path = keypath.Parent(path) {
		if d.bad[path] {
			return true
		}
	}
	return d.bad[""]
}

// Line returns the line of path, or of the closest mapping around it that is in
// the file; 0 if there is none.
func (d *Document) Line(path string) int { return d.place(path).line }

// Column returns the column of path in its Line, from 1; 0 if there is none.
func (d *Document) Column(path string) int { return d.place(path).column }

// place returns where path is, or the closest mapping around it.
func (d *Document) place(path string) place {
	if d == nil {
		return place{}
	}
	for ; ; path = keypath.Parent(path) {
		if at, ok := d.lines[path]; ok || path == "" {
			return at
		}
	}
}

// Show returns the value at path as an error shows it. A value from the environment
// may be a secret in the wrong place: the variable's name is shown instead.
func (d *Document) Show(path, value string) string {
	if d != nil {
		if template, ok := d.templates[path]; ok {
			return oneline.Text(template, maxShown) + ", whose value is not shown"
		}
	}
	return strconv.Quote(shorten(value))
}
