package router

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Load reads a configuration from a YAML file. See Parse.
func Load(path string) (Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("reading the configuration: %w", err)
	}
	return Parse(path, data)
}

// Parse reads a configuration from YAML; name stands for the file in errors.
//
// ${VAR} in a value becomes the environment variable VAR, ${VAR:-text} becomes
// text when VAR is unset or empty, and $${ a plain ${. Variables are put in
// after the YAML is read, so that their content cannot change its structure.
//
// It is strict: an unknown key, a value of a wrong type or outside its bounds,
// a reference to something that is not there and a missing environment
// variable are all reported, in one *ConfigError, with file and line.
func Parse(name string, data []byte) (Config, error) {
	root, fault := document(data)
	if fault != nil {
		fault.File = name
		return Config{}, configError([]Fault{*fault})
	}
	d := newDecoder(name, os.LookupEnv)
	cfg := Config{source: d.source}
	d.value(root, reflect.ValueOf(&cfg).Elem(), "", "")
	// A second look, at how the values fit together. What is wrong by itself
	// is not reported twice.
	for _, f := range check(cfg) {
		if !slices.ContainsFunc(append(f.because, f.Path), d.known) {
			d.faults = append(d.faults, d.source.locate(f))
		}
	}
	if err := configError(d.faults); err != nil {
		return Config{}, err
	}
	return cfg, nil
}

// document returns the root of the only YAML document in data.
func document(data []byte) (*yaml.Node, *Fault) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	if err := dec.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, &Fault{Text: "the file is empty; it needs instances and tunnels"}
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

// maxLocating bounds the bytes that are parsed to find a syntax error: enough for
// some hundred lines to be looked through from the end to the beginning.
const maxLocating = 4 << 20

// syntaxFault makes a fault of an error of the YAML parser.
//
// The parser's line is often that of the mapping around the error. The line
// that a person has to look at is the one behind the longest beginning of the
// file that can be parsed.
func syntaxFault(data []byte, err error) *Fault {
	line := 0
	for end, left := len(data), maxLocating; end > 0 && left > 0; {
		start := bytes.LastIndexByte(data[:end-1], '\n') + 1
		left -= start
		if yaml.Unmarshal(data[:start], new(yaml.Node)) != nil {
			end = start
			continue
		}
		line = 1 + bytes.Count(data[:start], []byte("\n"))
		if bytes.HasPrefix(bytes.TrimLeft(data[start:end], " "), []byte("\t")) {
			return &Fault{Line: line, Text: "not valid YAML: the line begins with a tab; indent with spaces"}
		}
		err = cmp.Or(yaml.Unmarshal(data[:end], new(yaml.Node)), err)
		break
	}
	// The parser's only form is "yaml: line N: text".
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if rest, ok := strings.CutPrefix(text, "line "); ok {
		if number, after, ok := strings.Cut(rest, ": "); ok {
			text = after
			if n, err := strconv.Atoi(number); err == nil && line == 0 {
				line = n
			}
		}
	}
	return &Fault{Line: line, Text: "not valid YAML: " + text}
}
