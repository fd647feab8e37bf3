// Package health serves the status of a program's subscribers and batches: for a
// kubelet, for a script, and for a browser.
//
//	h, err := health.New(health.Config{})
//	h.AddSubscriber(sub)
//	h.AddBatching("orders", batches)
//	err = h.ListenAndServe(ctx, "") // 127.0.0.1:8088, until ctx ends; call it in its own goroutine
//
//	/livez        200 while a restart would not help, else 503
//	/readyz       200 while every subscription is connected and its calls succeed, else 503
//	/status.json  the whole status
//	/             a page that shows it live
//
// The bodies of /livez and /readyz list the reasons, one in each line; as JSON when the
// request accepts application/json.
//
// # Access
//
// Everything is read-only. By default only requests from this machine are answered, and
// only under the name localhost or a loopback address: the status has primary keys. See
// Remote.
package health
