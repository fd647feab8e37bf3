package strictyaml

import (
	"errors"
	"fmt"
	"strings"
)

// maxDefaults bounds how deep defaults are nested.
const maxDefaults = 16

var (
	errNoReference = errors.New("has a ${ that does not begin a ${VARIABLE} or ${VARIABLE:-default}; write $${ for a plain ${")
	errUnclosed    = errors.New("has a ${VARIABLE:-default} without its }: each { in a default needs a }; if the value has a # or a comma, put it in quotes")
	errTooDeep     = fmt.Errorf("has more than %d nested defaults", maxDefaults)
)

// expansion is a value with its references to the environment replaced.
type expansion struct {
	text    string
	changed bool // text had references
	fromEnv bool // text contains the content of a variable, which may be a secret
}

// expand replaces the references to the environment in text. Its errors name variables
// and never show their content.
//
// A default ends at the } that belongs to its ${, so it may have braces and references
// itself. The content of variables is not expanded. A default must be well-formed
// even if it is not used, but the variables in it need not be set then.
func expand(text string, lookup func(string) (string, bool)) (expansion, error) {
	if !strings.Contains(text, "${") {
		return expansion{text: text}, nil
	}
	x := expander{in: text, lookup: lookup}
	err := x.literal(0, true)
	return expansion{text: x.out.String(), changed: true, fromEnv: x.fromEnv}, err
}

// expander reads in, starting at at, and writes to out.
type expander struct {
	in      string
	at      int
	out     strings.Builder
	lookup  func(string) (string, bool)
	fromEnv bool
}

// literal reads up to the } that ends the default around it, or at depth 0 to the end of
// the text. It writes only if used.
func (x *expander) literal(depth int, used bool) error {
	if depth > maxDefaults {
		return errTooDeep
	}
	braces := 0 // open braces of the default's own
	for x.at < len(x.in) {
		rest := x.in[x.at:]
		switch {
		case strings.HasPrefix(rest, "$${"):
			x.write("${", used)
			x.at += len("$${")
			braces++
			continue
		case strings.HasPrefix(rest, "${"):
			if err := x.reference(depth, used); err != nil {
				return err
			}
			continue
		case rest[0] == '{':
			braces++
		case rest[0] == '}' && depth > 0 && braces == 0:
			return nil
		case rest[0] == '}':
			braces--
		}
		x.write(rest[:1], used)
		x.at++
	}
	if depth > 0 {
		return errUnclosed
	}
	return nil
}

// reference reads ${VARIABLE} or ${VARIABLE:-default}.
func (x *expander) reference(depth int, used bool) error {
	x.at += len("${")
	name := variableName(x.in[x.at:])
	x.at += len(name)
	rest := x.in[x.at:]
	value, set := x.lookup(name)
	switch {
	case name == "":
		return errNoReference
	case strings.HasPrefix(rest, "}"):
		if used && !set {
			return fmt.Errorf("the environment variable %s is not set; set it, or give a default: ${%s:-default}", name, name)
		}
		x.content(value, used)
	case strings.HasPrefix(rest, ":-"):
		x.at += len(":-")
		x.content(value, used)
		if err := x.literal(depth+1, used && value == ""); err != nil {
			return err
		}
	default:
		return errNoReference
	}
	x.at++ // the }
	return nil
}

// content writes the content of a variable.
func (x *expander) content(value string, used bool) {
	x.write(value, used)
	x.fromEnv = x.fromEnv || used && value != ""
}

func (x *expander) write(text string, used bool) {
	if used {
		x.out.WriteString(text)
	}
}

// variableName returns the variable name at the beginning of text, or "".
func variableName(text string) string {
	for i := range len(text) {
		switch c := text[i]; {
		case c == '_', 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', i > 0 && '0' <= c && c <= '9':
		default:
			return text[:i]
		}
	}
	return text
}
