// Package router builds pipelines from one configuration file and runs them on a
// Watermill Router: Tablestore instances, their tunnels, and for each tunnel a
// processing step and batchers.
//
//	cfg, err := router.Load("pipelines.yaml")
//	r, err := router.New(cfg, logger)
//	err = r.Handle("orders", router.Handlers{Process: process, Batches: ...})
//	err = r.Run(ctx) // until ctx ends, then it drains
//
// Config describes the file; docs/config.md documents every key.
//
// # The path of a message
//
//	subscriber ─▶ failure policy ─▶ middlewares ─▶ Process ─▶ batcher ─▶ batch handler ─▶ ack
//	                                                 │ └ ErrDrop ─▶ ack      or forward
//	                                                 └ without batchers ─▶ forward ─▶ ack
//
// Every message of a tunnel goes through its pipeline, and is acked when its last
// step has succeeded, never before. At most processors.concurrency goroutines call
// Process at once. Records of one primary key stay in order through all steps,
// including batches, as package subscriber promises.
//
// # Failures
//
// A message fails when Process, a middleware or its batch returns an error or
// panics, or when Batch.Fail names it. Handlers.Failed is called, and the message is
// redelivered with backoff. Later changes of its key wait for it, others do not. With
// dead_letter it is given up after failure.attempts failures: it is written to a
// topic or a table, with all that Replay needs, and acked. Without dead_letter it is
// retried without limit.
//
// A shutdown, a lost channel, a cancelled context and a call-back (an earlier change of
// the key failed) are not failures: they are not counted, and Handlers.Failed is not
// called.
//
// # Scopes
//
// By default processors.concurrency and the batchers belong to the whole pipeline. With scope: worker or
// channel, each tunnel client or each channel has its own. The order of a primary key holds across
// scopes; failures, outages and statistics concern the whole pipeline. The state of a scope is freed
// with its last message.
//
// # Ends
//
// A pipeline whose tunnel is gone or expired ends alone, at the start or later, and so
// does one that exceeds failure.stop_after. A pipeline whose tunnel was read to its end,
// as BaseData is, is done. The others keep running, unless on_end says stop. Run returns
// when all pipelines have ended, with the errors that ended them.
//
// # Names
//
// A file refers by name to what is registered in code: publishers
// (RegisterPublisher), payload formats (RegisterPayload) and credentials
// (RegisterCredentials). Unknown names are errors, with the line in the file and the
// name that was probably meant, before anything is connected.
//
// # Monitoring
//
// Observe passes the subscribers and batchers of the pipelines to metrics and health checks.
//
// # Testing
//
// Test and TestRecords send messages through a pipeline without a tunnel.
package router
