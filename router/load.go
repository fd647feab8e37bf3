package router

import (
	_ "embed" // schema.json
	"fmt"
	"os"
	"slices"

	"github.com/watermill-ots/watermill-ots/router/internal/strictyaml"
)

//go:embed schema.json
var schema []byte

// Schema returns the JSON schema (2020-12) of the configuration, for editors. It checks the
// form of values only.
func Schema() []byte { return slices.Clone(schema) }

// Load reads a configuration from a YAML file. See Parse.
func Load(path string) (Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("reading the configuration: %w", err)
	}
	return Parse(path, data)
}

// Parse reads a configuration from YAML; name names the file in errors.
//
// ${VAR} in a value becomes the environment variable VAR, ${VAR:-text} becomes
// text when VAR is unset or empty, and $${ a plain ${. A default may have
// references of its own, and braces if they balance. Variables are replaced
// after the YAML is parsed, so their content cannot change its structure. Errors do
// not show their content, which may be a secret.
//
// Parse is strict: an unknown key, a value of a wrong type or outside its bounds,
// a reference to something that does not exist and a missing environment
// variable are all reported, in one *ConfigError, with file and line. Only keys at
// the top that begin with x- are ignored: they hold what anchors share.
func Parse(name string, data []byte) (Config, error) {
	cfg, source := strictyaml.Read[Config](name, data, os.LookupEnv)
	cfg.source = source
	var faults []Fault
	for _, f := range source.Faults() {
		column := 0
		if source.Line(f.Path) == f.Line {
			column = source.Column(f.Path)
		}
		faults = append(faults, Fault{File: name, Line: f.Line, Column: column, Path: f.Path, Text: f.Text})
	}
	// Then how the values fit together, except what follows from the faults above.
	for _, f := range check(cfg) {
		if !slices.ContainsFunc(append(f.because, f.Path), source.Faulty) {
			faults = append(faults, cfg.locate(f))
		}
	}
	if err := configError(faults); err != nil {
		return Config{}, err
	}
	return cfg, nil
}
