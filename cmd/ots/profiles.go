package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
)

// profile is a connection in the file of profiles.
type profile struct {
	Endpoint        string `yaml:"endpoint"`
	Instance        string `yaml:"instance"`
	Region          string `yaml:"region"`
	AllowInsecure   bool   `yaml:"allow_insecure"`
	AccessKeyID     string `yaml:"access_key_id"`
	AccessKeySecret string `yaml:"access_key_secret"`
	SecurityToken   string `yaml:"security_token"`
}

// Format implements fmt.Formatter: no verb shows the keys.
func (p profile) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "profile{%s at %s}", p.Instance, p.Endpoint)
}

// profilesFile is the file of profiles.
type profilesFile struct {
	Default  string             `yaml:"default"`
	Profiles map[string]profile `yaml:"profiles"`

	path string
}

// profilesFile reads the file of profiles. One that the user has not named may be missing.
func (c *connection) profilesFile() (profilesFile, error) {
	path, from := c.profiles, "--profiles"
	if path == "" {
		path, from = os.Getenv(envProfiles), "$"+envProfiles
	}
	named := path != ""
	if !named {
		dir, err := os.UserConfigDir()
		if err != nil {
			return profilesFile{}, nil // a process without a home directory has no profiles
		}
		path, from = filepath.Join(dir, "ots", "profiles.yaml"), "profiles"
	}
	file, err := readProfiles(path)
	if errors.Is(err, fs.ErrNotExist) && !named {
		return profilesFile{path: path}, nil
	}
	if err != nil {
		return profilesFile{}, usageError{fmt.Errorf("%s: %w", from, err)}
	}
	return file, nil
}

// readProfiles reads a file of profiles. It holds keys, so other users may not read it.
// Errors show no part of its content but names of keys.
func readProfiles(path string) (profilesFile, error) {
	f, err := os.Open(path)
	if err != nil {
		return profilesFile{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return profilesFile{}, err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 && runtime.GOOS != "windows" { // where the bits say nothing
		return profilesFile{}, fmt.Errorf("%s holds keys, and other users may open it (mode %04o): run chmod 600 %s", path, mode, path)
	}
	file := profilesFile{path: path}
	decoder := yaml.NewDecoder(f)
	decoder.KnownFields(true)
	if err := decoder.Decode(&file); err != nil {
		return profilesFile{}, fmt.Errorf("%s: %s", path, yamlFault(err))
	}
	return file, nil
}

// yamlFault returns what is wrong without the values, which may be secrets: the parts of the
// library's texts that have no value.
func yamlFault(err error) string {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	var faults []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case strings.Contains(line, "not found in type"):
			line, _, _ = strings.Cut(line, " not found in type")
			faults = append(faults, line+" is not known; a profile has endpoint, instance, region, allow_insecure, access_key_id, access_key_secret and security_token")
		case strings.Contains(line, "cannot unmarshal"):
			at, _, _ := strings.Cut(line, "cannot unmarshal")
			faults = append(faults, at+"a value of another type than the key takes")
		}
	}
	if len(faults) == 0 {
		at, _, ok := strings.Cut(text, ":")
		if !ok || !strings.HasPrefix(at, "line") {
			at = "the file"
		}
		return at + ": not YAML of the form that docs/ots.md shows"
	}
	return strings.Join(faults, "; ")
}

// find returns a profile by its name. from says where the name is from.
func (f profilesFile) find(name, from string) (profile, error) {
	p, ok := f.Profiles[name]
	if !ok {
		return profile{}, usageError{fmt.Errorf("%s is %q, and %s %s", from, name, f.path, f.has())}
	}
	return p, nil
}

// has says which profiles there are.
func (f profilesFile) has() string {
	names := slices.Sorted(maps.Keys(f.Profiles))
	if len(names) == 0 {
		return "has no profiles"
	}
	return "has " + strings.Join(names, ", ")
}

// completeProfile completes names of profiles, for shells.
func (c *connection) completeProfile(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	file, err := c.profilesFile()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp // the command says what is wrong
	}
	return slices.Sorted(maps.Keys(file.Profiles)), cobra.ShellCompDirectiveNoFileComp
}
