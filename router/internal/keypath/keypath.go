// Package keypath names places in a configuration by their keys from the top,
// joined by dots, such as tunnels.orders.batchers.s3.
//
// A key that could be mistaken for something else, because it has a dot, a quote
// or a character that cannot be shown, is written as a Go string:
// tunnels."a.b".instance. So two places never have the same path.
package keypath

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// Join returns the path that the keys lead to from path, which is "" for the top.
func Join(path string, keys ...string) string {
	for _, key := range keys {
		if !isPlain(key) {
			key = strconv.Quote(key)
		}
		if path != "" {
			path += "."
		}
		path += key
	}
	return path
}

// Parent returns the path of the mapping that contains path; "" for a key at the top.
func Parent(path string) string {
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

// isPlain reports whether key is written in a path without quotes.
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
