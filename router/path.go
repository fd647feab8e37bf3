package router

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// A path names a place in a configuration: its keys from the top, joined by dots,
// such as tunnels.orders.batchers.s3. A name that could be taken for something
// else, because it has a dot, a quote or a character that cannot be shown, stands
// in it as a Go string: tunnels."a.b".instance. So no two places have the same path.

// join returns the path of key inside path.
func join(path, key string) string {
	if !isPlain(key) {
		key = strconv.Quote(key)
	}
	return joinPath(path, key)
}

// joinPath returns the path of what rest, a path itself, leads to from path.
func joinPath(path, rest string) string {
	if path == "" {
		return rest
	}
	return path + "." + rest
}

// parent returns the path of what holds path; "" for a key at the top.
func parent(path string) string {
	end := 0 // of the keys seen so far
	for at := 0; at < len(path); at++ {
		if path[at] == '"' {
			if quoted, err := strconv.QuotedPrefix(path[at:]); err == nil {
				at += len(quoted)
			}
		} else if dot := strings.IndexByte(path[at:], '.'); dot >= 0 {
			at += dot
		} else {
			break
		}
		if at < len(path) {
			end = at
		}
	}
	return path[:end]
}

// isPlain reports whether key stands in a path as it is.
func isPlain(key string) bool {
	ascii := true
	for i := range len(key) {
		c := key[i]
		if c == '.' || c == '"' || c == '\\' || c < ' ' || c == 0x7f {
			return false
		}
		ascii = ascii && c < utf8.RuneSelf
	}
	return key != "" && (ascii || strconv.Quote(key) == `"`+key+`"`)
}
