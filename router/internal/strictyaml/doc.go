// Package strictyaml reads one YAML document into a struct, strictly: it reports
// every unknown key, wrong type, value outside its bounds and missing environment
// variable at once, each with its line. It knows nothing of the struct but its
// field tags.
//
// The yaml package's own decoding gives neither the lines of values nor all
// faults at once.
//
// # Field tags
//
//	yaml      the key; "-" for a field that a file cannot set
//	alias     another key with the same meaning
//	required  the key must be present; a required mapping must not be empty
//	min       the lowest value of a number or duration
//	enum      the possible values, separated by commas
//	unit      "bytes" for a number that may have a binary unit, such as 64MiB
//	zero      0 has a meaning of its own: a number or duration becomes Off; for a
//	          bool the tag names the field that is set when the key is false
//	default   what an absent key means, for error texts
//	secret    the value is never shown
//
// A field is a text, bool, int, int64, [time.Duration] or [time.Time], a struct
// or a pointer to a struct, or a map from names to structs.
//
// # Environment
//
// ${VAR} in a value becomes the environment variable VAR, ${VAR:-text} becomes
// text when VAR is unset or empty, and $${ a plain ${. Errors never show the
// content of a variable, which may be a secret.
//
// # Templates
//
// Keys at the top that begin with x- are not decoded: they hold what anchors share.
package strictyaml
