package subscriber

import (
	"errors"
	"fmt"
	"strings"
)

// ErrTopic is wrapped by the error for a malformed topic. A topic is
// "table/tunnel": both names as they are at the service.
var ErrTopic = errors.New(`topic must be "table/tunnel"`)

// splitTopic parses "table/tunnel". Table and tunnel names hold letters,
// digits and underscores only [D: General limits], so a slash cannot be part of either.
func splitTopic(topic string) (table, tunnel string, err error) {
	table, tunnel, found := strings.Cut(topic, "/")
	switch {
	case !found:
		return "", "", fmt.Errorf("topic %q: no slash between table and tunnel: %w", topic, ErrTopic)
	case table == "":
		return "", "", fmt.Errorf("topic %q: the table's name is empty: %w", topic, ErrTopic)
	case tunnel == "":
		return "", "", fmt.Errorf("topic %q: the tunnel's name is empty: %w", topic, ErrTopic)
	}
	for _, part := range []struct{ what, name string }{{"table", table}, {"tunnel", tunnel}} {
		if i := strings.IndexFunc(part.name, func(r rune) bool { return !nameRune(r) }); i >= 0 {
			return "", "", fmt.Errorf("topic %q: %q is not allowed in a %s's name (letters, digits, _ and -): %w", topic, part.name[i:], part.what, ErrTopic)
		}
	}
	return table, tunnel, nil
}

func nameRune(r rune) bool {
	return r == '_' || r == '-' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
}
