package pubsubtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// Columns of a topic's table. The partition key is a hash of the group, so that
// groups are spread over the partitions and each stays in one of them.
const (
	columnHash     = "hash" // partition key
	columnRow      = "row"
	columnUUID     = "uuid"
	columnPayload  = "payload"
	columnMetadata = "metadata" // JSON object; missing if there is none
	columnPadding  = "padding"
)

// padding makes rows so large that a page holds about 500 of them. Checkpoints
// are made of whole pages: with pages of thousands of records, the suite's
// subscribers, which read a thousand and close, would start at the same page
// again and again.
var padding = make([]byte, 2000)

// partitions is the number of partitions of a topic's table.
const partitions = 4

// tables creates the tables of topics. All methods may be called concurrently.
type tables struct {
	service *service
	client  *tablestore.TableStoreClient

	mu    sync.Mutex
	known map[string]bool // by name: whether it exists
}

// newTables connects to the service with the official SDK until the end of the test.
func newTables(t *testing.T, s *service) *tables {
	transport := &http.Transport{MaxIdleConnsPerHost: 100}
	t.Cleanup(transport.CloseIdleConnections)
	cfg := tablestore.NewDefaultTableStoreConfig()
	cfg.Transport = transport
	return &tables{
		service: s, known: make(map[string]bool),
		client: tablestore.NewClientWithConfig(s.endpoint, instance, keyID, keySecret, "", cfg),
	}
}

// tableOf names the table of a topic: hyphens are not allowed in table names.
func tableOf(topic string) string { return strings.ReplaceAll(topic, "-", "_") }

// ensure creates the topic's table unless it exists; created reports whether it
// did.
func (t *tables) ensure(topic string) (created bool, err error) {
	table := tableOf(topic)
	t.mu.Lock()
	known := t.known[table]
	t.mu.Unlock()
	if known {
		return false, nil
	}
	meta := &tablestore.TableMeta{TableName: table}
	meta.AddPrimaryKeyColumn(columnHash, tablestore.PrimaryKeyType_INTEGER)
	meta.AddPrimaryKeyColumn(columnRow, tablestore.PrimaryKeyType_STRING)
	_, err = t.client.CreateTable(&tablestore.CreateTableRequest{
		TableMeta:          meta,
		TableOption:        &tablestore.TableOption{TimeToAlive: -1, MaxVersion: 1},
		ReservedThroughput: &tablestore.ReservedThroughput{},
		StreamSpec:         &tablestore.StreamSpecification{EnableStream: true, ExpirationTime: 24},
	})
	var answer *tablestore.OtsError
	switch {
	case errors.As(err, &answer) && answer.Code == "OTSObjectAlreadyExist": // another caller was faster
	case err != nil:
		return false, fmt.Errorf("creating table %s: %w", table, err)
	default:
		created = true
		for range partitions - 1 {
			if err := t.service.split(table); err != nil {
				return true, err
			}
		}
	}
	t.mu.Lock()
	t.known[table] = true
	t.mu.Unlock()
	return created, nil
}

// drop deletes a topic's table, since an instance has at most 64.
func (t *tables) drop(topic string) error {
	table := tableOf(topic)
	if _, err := t.client.DeleteTable(&tablestore.DeleteTableRequest{TableName: table}); err != nil {
		return fmt.Errorf("deleting table %s: %w", table, err)
	}
	return nil
}

// publisher writes each message into a row of its topic's table. The SDK's
// client retries while the service is unavailable.
type publisher struct {
	tables   *tables
	ordering subscriber.Ordering
	closed   atomic.Bool
}

var _ message.Publisher = (*publisher)(nil)

var errPublisherClosed = errors.New("publisher is closed")

// Publish writes the rows in order, one at a time, so the order of the messages
// is the order of the changes.
func (p *publisher) Publish(topic string, messages ...*message.Message) error {
	if p.closed.Load() {
		return errPublisherClosed
	}
	if _, err := p.tables.ensure(topic); err != nil {
		return err
	}
	for _, msg := range messages {
		put, err := p.row(topic, msg)
		if err != nil {
			return err
		}
		if _, err := p.tables.client.PutRow(&tablestore.PutRowRequest{PutRowChange: put}); err != nil {
			return fmt.Errorf("publishing message %s to %s: %w", msg.UUID, topic, err)
		}
	}
	return nil
}

// row returns the row that holds the message. Messages with the same payload
// are an ordered group. With OrderByKey a group is one row that changes
// repeatedly; with OrderByChannel the group's messages are separate rows in one
// partition, so that only the order of the channel keeps theirs. Without order
// every message is a group of its own, in any partition.
func (p *publisher) row(topic string, msg *message.Message) (*tablestore.PutRowChange, error) {
	group, name := string(msg.Payload), msg.UUID
	switch p.ordering {
	case subscriber.OrderByKey:
		name = group
	case subscriber.Unordered:
		group = msg.UUID
	}
	hash := fnv.New64a()
	hash.Write([]byte(group))
	put := &tablestore.PutRowChange{TableName: tableOf(topic), PrimaryKey: new(tablestore.PrimaryKey)}
	put.PrimaryKey.AddPrimaryKeyColumn(columnHash, int64(hash.Sum64()))
	put.PrimaryKey.AddPrimaryKeyColumn(columnRow, name)
	put.AddColumn(columnUUID, msg.UUID)
	put.AddColumn(columnPayload, []byte(msg.Payload))
	put.AddColumn(columnPadding, padding)
	if len(msg.Metadata) > 0 {
		text, err := json.Marshal(msg.Metadata)
		if err != nil {
			return nil, fmt.Errorf("metadata of message %s: %w", msg.UUID, err)
		}
		put.AddColumn(columnMetadata, string(text))
	}
	put.SetCondition(tablestore.RowExistenceExpectation_IGNORE)
	return put, nil
}

// Close implements message.Publisher. The connections belong to tables.
func (p *publisher) Close() error {
	p.closed.Store(true)
	return nil
}

// unmarshaler restores the message that publisher wrote.
type unmarshaler struct{}

func (unmarshaler) Unmarshal(r *ots.Record) (*message.Message, error) {
	uuid, ok := r.Column(columnUUID)
	if !ok {
		return nil, fmt.Errorf("row %s has no column %s", r.KeyText(), columnUUID)
	}
	payload, ok := r.Column(columnPayload)
	if !ok {
		return nil, fmt.Errorf("row %s has no column %s", r.KeyText(), columnPayload)
	}
	msg := message.NewMessage(strings.Clone(uuid.String()), payload.Bytes())
	if metadata, ok := r.Column(columnMetadata); ok {
		if err := json.Unmarshal([]byte(metadata.String()), &msg.Metadata); err != nil {
			return nil, fmt.Errorf("row %s: %s: %w", r.KeyText(), columnMetadata, err)
		}
	}
	return msg, nil
}
