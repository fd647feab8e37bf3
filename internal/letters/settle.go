package letters

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
)

// claim claims the letters that are to be handled, and returns those that it got.
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
		case rp.blocked[rp.key(k)]: // by a letter whose claim was lost
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

// unpack reads the packed letters, and returns the letters that are still to be handled.
func (rp *replay) unpack(ctx context.Context, letters []*kept) ([]*kept, error) {
	var whole, back []*kept
	for _, k := range letters {
		if rp.blocked[rp.key(k)] { // by a damaged letter
			rp.skip(k)
			back = append(back, k)
			continue
		}
		switch err := rp.Table.unpack(ctx, k); {
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

// damaged counts a letter whose parts are missing. If its row has other parts by now, the
// letter was written again, and it is not damaged.
func (rp *replay) damaged(ctx context.Context, k *kept, reason error) {
	if row, err := rp.Table.row(ctx, k.primaryKey(), columnFailedAt, columnParts); err == nil && (row == nil || row.texts[columnParts] != k.parts) {
		rp.skip(k)
		return
	}
	rp.foreign(k, reason)
}

// release removes the claims of letters, even if the Replay is being stopped.
func (rp *replay) release(ctx context.Context, letters []*kept) error {
	if len(letters) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), Timeout)
	defer cancel()
	return rp.claims.release(ctx, letters)
}

// settle stores the outcome of a letter.
func (rp *replay) settle(ctx context.Context, k *kept, err error) error {
	if err != nil && (ctx.Err() != nil || !rp.Counts(ctx, err)) {
		rp.skip(k)
		return rp.release(ctx, []*kept{k})
	}
	// A letter that was handled is removed even if the Replay is being stopped.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), Timeout)
	defer cancel()
	if err == nil {
		rp.count.Succeeded++
		err = rp.claims.remove(ctx, k)
	} else {
		rp.count.Failed++
		rp.block(k)
		err = rp.claims.putBack(ctx, k, err)
	}
	if errors.Is(err, errClaimLost) { // the other process decides about the letter
		rp.Table.logger.Info("A replayed letter stays as it is: "+err.Error(), watermill.LogFields{"table": rp.Table.name, "row": k.name()})
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

// keepRenewing renews the claims until ctx ends. When a lease ends it calls lapse: letters
// without a claim must not be handled any longer, since another Replay may begin with them.
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
