package router

import (
	"encoding/json"
	"fmt"

	"github.com/watermill-ots/watermill-ots/router/internal/strictyaml"
)

// shownInstance is an Instance without its methods.
type shownInstance Instance

// redacted returns in with other texts for its secrets.
func (in Instance) redacted() shownInstance { return shownInstance(strictyaml.Redacted(in)) }

// String returns the settings without the secrets, so that a Config can be logged.
func (in Instance) String() string { return fmt.Sprintf("%+v", in.redacted()) }

// GoString returns the same as String, so that %#v shows no secret either.
func (in Instance) GoString() string { return in.String() }

// MarshalJSON shows no secret either, for logs in JSON.
func (in Instance) MarshalJSON() ([]byte, error) { return json.Marshal(in.redacted()) }
