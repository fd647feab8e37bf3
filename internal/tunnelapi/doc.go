// Package tunnelapi makes calls of Tablestore's tunnel API: one request each, bound to a
// context and to a time, signed by the credentials cache, without retries, with the
// service's errors as *ots.ServiceError. Package subscriber and the command ots share it.
package tunnelapi
