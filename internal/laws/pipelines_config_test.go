package laws

import (
	"fmt"
	"time"

	"github.com/watermill-ots/watermill-ots/internal/testbed"
)

// pipe is one pipeline of the workers. Its tunnel has the same name.
type pipe struct {
	name, table    string
	doors          []string // where its records arrive, in order
	lettersByTopic bool
}

const (
	ordersTable  = "orders"
	stockTable   = "stock"
	lettersTable = "letters"

	behindDoor  = "behind"  // for messages that are sent after a batch
	lettersDoor = "letters" // for letters by topic
	fencedDoor  = "fenced"  // for what workers report to the test
	// abandonedDoor is for the requests that workers report as no longer awaited.
	abandonedDoor = "abandoned"
)

// The pipelines.
var (
	batchedPipe = pipe{name: "batched", table: ordersTable, doors: []string{"batched", behindDoor}}       // two batchers, and a publish after them
	plainPipe   = pipe{name: "plain", table: ordersTable, doors: []string{"plain"}, lettersByTopic: true} // no batchers, forward
	forwardPipe = pipe{name: "forward", table: stockTable, doors: []string{"forward"}, lettersByTopic: true}
	pipes       = []pipe{batchedPipe, plainPipe, forwardPipe}
)

const (
	workerCloseTimeout = 4 * time.Second // close_timeout in the file
	workerAttempts     = 5               // failure.attempts
)

// workerGiveUpAfter is failure.give_up_after: longer than all faults, so that
// it decides only about bad rows without a witness.
func workerGiveUpAfter() time.Duration { return *pipelinesTime + 20*time.Second }

// pipelinesFile returns the workers' configuration.
func pipelinesFile(endpoint string) string {
	common := fmt.Sprintf(`
    instance: main
    heartbeat_interval: 300ms
    heartbeat_timeout: %v
    checkpoint_interval: 50ms
    max_poll_interval: 50ms
    max_in_flight: 300
    close_timeout: %v`, leaseTime, workerCloseTimeout)
	failure := fmt.Sprintf(`
    failure:
      attempts: %d
      give_up_after: %v
      backoff_initial: 20ms
      backoff_max: 200ms
      dead_letter:`, workerAttempts, workerGiveUpAfter())
	return fmt.Sprintf(`
instances:
  main: {name: %s, endpoint: "%s", access_key_id: %s, access_key_secret: %s}
tunnels:
  batched:
    table_name: orders
    tunnel_name: batched%[5]s
    processors: {concurrency: 64}
    batchers:
      even: {batch_size: 16, batch_timeout: 40ms, concurrency: 2}
      odd: {batch_size: 16, batch_timeout: 40ms, batch_idle: 20ms, concurrency: 2}%[6]s {table: letters}
  plain:
    table_name: orders
    tunnel_name: plain%[5]s
    forward: {publisher: sink, topic: plain}%[6]s {publisher: sink, topic: letters}
  forward:
    table_name: stock
    tunnel_name: forward%[5]s
    batchers:
      default: {batch_size: 16, batch_timeout: 40ms, concurrency: 3, forward: {publisher: sink, topic: forward}}%[6]s {publisher: sink, topic: letters}
`, testbed.Instance, endpoint, testbed.KeyID, testbed.KeySecret, common, failure)
}
