package strictyaml

import (
	"bytes"
	"cmp"
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxLocating bounds the bytes that are parsed to find a syntax error: enough to try
// some hundred lines, from the end of the file to its beginning.
const maxLocating = 4 << 20

// syntaxFault turns an error of the YAML parser into a fault.
//
// The parser's line is often that of the mapping around the error. The line to
// look at is the one after the longest beginning of the file that can be parsed.
func syntaxFault(data []byte, err error) *Fault {
	line, from := 0, 0
	for end, left := len(data), maxLocating; end > 0 && left > 0; {
		start := bytes.LastIndexByte(data[:end-1], '\n') + 1
		left -= start
		if yaml.Unmarshal(data[:start], new(yaml.Node)) != nil {
			end = start
			continue
		}
		line, from = 1+bytes.Count(data[:start], []byte("\n")), start
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
	if offset, name, ok := flowReference(data[from:]); ok {
		line = 1 + bytes.Count(data[:from+offset], []byte("\n"))
		return &Fault{Line: line, Text: fmt.Sprintf(`not valid YAML: inside of { } and [ ] a ${VARIABLE} must be in quotes: "${%s}"`, name)}
	}
	return &Fault{Line: line, Text: "not valid YAML: " + advise(text)}
}

// advise adds to the parser's text what to do about a value that is not in quotes. It
// leaves out an anchor's name: it may be a secret that begins with an asterisk.
func advise(text string) string {
	switch {
	case strings.HasPrefix(text, "unknown anchor"):
		return "an alias (*) has no anchor (&) before it; a value that begins with * must be in quotes"
	case strings.HasPrefix(text, "found character that cannot start any token"):
		return text + "; a value that begins with @, ` or % must be in quotes"
	case strings.HasPrefix(text, "mapping values are not allowed"):
		return text + "; a value with a colon and a space must be in quotes"
	}
	return text
}

// flowReference finds the first ${ that is not in quotes inside of { } or [ ], where
// YAML reads its { as a mapping. It returns the offset and the variable's name. data,
// which is not valid, begins with a line outside of all braces.
func flowReference(data []byte) (offset int, name string, found bool) {
	depth := 0 // of { and [
	for at := 0; at < len(data); at++ {
		begins := at == 0 || bytes.IndexByte([]byte(" \t\n"), data[at-1]) >= 0 // a word of its own
		switch c := data[at]; {
		case c == '#' && begins:
			at += lineLength(data[at:]) - 1
		case (c == '"' || c == '\'') && (begins || depth > 0 && bytes.IndexByte([]byte("{[,:"), data[at-1]) >= 0):
			at += quotedLength(data[at:]) - 1
		case depth > 0 && bytes.HasPrefix(data[at:], []byte("${")):
			name = variableName(string(data[at+len("${"):][:min(100, len(data)-at-len("${"))]))
			return at, cmp.Or(name, "VARIABLE"), true
		case (c == '{' || c == '[') && (begins || depth > 0):
			depth++
		case (c == '}' || c == ']') && depth > 0:
			depth--
		}
	}
	return 0, "", false
}

// lineLength returns the length of the first line of text, without its line break.
func lineLength(text []byte) int {
	if i := bytes.IndexByte(text, '\n'); i >= 0 {
		return i
	}
	return len(text)
}

// quotedLength returns the length of the quoted string at the beginning of text,
// including its quotes. An open quote ends with the line.
func quotedLength(text []byte) int {
	for at := 1; at < lineLength(text); at++ {
		switch {
		case text[at] == '\\' && text[0] == '"':
			at++
		case text[at] == text[0]:
			return at + 1
		}
	}
	return lineLength(text)
}
