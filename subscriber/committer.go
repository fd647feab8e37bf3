package subscriber

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"github.com/cenkalti/backoff/v4"

	"github.com/watermill-ots/watermill-ots/internal/tunnelapi"
)

// committer stores the checkpoints of one channel. All of its fields belong to the goroutine
// of channelRun.main.
//
// Invariants:
//   - stored and sequence are the last checkpoint that the service is known to have.
//   - Only a token whose records are all acked is stored (law L1): the tracker names it.
//   - Nothing is stored once the ownership has ended.
type committer struct {
	*ownership

	stored   string    // token of the last stored checkpoint
	sequence int64     // and its number
	failing  bool      // a checkpoint call failed, or none was made yet
	lastErr  error     // of the last commit that failed
	until    time.Time // the end of the last commit's time; zero before it
	patience patience  // of checkpoint calls

	every  *time.Timer     // fires when the next commit is due
	pauses backoff.BackOff // after failed commits; nil while they succeed
}

// open reads the channel's stored token and sequence number, for as long as it takes. It
// fails when ctx ends or the channel is fenced, at once then, or when the service does not
// know the channel.
func (c *committer) open(ctx context.Context) (token string, err error) {
	pauses := c.cfg.ReadBackoff()
	for {
		token, c.sequence, err = c.getCheckpoint(ctx)
		if err == nil {
			c.stored, c.failing = token, true
			c.observer.callSucceeded(c.id, "getcheckpoint")
			c.metrics.begins(isBase(token))
			return token, nil
		}
		if ctx.Err() != nil {
			return "", err
		}
		switch tunnelapi.Classify(err) {
		case notOurs:
			c.metrics.callFailed("getcheckpoint", err)
			c.refused("getcheckpoint", err)
			return "", err
		case fatal:
			c.callFailed("getcheckpoint", err)
			return "", err
		}
		c.callFailed("getcheckpoint", err)
		if !sleep(ctx, nextPause(pauses)) {
			return "", err
		}
	}
}

// schedule starts the timer of commits. The first one comes at any time, lest channels that were
// opened together commit together, each on a connection of its own.
func (c *committer) schedule() { c.every = time.NewTimer(rand.N(c.cfg.CheckpointInterval) + 1) }

// scheduled makes the commit that was due at the time given.
func (c *committer) scheduled(now time.Time) {
	if err := c.commit(); err != nil {
		c.commitFailed(err)
		if c.pauses == nil {
			c.pauses = c.cfg.ReadBackoff()
		}
		c.every.Reset(pauseAfter(c.pauses, err))
		return
	}
	c.pauses = nil
	c.every.Reset(max(0, c.cfg.CheckpointInterval-time.Since(now)))
	c.metrics.committed.Store(now.UnixNano())
}

// commit stores the newest token whose records are all acked, if it is not stored yet.
func (c *committer) commit() error {
	token, position, ok := c.tracker.Committable()
	if !ok {
		return nil
	}
	return c.store(token, position)
}

// commitEnd commits until that succeeds. It is false when the channel is fenced or drains
// before.
func (c *committer) commitEnd() bool {
	pauses := c.cfg.ReadBackoff()
	for {
		err := c.commit()
		if err == nil {
			return true
		}
		c.commitFailed(err)
		select {
		case <-c.ctx.Done():
			return false
		case <-c.draining:
			return false
		case <-time.After(pauseAfter(pauses, err)):
		}
	}
}

// commitLast stores the last checkpoint of a channel that drains, and takes lastCommitTimeout for it
// at most.
func (c *committer) commitLast(token string, position uint64) (stored bool) {
	pauses := c.cfg.ReadBackoff()
	c.until = time.Now().Add(lastCommitTimeout)
	for {
		err := c.store(token, position)
		if err == nil {
			return true
		}
		c.commitFailed(err)
		if c.ctx.Err() != nil {
			return false
		}
		pause := pauseAfter(pauses, err)
		if time.Now().Add(pause).After(c.until) || !sleep(c.ctx, pause) {
			return false
		}
	}
}

// store makes one checkpoint call. The service takes it only with the stored
// sequence number + 1 [docs/protocol.md, Checkpoints], so a checkpoint that was stored although its answer was lost
// makes the next one fail with a mismatch: reading it back tells which.
func (c *committer) store(token string, position uint64) error {
	if token == c.stored { // an idle channel's empty pages may all have one token
		c.tracker.Committed(position)
		return nil
	}
	c.isOver(time.Now()) // the process was suspended: it is for others to say what is committed
	if c.ctx.Err() != nil {
		return context.Cause(c.ctx)
	}
	err := c.call(c.ctx, "checkpoint", func(api *tunnel.TunnelApi) error {
		return api.Checkpoint(c.tunnelID, c.clientID, c.id, token, c.sequence+1)
	})
	switch tunnelapi.Classify(err) {
	case mismatch:
		stored, sequence, readErr := c.getCheckpoint(c.ctx)
		if readErr != nil {
			return readErr
		}
		c.stored, c.sequence = stored, sequence
		if stored != token {
			return err
		}
	case notOurs:
		c.lastErr = err
		c.metrics.callFailed("checkpoint", err)
		c.refused("checkpoint", err)
		return err
	default:
		if err != nil {
			return err
		}
		c.stored = token
		c.sequence++
	}
	c.tracker.Committed(position)
	if c.failing {
		c.failing = false
		c.observer.callSucceeded(c.id, "checkpoint", "getcheckpoint")
	}
	c.reopen.recovered(c.id, "checkpoint")
	c.metrics.calls.commitSucceeded()
	c.metrics.counts.inc(countCheckpoints)
	c.logger.Trace("Checkpoint stored", watermill.LogFields{"position": position, "sequence_number": c.sequence})
	return nil
}

// isBase reports whether a token is one of base data: it has no iterator. A
// token that does not decode counts as one of the stream, as in the SDK [docs/protocol.md, Tokens].
func isBase(token string) bool {
	content, err := tunnel.ParseRequestToken(token)
	return err == nil && content.GetIterator() == ""
}
