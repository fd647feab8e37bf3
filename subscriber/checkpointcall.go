package subscriber

import (
	"context"
	"fmt"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
)

func (c *committer) getCheckpoint(ctx context.Context) (token string, sequence int64, err error) {
	defer c.metrics.calls.begins(time.Now())()
	err = c.call(ctx, "getcheckpoint", func(api *tunnel.TunnelApi) (err error) {
		token, sequence, err = api.GetCheckpoint(c.tunnelID, c.clientID, c.id)
		return err
	})
	return token, sequence, err
}

// call makes a call, and waits for its answer no longer than such answers usually take.
func (c *committer) call(ctx context.Context, op string, f func(api *tunnel.TunnelApi) error) error {
	timeout := c.patience.timeout(c.endpoint.Timeout)
	if c.until.IsZero() {
		defer func(asked time.Time) { c.patience.note(time.Since(asked), timeout) }(time.Now())
	} else {
		timeout = max(0, min(timeout, time.Until(c.until)))
	}
	return c.endpoint.CallWithin(ctx, op, timeout, f)
}

func (c *committer) commitFailed(err error) {
	c.lastErr = err
	if c.ctx.Err() == nil {
		c.callFailed("checkpoint", err)
	}
}

// callFailed counts and logs a failed call, which is retried.
func (c *committer) callFailed(op string, err error) {
	c.metrics.callFailed(op, err)
	c.failing = true
	told := c.channelError(op, err)
	begins := c.observer.callFailed(c.id, op, told)
	switch over := closed(c.draining) || c.observer.isStopping(); {
	case begins && over: // there may be no time for another try
		c.logger.Error("Channel call failed while the channel drains", told, callFields(op, err))
	case begins:
		c.logger.Error("Channel call failed; retrying", told, callFields(op, err))
	case over:
		c.logger.Debug("Channel call failed while the channel drains", callDetail(op, told))
	default:
		c.logger.Debug("Channel call failed; retrying", callDetail(op, told))
	}
}

// whyNotCommitted is the last failure of a commit, or why the ownership ended.
func (c *committer) whyNotCommitted() error {
	cause := context.Cause(c.ctx)
	switch {
	case c.lastErr == nil:
		return c.channelError("checkpoint", cause)
	case cause == errDrainOver: // which is about messages, and broke the call off
		return c.channelError("checkpoint", errNoLastCommit)
	}
	return c.channelError("checkpoint", c.lastErr)
}

var errNoLastCommit = fmt.Errorf("no answer within %v after CloseTimeout", lastCommitTimeout)
