package emulator

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/watermill-ots/watermill-ots/internal/oneline"
)

// seedTable is one table of a seed file.
type seedTable struct {
	name    string
	line    int // of the name
	types   map[string]KeyType
	options []TableOption // the key columns, in the file's order
	splitAt []any
	rows    []seedRow
	created bool // whether LoadSeed created it
}

type seedRow struct {
	Row
	line int
}

// seedParser reads a seed file and collects what is wrong with it.
type seedParser struct {
	file   string
	faults seedError
	tables []*seedTable
}

func parseSeed(name string, data []byte) ([]*seedTable, error) {
	p := &seedParser{file: name}
	dec := yaml.NewDecoder(strings.NewReader(string(data)))
	var doc yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF), err == nil && len(doc.Content) == 0:
		p.faults = append(p.faults, name+": the file is empty; it needs \"tables:\"")
	case err != nil: // "yaml: line N: text"
		p.faults = append(p.faults, fmt.Sprintf("%s: not valid YAML: %s", name, strings.TrimPrefix(err.Error(), "yaml: ")))
	default:
		p.mapping(doc.Content[0], "", map[string]func(*yaml.Node, string){"tables": p.tablesOf})
		if dec.Decode(&doc) != io.EOF {
			p.fault(&doc, "", "a second document begins here; put everything into one")
		}
	}
	if len(p.faults) > 0 {
		return nil, p.faults
	}
	return p.tables, nil
}

func (p *seedParser) fault(at *yaml.Node, path, format string, args ...any) {
	where := fmt.Sprintf("%s:%d: ", p.file, at.Line)
	if path != "" {
		where += path + ": "
	}
	p.faults = append(p.faults, where+fmt.Sprintf(format, args...))
}

// pairs calls f with each key of a mapping. A key that occurs twice is a fault.
func (p *seedParser) pairs(node *yaml.Node, path string, f func(key, value *yaml.Node, path string)) {
	if node = resolved(node); node.Kind != yaml.MappingNode {
		p.fault(node, path, "is %s; it must be a mapping (name: value)", nodeText(node))
		return
	}
	lines := make(map[string]int)
	for i := 0; i+1 < len(node.Content); i += 2 {
		key := resolved(node.Content[i])
		at := strings.TrimPrefix(path+"."+oneline.Text(key.Value, maxShown), ".")
		switch first, twice := lines[key.Value]; {
		case key.Kind != yaml.ScalarNode || key.ShortTag() == "!!merge" || key.Value == "":
			p.fault(key, path, "has a key that is not a name; << and empty names are not allowed")
		case twice:
			p.fault(key, at, "is given twice, first on line %d", first)
		default:
			lines[key.Value] = key.Line
			f(key, resolved(node.Content[i+1]), at)
		}
	}
}

// mapping reads a mapping with fixed keys.
func (p *seedParser) mapping(node *yaml.Node, path string, known map[string]func(*yaml.Node, string)) {
	p.pairs(node, path, func(key, value *yaml.Node, at string) {
		read, ok := known[key.Value]
		if !ok {
			p.fault(key, at, "unknown key; the keys here are: %s", strings.Join(slices.Sorted(maps.Keys(known)), ", "))
			return
		}
		read(value, at)
	})
}

// list calls f with each element of a list.
func (p *seedParser) list(node *yaml.Node, path string, f func(element *yaml.Node, path string)) {
	if node.Kind != yaml.SequenceNode {
		p.fault(node, path, "is %s; it must be a list", nodeText(node))
		return
	}
	for i, element := range node.Content {
		f(resolved(element), fmt.Sprintf("%s[%d]", path, i))
	}
}

func (p *seedParser) tablesOf(node *yaml.Node, path string) {
	p.pairs(node, path, func(name, value *yaml.Node, at string) {
		t := &seedTable{name: name.Value, line: name.Line, types: make(map[string]KeyType)}
		p.tables = append(p.tables, t)
		known := len(p.faults)
		var splitAt, rows *yaml.Node // they are read when the key is known
		p.mapping(value, at, map[string]func(*yaml.Node, string){
			"key":      func(n *yaml.Node, at string) { p.key(t, n, at) },
			"split_at": func(n *yaml.Node, _ string) { splitAt = n },
			"rows":     func(n *yaml.Node, _ string) { rows = n },
		})
		if len(t.options) == 0 {
			if len(p.faults) == known {
				p.fault(name, at, "has no key; a table has key columns, such as \"key: {id: integer}\"")
			}
			return
		}
		if splitAt != nil {
			p.list(splitAt, at+".split_at", func(n *yaml.Node, at string) {
				if v, ok := p.value(n, at); ok {
					t.splitAt = append(t.splitAt, v)
				}
			})
		}
		if rows != nil {
			p.list(rows, at+".rows", func(n *yaml.Node, at string) { p.row(t, n, at) })
		}
	})
}

