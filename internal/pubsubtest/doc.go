// Package pubsubtest runs Watermill's universal Pub/Sub suite (pubsub/tests)
// against the subscriber and an emulator process. There is no code to import
// here.
//
// # How the suite's words are meant
//
//   - A topic is a table of its own with a stream. Publishing writes rows with
//     the official SDK's table client; the message travels in their columns.
//   - A consumer group is a tunnel over that table. Subscribers without a group
//     share one tunnel, as consumers of one group share a queue.
//   - Restarting the service kills the emulator process with SIGKILL and starts
//     it again on its data directory and its port.
//   - Messages with the same payload are a group that is ordered: with
//     OrderByKey they all change the same row, with OrderByChannel each one is
//     a row of its own under the same partition key, hence in the same channel.
//     With Unordered every message is a row of its own under any partition key.
//     Tables have several partitions, so tunnels have several channels.
//
// # What is declared, and why
//
//   - ConsumerGroups: true. Every tunnel gets all changes after its creation.
//   - GuaranteedOrder: true, also with many subscribers of one tunnel: a channel
//     belongs to one of them at a time. False for Unordered.
//   - Persistent: true. What is not committed comes again to the next subscriber.
//   - RestartServiceCommand: set for OrderByKey and OrderByChannel.
//   - ExactlyOnceDelivery: false. A tunnel delivers at least once. A table write
//     that is tried again because its answer was lost is a second change, too.
//   - NewSubscriberReceivesOldMessages: false in the main runs, whose
//     subscribers are of one group: what one has acked, the others do not get.
//     The suite's test of it runs on its own, with a tunnel for each
//     subscriber that starts at the oldest change of the stream.
//   - ContextPreserved: false. A context does not travel through a table.
//   - RequireSingleInstance: false.
//
// Unordered runs in the suite's short form, without GuaranteedOrder (it promises
// none) and without restarts (where it is no different from the other two).
//
// The suite takes any error of Subscriber.Close for a failure, also after it
// has left a message unsettled (TestMessageCtx). The subscriber reports such
// messages as ErrDrainTimeout; the wrapper in these tests takes that one error,
// and no other, for a good end.
//
// The stress test runs the suite twice side by side in its short form and
// without restarts, because TestReconnect has no short form. With the build tag
// stress it runs as often as STRESS_TEST_COUNT says (default 10), in full: all
// runs share one emulator, which each of them restarts:
//
//	STRESS_TEST_COUNT=10 go test -tags stress -timeout 60m -run Stress ./internal/pubsubtest
//
// # Package publisher
//
// TestPublisher runs the suite with package publisher instead of the SDK's table
// client: a message is a row of its own under the partition key of its group, and
// OrderByChannel keeps the group's order. It takes the suite's short numbers of messages and
// restarts the service all the same; the long form takes two minutes:
//
//	go test -run 'TestPublisher$' ./internal/pubsubtest -publisher.long
//
// One data race is suppressed under -race (testdata/race.suppressions): it is in
// TestReconnect itself.
package pubsubtest
