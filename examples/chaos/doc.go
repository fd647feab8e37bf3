// Package chaos tests the guarantees of package router with real brokers. A
// pipeline publishes the changes of a table to a broker behind a Proxy, which
// refuses connections, cuts them, hangs, and loses responses. Run checks what a
// consumer finds that reaches the broker directly: each version of each key, in
// order, and no dead letter, since an outage is not the fault of a message.
package chaos
