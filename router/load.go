package router

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"

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
// text when VAR is unset or empty, and $${ a plain ${. A default may have
// references of its own, and braces if they balance. Variables are put in
// after the YAML is read, so that their content cannot change its structure; and
// what they contain is not shown in errors, as it may be a secret.
//
// It is strict: an unknown key, a value of a wrong type or outside its bounds,
// a reference to something that is not there and a missing environment
// variable are all reported, in one *ConfigError, with file and line. Only keys at
// the top that begin with x- are not looked at: they hold what anchors share.
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
