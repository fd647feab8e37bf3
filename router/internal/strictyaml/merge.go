package strictyaml

import (
	"reflect"

	"go.yaml.in/yaml/v3"

	"github.com/watermill-ots/watermill-ots/router/internal/keypath"
)

// entry is one key of a mapping with its value.
type entry struct{ key, value *yaml.Node }

// entries returns the keys of a mapping, followed by those that "<<" merges into it. It
// reports keys that are given twice. The mapping is decoded into a t.
func (d *decoder) entries(node *yaml.Node, path string, t reflect.Type) []entry {
	switch {
	case isNull(node), d.tagged(node, path):
		return nil
	case node.Kind != yaml.MappingNode:
		d.fault(node.Line, path, "is %s; it must be a mapping (key: value)", describe(node))
		return nil
	}
	m := merger{decoder: d, path: path, guarded: hasSecrets(t), seen: make(map[string]bool), state: make(map[*yaml.Node]mergeState)}
	m.add(node)
	return m.entries
}

// merger collects the keys of a mapping and of what it merges.
type merger struct {
	*decoder
	path    string
	guarded bool // the mapping has secrets: see hidden
	entries []entry
	seen    map[string]bool // keys in entries
	state   map[*yaml.Node]mergeState
}

type mergeState uint8

const (
	merging mergeState = iota + 1 // its keys are being added
	merged
)

// add adds the keys of mapping that m does not have yet, and then those that it merges.
func (m *merger) add(mapping *yaml.Node) {
	m.state[mapping] = merging
	lines := make(map[string]int)
	var sources []*yaml.Node
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		key, value := resolve(mapping.Content[i]), mapping.Content[i+1]
		name := key.Value
		switch first, twice := lines[name]; {
		case key.Kind != yaml.ScalarNode || isNull(key) || name == "":
			m.fault(key.Line, m.path, "has a key that is not a name")
		case key.ShortTag() == "!!merge":
			sources = append(sources, resolve(value))
		case twice && m.guarded && isNull(value):
			m.hidden(key.Line, m.path)
		case twice:
			m.fault(key.Line, keypath.Join(m.path, name), "is given twice, first on line %d", first)
		case !m.seen[name]:
			m.seen[name] = true
			m.entries = append(m.entries, entry{key, value})
			fallthrough
		default:
			lines[name] = key.Line
		}
	}
	for _, s := range sources {
		m.merge(s)
	}
	m.state[mapping] = merged
}

// merge adds the keys of what "<<" names: a mapping or a list of mappings.
func (m *merger) merge(value *yaml.Node) {
	sources := []*yaml.Node{value}
	if value.Kind == yaml.SequenceNode {
		sources = value.Content
	}
	for _, source := range sources {
		switch source = resolve(source); {
		case source.Kind != yaml.MappingNode:
			m.fault(source.Line, m.path, "merges %s; << takes mappings", describe(source))
		case m.state[source] == merging:
			m.fault(source.Line, m.path, "merges itself")
		case m.state[source] == merged: // m has all of its keys
		default:
			m.add(source)
		}
	}
}
