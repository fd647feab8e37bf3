package store

import (
	"fmt"
	"slices"
	"time"

	"github.com/watermill-ots/watermill-ots/emulator/internal/tunnels"
	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
)

// Update changes a table's options, its reserved throughput (read and write)
// and its stream; nil means unchanged. Turning a stream off drops its log.
func (t *Table) Update(options *Options, units *[2]int32, stream *StreamSpec) error {
	if options != nil {
		if err := options.check(); err != nil {
			return err
		}
	}
	if stream != nil {
		if err := stream.check(); err != nil {
			return err
		}
	}
	if units != nil {
		if err := checkThroughput(units[0], units[1]); err != nil {
			return err
		}
	}
	if err := t.store.commits.revive(); err != nil {
		return err
	}
	t.mu.Lock()
	err := t.writable()
	if err == nil && t.indexOf != nil {
		err = errIndexTable(t)
	}
	if err == nil && options != nil && len(t.indexes) > 0 {
		err = options.checkIndexed()
	}
	if err == nil && units != nil {
		err = t.checkAdjustment()
	}
	if err != nil {
		t.mu.Unlock()
		return err
	}
	var pending []mutation
	changed := false
	if stream != nil {
		switch {
		case stream.Enabled && !t.stream.Enabled:
			t.enableStream(*stream)
			changed = true
		case !stream.Enabled && t.stream.Enabled:
			pending = t.dropShards()
			changed = true
		case stream.Enabled && (stream.Expiration != t.stream.Expiration || !slices.Equal(stream.Origin, t.stream.Origin)):
			t.mu.Unlock()
			return wire.Invalid("The stream of table '%s' is enabled already; its expiration time and columns can't be changed.", t.schema.Name)
		}
	}
	if options != nil {
		t.versionsLowered = t.versionsLowered || options.MaxVersions < t.schema.Options.MaxVersions
		t.schema.Options = *options
		pending = append(pending, t.updateIndexes()...)
	}
	if units != nil {
		t.schema.ReadUnits, t.schema.WriteUnits = units[0], units[1]
		t.adjusted = t.store.now()
	}
	round := t.store.commits.enqueue(append(pending, t.snapshot(false)), nil)
	t.mu.Unlock()
	err = t.store.commits.wait(round)
	if changed {
		t.store.notify(t.id, false)
	}
	return err
}

// adjustInterval is the documented time between two adjustments of a table's
// reserved throughput.
const adjustInterval = 2 * time.Minute

// checkAdjustment refuses an adjustment too soon after the previous one. t.mu
// is held.
func (t *Table) checkAdjustment() error {
	if since := t.store.now().Sub(t.adjusted); !t.adjusted.IsZero() && since >= 0 && since < adjustInterval {
		return wire.Errorf(wire.CodeTooFrequentAdjustment, "Capacity unit adjustment is too frequent.")
	}
	return nil
}

// enableStream opens a shard for each partition. t.mu is held.
func (t *Table) enableStream(spec StreamSpec) {
	now := t.store.now()
	t.stream = tunnels.StreamInfo{
		Enabled:    true,
		StreamID:   fmt.Sprintf("%s_%d", t.schema.Name, now.UnixMicro()),
		Expiration: spec.Expiration,
		EnabledAt:  now,
		Origin:     spec.Origin,
	}
	for _, p := range t.partitions {
		p.mu.Lock()
		p.shard = t.newShard(0, 0)
		p.mu.Unlock()
	}
}

// newShard adds an open shard. t.mu is held.
func (t *Table) newShard(epoch int32, after int64, parents ...*shard) *shard {
	t.shardCount++
	s := &shard{
		id:       fmt.Sprintf("%s_%06d", t.id, t.shardCount),
		epoch:    epoch,
		created:  t.store.now(),
		lastTime: after,
	}
	s.bucket = logBucketPrefix + s.id
	for _, p := range parents {
		s.parents = append(s.parents, p.id)
	}
	t.shards = append(t.shards, s)
	return s
}

// dropShards ends the stream and returns the mutations that remove its log from
// disk. t.mu is held.
func (t *Table) dropShards() []mutation {
	var gone []mutation
	for _, s := range t.shards {
		gone = append(gone, mutation{kind: dropBucket, bucket: s.bucket})
	}
	t.shards = nil
	for _, p := range t.partitions {
		p.mu.Lock()
		p.shard = nil
		p.mu.Unlock()
	}
	t.stream = tunnels.StreamInfo{}
	return gone
}
