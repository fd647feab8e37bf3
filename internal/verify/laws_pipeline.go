package verify

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/router"
)

// pipelineFile is a pipeline with batches and dead letters, with the README's settings.
const pipelineFile = `
instances:
  main:
    name: %[1]q
    endpoint: %[2]q
    allow_insecure: %[3]v
    credentials: kit
    signature_version: %[4]s
%[5]stunnels:
  pipeline:
    instance: main
    table_name: %[6]q
    tunnel_name: %[7]q
    heartbeat_interval: %[8]s
    heartbeat_timeout: %[9]s
    max_poll_interval: 250ms
    close_timeout: 5s
    processors: {concurrency: 16}
    batchers:
      default: {batch_size: 100, batch_timeout: 500ms, concurrency: 2}
    failure: {attempts: 3, backoff_initial: 100ms, backoff_max: 500ms, dead_letter: {table: %[10]q}}
`

// sink is what the pipeline writes to. It is safe for concurrent use.
type sink struct {
	mu   sync.Mutex
	down bool
	bad  string // a key that is refused
	rows map[string]bool
}

var errRefused = errors.New("the sink of the check refuses this")

// write is the batch handler: all rows or none, as a transaction.
func (s *sink) write(_ context.Context, b *batching.Batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var keys []string
	for _, msg := range b.Messages {
		record, ok := ots.RecordFromMessage(msg)
		if !ok {
			return errors.New("a message without its record")
		}
		key := keyOf(record)
		if s.down || key == s.bad {
			return errRefused
		}
		keys = append(keys, key)
	}
	for _, key := range keys {
		s.rows[key] = true
	}
	return nil
}

// has returns how many rows of the check arrived.
func (s *sink) has(prefix string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key := range s.rows {
		if strings.HasPrefix(key, prefix) {
			n++
		}
	}
	return n
}

func (s *sink) setDown(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

// pipeline runs a pipeline on the common table's changes into s until stop is called.
func (p *probe) pipeline(s *sink, letters string) (stop func() error, err error) {
	topic, err := p.changes()
	if err != nil {
		return nil, err
	}
	if err := p.kit.made.add(letters); err != nil { // the Router creates it
		return nil, err
	}
	table, tunnel, _ := strings.Cut(topic, "/")
	cfg, timeout := p.kit.cfg, p.kit.cfg.ClientTimeout
	version, region := "v2", ""
	if cfg.SignatureVersion == ots.SignatureV4 {
		version, region = "v4", fmt.Sprintf("    region: %q\n", cfg.Region)
	}
	file := fmt.Sprintf(pipelineFile, cfg.Instance, cfg.Endpoint, cfg.AllowInsecure, version, region, table, tunnel, timeout/4, timeout, letters)
	parsed, err := router.Parse("ots verify", []byte(file))
	if err != nil {
		return nil, err
	}
	r, err := router.New(parsed, nil)
	if err != nil {
		return nil, err
	}
	err = errors.Join(
		r.RegisterCredentials("kit", cfg.Credentials),
		r.Handle("pipeline", router.Handlers{Batches: map[string]func(context.Context, *batching.Batch) error{"default": s.write}}))
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	ended := make(chan error, 1)
	go func() { ended <- r.Run(p.ctx) }() // stop waits for it
	return func() error { return errors.Join(r.Close(), <-ended) }, nil
}

// awaitRows waits until n rows of the check are in the sink.
func (p *probe) awaitRows(s *sink, n int) error {
	for limit := time.Now().Add(p.patience()); s.has(p.check) < n; {
		if time.Now().After(limit) {
			return refuted("%d of %d rows are in the sink.", s.has(p.check), n)
		}
		if err := pause(p.ctx, p.kit.pace()); err != nil {
			return err
		}
	}
	return nil
}

// letters returns the keys of all rows of a dead-letter table, as text.
func (p *probe) letters(table string) (keys []string, err error) {
	var meta *tablestore.DescribeTableResponse
	err = p.kit.table.Call(p.ctx, "DescribeTable", func(c *tablestore.TableStoreClient) (err error) {
		meta, err = c.DescribeTable(&tablestore.DescribeTableRequest{TableName: table})
		return err
	})
	if err != nil {
		return nil, err
	}
	start, end := new(tablestore.PrimaryKey), new(tablestore.PrimaryKey)
	for _, column := range meta.TableMeta.SchemaEntry {
		start.AddPrimaryKeyColumnWithMinValue(*column.Name)
		end.AddPrimaryKeyColumnWithMaxValue(*column.Name)
	}
	err = p.kit.table.Call(p.ctx, "GetRange", func(c *tablestore.TableStoreClient) error {
		resp, err := c.GetRange(&tablestore.GetRangeRequest{RangeRowQueryCriteria: &tablestore.RangeRowQueryCriteria{
			TableName: table, StartPrimaryKey: start, EndPrimaryKey: end, Direction: tablestore.FORWARD, MaxVersion: 1, Limit: 100,
		}})
		if err != nil {
			return err
		}
		for _, row := range resp.Rows {
			for _, column := range row.Columns {
				if column.ColumnName == "key" {
					keys = append(keys, fmt.Sprint(column.Value))
				}
			}
		}
		return nil
	})
	return keys, err
}

func oneBadRowIsOneLetter(p *probe) error {
	const rows = 20
	letters := p.kit.name("letters")
	s := &sink{rows: make(map[string]bool), bad: p.key(7)}
	stop, err := p.pipeline(s, letters)
	if err != nil {
		return err
	}
	err = p.write(0, rows)
	if err == nil {
		err = p.awaitRows(s, rows-1)
	}
	var keys []string
	for limit := time.Now().Add(p.patience()); err == nil && len(keys) == 0 && time.Now().Before(limit); {
		if keys, err = p.letters(letters); err == nil {
			err = pause(p.ctx, p.kit.pace())
		}
	}
	if err = errors.Join(err, stop()); err != nil {
		return err
	}
	if keys, err = p.letters(letters); err != nil {
		return err
	}
	if len(keys) != 1 || !strings.Contains(keys[0], s.bad) {
		return refuted("the dead letters are %v.", keys)
	}
	return nil
}

func anOutageMakesNoLetters(p *probe) error {
	const rows = 20
	outage := p.kit.cfg.ClientTimeout
	letters := p.kit.name("outage")
	s := &sink{rows: make(map[string]bool)}
	stop, err := p.pipeline(s, letters)
	if err != nil {
		return err
	}
	err = p.write(0, 1)
	if err == nil {
		err = p.awaitRows(s, 1)
	}
	s.setDown(true)
	if err == nil {
		err = p.write(1, rows)
	}
	if err == nil {
		err = pause(p.ctx, outage)
	}
	s.setDown(false)
	back := time.Now()
	if err == nil {
		err = p.awaitRows(s, rows+1)
	}
	took := time.Since(back)
	if err = errors.Join(err, stop()); err != nil {
		return err
	}
	keys, err := p.letters(letters)
	if err != nil {
		return err
	}
	if len(keys) > 0 {
		return refuted("an outage of %v made the dead letters %v.", outage, keys)
	}
	p.note("all rows had arrived %v after an outage of %v", took.Round(10*time.Millisecond), outage)
	return nil
}
