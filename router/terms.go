package router

import (
	"github.com/watermill-ots/watermill-ots/internal/service"
	"github.com/watermill-ots/watermill-ots/router/internal/keypath"
)

// terms are the keys that advice about a tunnel names, instead of the fields of the
// subscriber's Config.
func (c Config) terms(name string) service.Terms {
	tunnel := keypath.Join("tunnels", name)
	instance := keypath.Join("instances", c.Tunnels[name].Instance)
	return service.Terms{
		Endpoint: keypath.Join(instance, "endpoint"),
		Keys:     "access_key_id, access_key_secret and security_token (or credentials) of " + instance,
		Region:   keypath.Join(instance, "region"),
		Names:    "table_name and tunnel_name of " + tunnel + ", and " + keypath.Join(instance, "name"),
		Table:    keypath.Join(tunnel, "table_name"),
		Create:   "have it created with tunnel: {create: true} in " + tunnel,
	}
}
