package emulator

import (
	"sync/atomic"
	"time"

	"github.com/watermill-ots/watermill-ots/emulator/internal/store"
	"github.com/watermill-ots/watermill-ots/emulator/internal/tables"
	"github.com/watermill-ots/watermill-ots/emulator/internal/tunnels"
)

// Stats are counts since Start.
type Stats struct {
	Started       time.Time
	Operations    map[string]OperationStats // by operation, as Fault.Operation names it
	RecordsServed int64                     // tunnel records read by clients, repeated reads included
	Faults        int64                     // requests that met a fault
}

// OperationStats are the counts of one operation.
type OperationStats struct {
	Requests      int64 // answered, or cut off
	Errors        int64 // answered with an error
	BytesReceived int64 // of request bodies
	BytesSent     int64 // of response bodies
}

// counters are the counts behind Stats. The map never changes after Start.
type counters struct {
	started    time.Time
	operations map[string]*operationCounters
	faults     *atomic.Int64
}

type operationCounters struct {
	requests, errors, received, sent atomic.Int64
}

// otherOperation counts requests of unknown operations.
const otherOperation = "other"

var tunnelOperations = []string{
	"create", "delete", "list", "describe", "connect", "heartbeat", "shutdown", "getcheckpoint", "checkpoint",
	"readrecords", "getrpo", "getrpobyoffset", "schedule",
}

func newCounters() counters {
	c := counters{started: time.Now(), operations: make(map[string]*operationCounters), faults: new(atomic.Int64)}
	for _, op := range tunnelOperations {
		c.operations[tunnelPrefix+op] = new(operationCounters)
	}
	for _, op := range tables.Operations() {
		c.operations[op] = new(operationCounters)
	}
	c.operations[otherOperation] = new(operationCounters)
	return c
}

func (c *counters) of(op string) *operationCounters {
	if o := c.operations[op]; o != nil {
		return o
	}
	return c.operations[otherOperation]
}

// Stats returns the counts so far. Operations that were never requested are
// left out.
func (e *Emulator) Stats() Stats {
	s := Stats{Started: e.counters.started, Operations: make(map[string]OperationStats), RecordsServed: e.records.Load(), Faults: e.counters.faults.Load()}
	for op, c := range e.counters.operations {
		if n := c.requests.Load(); n > 0 {
			s.Operations[op] = OperationStats{Requests: n, Errors: c.errors.Load(), BytesReceived: c.received.Load(), BytesSent: c.sent.Load()}
		}
	}
	return s
}

// countingSource counts the records that the tunnel service reads.
type countingSource struct {
	*store.Store
	records *atomic.Int64
}

// ReadShard implements tunnels.Source.
func (c countingSource) ReadShard(dst []byte, table, shard string, offset int64, before time.Time, maxRows, maxBytes int) (tunnels.ShardPage, error) {
	page, err := c.Store.ReadShard(dst, table, shard, offset, before, maxRows, maxBytes)
	c.records.Add(int64(page.Records))
	return page, err
}

// ReadBase implements tunnels.Source.
func (c countingSource) ReadBase(dst []byte, table string, start, end []byte, maxRows, maxBytes int) (tunnels.BasePage, error) {
	page, err := c.Store.ReadBase(dst, table, start, end, maxRows, maxBytes)
	c.records.Add(int64(page.Records))
	return page, err
}
