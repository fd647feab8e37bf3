package subscriber

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/watermill-ots/watermill-ots/internal/tunnelapi"
)

// retentionMargin is the part of the retention in which the alarm is raised: its last tenth.
const retentionMargin = 10

// retention is how long the table's stream keeps records, as far as it is known.
type retention struct {
	known atomic.Int64 // nanoseconds; 0 while unknown
	asked bool         // belongs to watchRetention: it was logged that asking failed
}

func (r *retention) load() time.Duration { return time.Duration(r.known.Load()) }

// watchRetention raises RetentionNear for channels that are so far behind that the
// log will soon be cut off before they have read it. It checks positions, not
// at records: a channel that cannot be read, and one that was lost with the
// connection, fall behind as well. It ends with ctx.
func (s *subscription) watchRetention(ctx context.Context) {
	ticks := time.NewTicker(max(s.cfg.StuckAfter/checksPerStuck, time.Millisecond))
	defer ticks.Stop()
	raised := make(map[string]time.Time) // by channel
	for ask := s.readRetention(ctx); ; {
		select {
		case <-ticks.C:
		case <-ctx.Done():
			return
		}
		if ask && s.retention.load() == 0 {
			ask = s.readRetention(ctx)
		}
		for _, a := range s.retentionAlarms(time.Now()) {
			// As often as other alarms: again when that much more has passed.
			if now := time.Now(); raised[a.Channel].IsZero() || now.Sub(raised[a.Channel]) >= s.cfg.StuckAfter {
				raised[a.Channel] = now
				s.observer.alarm(s.logger.With(watermill.LogFields{"channel_id": a.Channel}), &a)
			}
		}
	}
}

// retentionAlarms returns the alarms that are due, whenever the last ones were raised.
func (s *subscription) retentionAlarms(now time.Time) (alarms []Alarm) {
	retention := s.retention.load()
	if retention <= 0 || s.tunnelType == BaseData {
		return nil
	}
	limit := retention - retention/retentionMargin
	st, left := s.statusAndLeft(now)
	for _, c := range st.Channels {
		if c.Base || c.Lag < limit { // base data is not in the log
			continue
		}
		a := Alarm{Kind: RetentionNear, Topic: s.topic, Channel: c.ID, Age: c.Lag, Retention: retention}
		if c.Oldest != nil {
			a.Key, a.Attempt = c.Oldest.Key, c.Oldest.Attempts
		}
		alarms = append(alarms, a)
	}
	for id, l := range left {
		if age := now.Sub(l.from()); !l.base && age >= limit {
			alarms = append(alarms, Alarm{Kind: RetentionNear, Topic: s.topic, Channel: id, Age: age, Retention: retention})
		}
	}
	if !st.Connected && len(left) == 0 && len(st.Channels) == 0 && st.Lag >= limit { // it was never connected, or had no channel
		alarms = append(alarms, Alarm{Kind: RetentionNear, Topic: s.topic, Age: st.Lag, Retention: retention})
	}
	return alarms
}

// readRetention asks the service how long the table's stream keeps records. It
// is only for an alarm: when the key may not describe the table, there is none. It
// reports whether to ask again later.
func (s *subscription) readRetention(ctx context.Context) (again bool) {
	retention, err := streamRetention(ctx, s.endpoint, s.table)
	if err != nil {
		if ctx.Err() == nil && !s.retention.asked {
			s.logger.Info("Cannot find out how long the stream keeps records; until that succeeds there is no alarm when they get too old", withStack(watermill.LogFields{"err": err.Error()}, err))
		}
		s.retention.asked = true
		return true
	}
	s.retention.known.Store(int64(retention))
	return false
}

// streamRetention returns the retention of a table's stream, zero if it has none.
func streamRetention(ctx context.Context, e *tunnelapi.Client, table string) (retention time.Duration, err error) {
	err = e.TableClient().Call(ctx, "DescribeTable", func(sdk *tablestore.TableStoreClient) error {
		resp, err := sdk.DescribeTable(&tablestore.DescribeTableRequest{TableName: table})
		if err != nil {
			return err
		}
		if stream := resp.StreamDetails; stream != nil && stream.EnableStream {
			retention = time.Duration(stream.ExpirationTime) * time.Hour
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("describing table %s: %w", table, err)
	}
	return retention, nil
}
