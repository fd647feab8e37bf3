// Package router makes pipelines of one configuration: Tablestore instances,
// their tunnels, a processing step and batchers for each, put together to a
// Watermill Router.
//
//	cfg, err := router.Load("pipelines.yaml")
//	r, err := router.New(cfg, logger)
//	err = r.Handle("orders", router.Handlers{Process: process, Batches: ...})
//	err = r.Run(ctx) // until ctx ends, then it drains
//
// Config describes the file; docs/config.md has all of it.
//
// # The way of a message
//
//	subscriber ─▶ failure policy ─▶ middlewares ─▶ Process ─▶ batcher ─▶ batch handler ─▶ ack
//	                                                 │ └ ErrDrop ─▶ ack      or forward
//	                                                 └ without batchers ─▶ forward ─▶ ack
//
// Every message of a tunnel goes through its pipeline; it is acked when the last
// step that concerns it has succeeded, and never before. Process is called by at most
// processors.concurrency goroutines at once. Records of one primary key are in
// order all the way, as package subscriber promises, through batches too.
//
// # Failures
//
// A message fails when Process, a middleware or its batch returns an error or
// panics, or when Batch.Fail names it. Handlers.Failed is told. The message is
// delivered again, with a growing pause; later changes of its key wait, others
// go on. With dead_letter it is given up after failure.attempts failures: it goes to a topic or a
// table, with all that is needed to Replay it, and is acked then. Without, it is
// tried for ever.
//
// A shutdown, a lost channel, a cancelled context and a call-back (an earlier change of the
// key failed) are no failures: they are not counted, and nobody is told.
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
// A pipeline whose tunnel is gone or expired ends alone, at the start or later, and so does one that
// exceeds failure.stop_after; one whose tunnel was read to its end, as BaseData is, is done. The others
// run on, unless on_end says stop. Run returns when all have ended, with what ended them.
//
// # Names
//
// What a file cannot hold is registered in code under a name: publishers
// (RegisterPublisher), payload formats (RegisterPayload) and credentials
// (RegisterCredentials). Names that do not match are errors, with the line in the file
// and the name that was probably meant, before anything is connected.
//
// # Watching
//
// Observe gives metrics and health checks the subscribers and the batches of the pipelines.
//
// # Testing
//
// Test and TestRecords send messages through a pipeline without a tunnel.
package router
