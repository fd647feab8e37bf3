package router

import (
	"fmt"
	"maps"
	"slices"

	"github.com/watermill-ots/watermill-ots/router/internal/strictyaml"
)

const allDisabled = "all are disabled, so nothing would run; remove enabled: false from one, or choose with Config.Only"

// enabled returns the names of the pipelines that run, sorted.
func (c Config) enabled() []string {
	return slices.DeleteFunc(names(c.Tunnels), func(name string) bool { return c.Tunnels[name].Disabled })
}

// disabled returns the names of the pipelines that do not run, sorted.
func (c Config) disabled() []string {
	return slices.DeleteFunc(names(c.Tunnels), func(name string) bool { return !c.Tunnels[name].Disabled })
}

// Only returns a copy of the configuration with exactly these pipelines enabled, whatever
// enabled says in the file. So several programs can share one file. The error, a
// *ConfigError, is about names that the configuration does not have.
//
//	cfg, err := router.Load("pipelines.yaml")
//	cfg, err = cfg.Only("orders", "audit")
func (c Config) Only(tunnels ...string) (Config, error) {
	var faults []Fault
	for _, name := range tunnels {
		if _, ok := c.Tunnels[name]; !ok {
			faults = append(faults, c.locate(Fault{Path: "tunnels", Text: fmt.Sprintf("Only is called for %q, but there is no such tunnel%s", name, strictyaml.Suggest(name, names(c.Tunnels), "tunnels"))}))
		}
	}
	if err := configError(faults); err != nil {
		return Config{}, err
	}
	c.Tunnels = maps.Clone(c.Tunnels)
	for name, t := range c.Tunnels {
		t.Enabled = slices.Contains(tunnels, name)
		t.Disabled = !t.Enabled
		c.Tunnels[name] = t
	}
	return c, nil
}
