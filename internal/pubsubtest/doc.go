// Package pubsubtest runs Watermill's universal Pub/Sub suite (pubsub/tests)
// with the subscriber and an emulator process. It has no code to import.
//
// # How the suite's terms are mapped
//
//   - A topic is a separate table with a stream. Publishing writes rows with
//     the official SDK's table client; the message is in their columns.
//   - A consumer group is a tunnel of that table. Subscribers without a group
//     share one tunnel, as consumers of one group share a queue.
//   - Restarting the service kills the emulator process with SIGKILL and
//     restarts it with the same data directory and port.
//   - Messages with the same payload are an ordered group. With OrderByKey they
//     all change the same row; with OrderByChannel each one is a separate row
//     with the same partition key, and so in the same channel. With Unordered
//     every message is a separate row with any partition key. Tables have
//     several partitions, so tunnels have several channels.
//
// # Declared features and reasons
//
//   - ConsumerGroups: true. Every tunnel gets all changes after its creation.
//   - GuaranteedOrder: true, also with many subscribers of one tunnel: a
//     channel belongs to one of them at a time. False for Unordered.
//   - Persistent: true. What is not committed is redelivered to the next
//     subscriber.
//   - RestartServiceCommand: set for OrderByKey and OrderByChannel. TestReconnect,
//     which needs it, has no short form and takes seven seconds. Unless all tests
//     take their full form, it runs with OrderByChannel only in TestPublisher, and
//     with -short only with OrderByKey.
//   - ExactlyOnceDelivery: false. A tunnel delivers at least once. A table
//     write that is retried because its response was lost is also a second
//     change.
//   - NewSubscriberReceivesOldMessages: false in the main runs, whose
//     subscribers are in one group: what one of them has acked, the others do
//     not receive. The suite's test for it runs separately, with a tunnel for
//     each subscriber that starts at the oldest change of the stream.
//   - ContextPreserved: false. A context cannot be stored in a table.
//   - RequireSingleInstance: false.
//
// Unordered runs in the suite's short form, without GuaranteedOrder (it does
// not promise order) and without restarts (where it does not differ from the
// other two).
//
// The suite treats any error of Subscriber.Close as a failure, also after it
// has left a message unsettled (TestMessageCtx). The subscriber reports such
// messages as ErrDrainTimeout; the wrapper in these tests accepts that error,
// and no other.
//
// The stress test runs the suite twice side by side in its short form and
// without restarts, because TestReconnect has no short form. With the build tag
// stress it runs STRESS_TEST_COUNT times (default 10) in full: all runs share
// one emulator, which each of them restarts:
//
//	STRESS_TEST_COUNT=10 go test -tags stress -timeout 60m -run Stress ./internal/pubsubtest
//
// # Package publisher
//
// TestPublisher runs the suite with package publisher instead of the SDK's
// table client: a message is a separate row with the partition key of its
// group, and OrderByChannel keeps the group's order. It uses the suite's short
// numbers of messages but includes restarts; the long form takes two minutes:
//
//	go test -run 'TestPublisher$' ./internal/pubsubtest -publisher.long
//
// One data race is suppressed under -race (testdata/race.suppressions): it is in
// TestReconnect itself.
package pubsubtest
