package subscriber

import (
	"errors"
	"fmt"
	"strings"

	"github.com/watermill-ots/watermill-ots/internal/service"
)

// ErrTopic is wrapped by the error for a malformed topic. A topic is
// "table/tunnel": both names as they are at the service.
var ErrTopic = errors.New(`topic must be "table/tunnel"`)

// splitTopic parses "table/tunnel". Neither name can have a slash in it.
func splitTopic(topic string) (table, tunnel string, err error) {
	table, tunnel, found := strings.Cut(topic, "/")
	switch {
	case !found:
		return "", "", fmt.Errorf("topic %q: no slash between table and tunnel: %w", topic, ErrTopic)
	case table == "":
		return "", "", fmt.Errorf("topic %q: the table's name is empty: %w", topic, ErrTopic)
	case tunnel == "":
		return "", "", fmt.Errorf("topic %q: the tunnel's name is empty: %w", topic, ErrTopic)
	case !service.IsTableName(table):
		return "", "", fmt.Errorf("topic %q: %q is not the name of a table, which has %s: %w", topic, table, service.TableNameRule, ErrTopic)
	case !service.IsTunnelName(tunnel):
		return "", "", fmt.Errorf("topic %q: %q is not the name of a tunnel, which has %s: %w", topic, tunnel, service.TunnelNameRule, ErrTopic)
	}
	return table, tunnel, nil
}
