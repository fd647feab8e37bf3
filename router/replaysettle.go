package router

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/watermill-ots/watermill-ots/ack"
	"github.com/watermill-ots/watermill-ots/batching"
)

// claim returns those of the letters that are to be handled and that this Replay has claimed.
func (rp *replay) claim(ctx context.Context, letters []*kept) ([]*kept, error) {
	var wanted []*kept
	for _, k := range letters {
		switch {
		case k.foreign != nil:
			rp.foreign(k, k.foreign)
		case rp.blocked[rp.key(k)] || k.claimed(time.Now()):
			rp.skip(k)
		default:
			wanted = append(wanted, k)
		}
	}
	if len(wanted) == 0 {
		return nil, nil
	}
	lost, err := rp.claims.take(ctx, wanted)
	if err != nil {
		return nil, errors.Join(err, rp.release(ctx, wanted))
	}
	var held, back []*kept
	for _, k := range wanted {
		switch {
		case lost[k]:
			rp.skip(k)
		case rp.blocked[rp.key(k)]: // by one that was lost
			rp.skip(k)
			back = append(back, k)
		default:
			held = append(held, k)
		}
	}
	if err := rp.release(ctx, back); err != nil {
		return nil, errors.Join(err, rp.release(ctx, held))
	}
	return held, nil
}

// unpack reads what is packed of the letters, and returns those that are still to be handled.
func (rp *replay) unpack(ctx context.Context, letters []*kept) ([]*kept, error) {
	var whole, back []*kept
	for _, k := range letters {
		if rp.blocked[rp.key(k)] { // by a damaged one
			rp.skip(k)
			back = append(back, k)
			continue
		}
		switch err := rp.table.unpack(ctx, k); {
		case errors.Is(err, errDamaged):
			rp.damaged(ctx, k, err)
			back = append(back, k)
		case err != nil:
			return letters, err
		default:
			whole = append(whole, k)
		}
	}
	if err := rp.release(ctx, back); err != nil {
		return letters, err
	}
	return whole, nil
}

// damaged counts a letter whose parts were not there. They are deleted in good
// order when the letter is written anew.
func (rp *replay) damaged(ctx context.Context, k *kept, reason error) {
	if row, err := rp.table.row(ctx, k.primaryKey(), columnFailedAt, columnParts); err == nil && (row == nil || row.texts[columnParts] != k.parts) {
		rp.skip(k)
		return
	}
	rp.foreign(k, reason)
}

// release gives letters back, also if the Replay is being stopped.
func (rp *replay) release(ctx context.Context, letters []*kept) error {
	if len(letters) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), letterTimeout)
	defer cancel()
	return rp.claims.release(ctx, letters)
}

// notItsOwn reports whether a letter failed only because others did, or because
// nothing works: that does not count as another attempt.
func notItsOwn(err error) bool {
	var f *batching.Failure
	return ack.IsTransient(err) || errors.As(err, &f) && !f.Alone
}

// settle writes down what became of a letter.
func (rp *replay) settle(ctx context.Context, k *kept, err error) error {
	stopped := ctx.Err() != nil
	if err != nil && (stopped || errors.Is(err, ack.ErrCalledBack) || verdictOf(ctx, err) == interrupted || notItsOwn(err)) {
		rp.skip(k)
		return rp.release(ctx, []*kept{k})
	}
	// What was handled is removed even if the replay is being stopped.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), letterTimeout)
	defer cancel()
	if err == nil {
		rp.count.Succeeded++
		err = rp.claims.remove(ctx, k)
	} else {
		rp.count.Failed++
		rp.block(k)
		err = rp.claims.putBack(ctx, k, err)
	}
	if errors.Is(err, errClaimLost) { // what happened to it there counts
		rp.table.logger.Info("A replayed letter stays as it is: "+err.Error(), watermill.LogFields{"table": rp.table.table, "row": k.name()})
		return nil
	}
	return err
}

// keeping renews the claims of letters until it is ended.
type keeping struct {
	cancel context.CancelFunc
	done   sync.WaitGroup
}

// keep renews the claims of letters while they are handled. The returned context ends
// with ctx, with end, and when the claims could not be renewed in time.
func (c *claims) keep(ctx context.Context, letters []*kept) (context.Context, *keeping) {
	ctx, lapse := context.WithCancelCause(ctx)
	// A Replay that is being stopped keeps renewing until every outcome is stored.
	renewing, cancel := context.WithCancel(context.WithoutCancel(ctx))
	k := &keeping{cancel: func() { cancel(); lapse(context.Canceled) }}
	taken := c.taken
	k.done.Go(func() { // ends with cancel; end waits for it
		c.keepRenewing(renewing, letters, taken, lapse)
	})
	return ctx, k
}

// keepRenewing works until ctx ends, or a lease does: letters whose claims ended must not be handled
// any further, since another Replay may begin with them.
func (c *claims) keepRenewing(ctx context.Context, letters []*kept, renewed time.Time, lapse context.CancelCauseFunc) {
	ticker := time.NewTicker(c.lease / 4)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		begun := time.Now()
		call, cancel := context.WithDeadline(ctx, renewed.Add(c.lease))
		err := c.renew(call, letters)
		cancel()
		switch {
		case err == nil:
			renewed = begun
		case ctx.Err() == nil && time.Since(renewed) > c.lease*3/4:
			lapse(fmt.Errorf("the claims of %d letters could not be renewed: %w", len(letters), err))
			return
		}
	}
}

// end stops the renewing and waits for it.
func (k *keeping) end() {
	k.cancel()
	k.done.Wait()
}
