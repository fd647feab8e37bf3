// Package health shows how a program's subscribers and batches are: to a
// kubelet, to a script, and to a person with a browser.
//
//	h, err := health.New(health.Config{})
//	h.AddSubscriber(sub)
//	h.AddBatching("orders", batches)
//	err = h.ListenAndServe(ctx, "") // 127.0.0.1:8088, until ctx ends; in a goroutine of its own
//
//	/livez        200 while a restart would not help, else 503
//	/readyz       200 while every subscription is connected and its calls succeed, else 503
//	/status.json  all of it
//	/             a page that shows it live
//
// The bodies of /livez and /readyz say why, one reason a line; as JSON when the
// request accepts application/json.
//
// # Who may look
//
// Everything is read-only. By default only requests from this machine are
// answered, by the name of this machine: the status holds primary keys. See Remote.
package health
