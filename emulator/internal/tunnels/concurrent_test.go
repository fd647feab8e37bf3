package tunnels

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestConcurrentClients(t *testing.T) {
	t.Run("read and commit in parallel while shards are split and the service saves", func(t *testing.T) {
		b := newBench(t)
		b.cfg.MaxRows = 7
		b.restart()
		b.src.createTable("tbl", "d", "h", "l")
		id := b.create(both)
		const writes = 2000
		var mu sync.Mutex
		committed := make(map[string][]string)
		total := 0
		done := func() bool {
			mu.Lock()
			defer mu.Unlock()
			return total >= writes
		}
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() { // ends when all rows are committed; the test waits for it
				c := b.connect(id)
				for !done() {
					if err := c.tryHeartbeat(); err != nil {
						t.Errorf("heartbeat: %v", err)
						return
					}
					for _, ch := range sortedKeys(c.channels) {
						if c.channels[ch].GetStatus() == statusClosing {
							c.set(ch, statusClose)
							continue
						}
						if c.channels[ch].GetStatus() != statusOpen {
							continue
						}
						rows, finished := c.drain(ch)
						if finished {
							c.set(ch, statusTerminated)
						}
						mu.Lock()
						committed[ch] = append(committed[ch], rows...)
						if !strings.HasPrefix(ch, baseChannelPrefix) {
							total += len(rows)
						}
						mu.Unlock()
					}
				}
			})
		}
		for i := range writes {
			b.src.put("tbl", string(rune('a'+i%16)), fmt.Sprint(i))
			if i%300 == 299 {
				at := "bfjncg"[i/300 : i/300+1]
				open := b.src.open("tbl")
				n := slices.IndexFunc(open, func(s *fakeShard) bool { return s.start < at && (s.end == "" || at < s.end) })
				b.src.split("tbl", open[n].ID, at)
				b.must(b.s.Rebalance(id))
			}
		}
		wg.Wait()
		for _, ch := range b.s.Snapshot()[0].Channels {
			if ch.Type == channelTypeBase {
				continue
			}
			var want []string
			for _, r := range b.src.tables["tbl"].shard(ch.ChannelID).log {
				want = append(want, r.row)
			}
			if !slices.Equal(committed[ch.ChannelID], want) {
				t.Errorf("%s: %d rows, want %d", ch.ChannelID, len(committed[ch.ChannelID]), len(want))
			}
		}
	})
	t.Run("share one save", func(t *testing.T) {
		b, id := streamBench(t, 8)
		c := b.connect(id)
		c.heartbeat()
		tokens := make(map[string]string)
		for ch := range c.channels {
			token, _, err := c.getCheckpoint(ch)
			b.must(err)
			tokens[ch] = token
		}
		started, release := make(chan struct{}, 8), make(chan struct{})
		b.src.onSave = func() { started <- struct{}{}; <-release }
		saves := b.src.saves
		var wg sync.WaitGroup
		commit := func(ch string) {
			wg.Go(func() { // the test waits for it
				if err := c.checkpoint(ch, tokens[ch], 1); err != nil {
					t.Errorf("checkpoint: %v", err)
				}
			})
		}
		channels := sortedKeys(tokens)
		commit(channels[0])
		<-started
		for _, ch := range channels[1:] {
			commit(ch)
		}
		for { // until all of them are waiting
			b.s.journal.mu.Lock()
			added, saved := b.s.journal.added, b.s.journal.saved
			b.s.journal.mu.Unlock()
			if added == saved+8 {
				break
			}
			time.Sleep(time.Millisecond)
		}
		close(release)
		wg.Wait()
		if got := b.src.saves - saves; got != 2 {
			t.Errorf("%d saves for 8 checkpoints, want 2", got)
		}
	})
}
