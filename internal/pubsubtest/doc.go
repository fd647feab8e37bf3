// Package pubsubtest runs Watermill's universal Pub/Sub suite (pubsub/tests)
// against the subscriber and an emulator process. It has no code to import.
//
// # Meaning of the suite's terms
//
//   - A topic is a table with a stream. Publishing writes rows with the official
//     SDK's table client; the message is stored in their columns.
//   - A consumer group is a tunnel over that table. Subscribers without a group
//     share one tunnel, as consumers of one group share a queue.
//   - Restarting the service kills the emulator process with SIGKILL and starts
//     it again on its data directory and its port.
//   - Messages with the same payload are an ordered group: with OrderByKey they all
//     change the same row, with OrderByChannel each one is a separate row under the
//     same partition key, and therefore in the same channel. With Unordered every
//     message is a separate row under any partition key.
//     Tables have several partitions, so tunnels have several channels.
//
// # Declared features, and why
//
//   - ConsumerGroups: true. Every tunnel gets all changes after its creation.
//   - GuaranteedOrder: true, also with many subscribers of one tunnel: a channel
//     belongs to one of them at a time. False for Unordered.
//   - Persistent: true. Messages that are not committed are redelivered to the next
//     subscriber.
//   - RestartServiceCommand: set for OrderByKey and OrderByChannel.
//   - ExactlyOnceDelivery: false. A tunnel delivers at least once. A table write
//     that is retried because its answer was lost is a second change, too.
//   - NewSubscriberReceivesOldMessages: false in the main runs, whose subscribers
//     belong to one group: messages that one has acked are not delivered to the
//     others. The suite's test of it runs separately, with a tunnel for each
//     subscriber that starts at the oldest change of the stream.
//   - ContextPreserved: false. A context is not stored in a table.
//   - RequireSingleInstance: false.
//
// Unordered runs in the suite's short form, without GuaranteedOrder (it promises
// no order) and without restarts (in which it does not differ from the other two).
//
// The suite treats any error of Subscriber.Close as a failure, also after it has
// left a message unsettled (TestMessageCtx). The subscriber reports such messages as
// ErrDrainTimeout; the wrapper in these tests accepts this one error.
//
// The stress test runs the suite twice concurrently in its short form and without
// restarts, because TestReconnect has no short form. With the build tag stress it
// runs STRESS_TEST_COUNT times (default 10), in full: all runs share one emulator,
// which each of them restarts:
//
//	STRESS_TEST_COUNT=10 go test -tags stress -timeout 60m -run Stress ./internal/pubsubtest
//
// # Package publisher
//
// TestPublisher runs the suite with package publisher instead of the SDK's table
// client: a message is a separate row under the partition key of its group, and
// OrderByChannel keeps the group's order. It uses the suite's short numbers of messages
// and still restarts the service; the long form takes two minutes:
//
//	go test -run 'TestPublisher$' ./internal/pubsubtest -publisher.long
//
// One data race is suppressed under -race (testdata/race.suppressions): it is in
// TestReconnect itself.
package pubsubtest
