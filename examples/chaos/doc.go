// Package chaos tests the promises of package router with real brokers: a
// pipeline publishes the changes of a table to a broker behind a Proxy, which
// refuses connections, cuts them, hangs, and loses answers. Run checks what a
// consumer that reaches the broker directly finds: each version of each key, in
// order, and no dead letter, since an outage is not the fault of a message.
package chaos