// key reads the key columns of a table.
func (p *seedParser) key(t *seedTable, node *yaml.Node, path string) {
	p.pairs(node, path, func(name, value *yaml.Node, at string) {
		typ, ok := keyTypes[value.Value]
		if !ok || value.Kind != yaml.ScalarNode {
			p.fault(value, at, "is %s; the types of key columns are: %s", nodeText(value), strings.Join(slices.Sorted(maps.Keys(keyTypes)), ", "))
		}
		t.types[name.Value] = typ
		t.options = append(t.options, Key(name.Value, typ))
	})
}

// row reads a row and checks its key.
func (p *seedParser) row(t *seedTable, node *yaml.Node, path string) {
	row := seedRow{Row: make(Row), line: node.Line}
	known := len(p.faults)
	p.pairs(node, path, func(name, value *yaml.Node, at string) {
		v, ok := p.value(value, at)
		if !ok {
			return
		}
		row.Row[name.Value] = v
		typ, isKey := t.types[name.Value]
		switch v.(type) {
		case int64:
			ok = typ == Integer
		case string:
			ok = typ == String
		case []byte:
			ok = typ == Binary
		default:
			ok = false
		}
		switch {
		case !isKey || typ == 0 || ok:
		case typ == AutoIncrement:
			p.fault(value, at, "is given, but the service numbers an auto_increment column itself; leave it out")
		case typ == String:
			p.fault(value, at, "is %s, but the key column is of the type string; put it in quotes", nodeText(value))
		case typ == Binary:
			p.fault(value, at, "is %s, but the key column is of the type binary; write !!binary and base64", nodeText(value))
		default:
			p.fault(value, at, "is %s, but the key column is of the type %v", nodeText(value), typ)
		}
	})
	for _, name := range slices.Sorted(maps.Keys(t.types)) {
		if _, given := row.Row[name]; !given && t.types[name] != AutoIncrement && len(p.faults) == known {
			p.fault(node, path, "has no value for the key column %q", name)
		}
	}
	t.rows = append(t.rows, row)
}

// value reads the value of a column.
func (p *seedParser) value(node *yaml.Node, path string) (v any, ok bool) {
	if node.Kind != yaml.ScalarNode {
		p.fault(node, path, "is %s; a column holds one value", nodeText(node))
		return nil, false
	}
	var err error
	switch node.ShortTag() {
	case "!!int":
		var n int64
		err = node.Decode(&n)
		v = n
	case "!!float":
		var f float64
		err = node.Decode(&f)
		v = f
	case "!!bool":
		var b bool
		err = node.Decode(&b)
		v = b
	case "!!binary":
		var text string
		err = node.Decode(&text)
		v = []byte(text)
	case "!!str", "!!timestamp": // a date is the text in the file
		v = node.Value
	case "!!null":
		p.fault(node, path, "has no value; leave the column out, or write \"\" for an empty string")
		return nil, false
	default:
		p.fault(node, path, "has the tag %s; a column is an integer, a float, a string, true, false or !!binary", oneline.Text(node.ShortTag(), maxShown))
		return nil, false
	}
	if err != nil {
		p.fault(node, path, "is %s, which is not a value of its type or too large for it", nodeText(node))
		return nil, false
	}
	return v, true
}

// resolved follows an alias.
func resolved(node *yaml.Node) *yaml.Node {
	if node.Kind == yaml.AliasNode {
		return node.Alias
	}
	return node
}

// nodeText describes a node for errors.
func nodeText(node *yaml.Node) string {
	switch {
	case node.Kind == yaml.MappingNode:
		return "a mapping"
	case node.Kind == yaml.SequenceNode:
		return "a list"
	case node.ShortTag() == "!!null":
		return "empty"
	}
	return oneline.Text(fmt.Sprintf("%q", node.Value), maxShown)
}
