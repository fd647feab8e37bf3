package verify

import (
	"fmt"

	"github.com/watermill-ots/watermill-ots/internal/service"
)

func sequenceNumberIsExact(p *probe) error {
	c, channel, token, sequence, err := p.streaming(p.kit.name(""))
	if err != nil {
		return err
	}
	for _, wrong := range []int64{sequence + 2, sequence} {
		switch err := c.store(channel, token, wrong); {
		case err == nil:
			return refuted("a checkpoint with number %d was taken when %d was stored.", wrong, sequence)
		case classOf(err) != service.Mismatch:
			return refuted("number %d after %d: %v", wrong, sequence, err)
		}
	}
	return c.store(channel, token, sequence+1)
}

func loserCannotStore(p *probe) error {
	loser, channel, token, sequence, err := p.streaming(p.kit.name(""))
	if err != nil {
		return err
	}
	winner, err := p.connect(loser.tunnel, "ots-verify")
	if err != nil {
		return err
	}
	// The first client is silent until the service gives its channel away, as one is that was
	// suspended. What it does after that comes too late.
	given, err := winner.until(func() bool { return winner.held[channel] != nil })
	if err != nil {
		return err
	}
	if !given {
		return fmt.Errorf("the second client did not get the channel of the silent one within %v", p.kit.cfg.Patience)
	}
	err = loser.store(channel, token, sequence+1)
	if err == nil {
		return refuted("the checkpoint of the client that had lost the channel was taken.")
	}
	if class := classOf(err); answerOf(err) != nil && (class == service.Lost || class == service.Mismatch) {
		p.note("answered with %s", answerOf(err).Code)
		return nil
	}
	return err
}

func checkpointMayGoBack(p *probe) error {
	c, channel, first, sequence, err := p.streaming(p.kit.name(""))
	if err != nil {
		return err
	}
	if err := p.write(0, 2); err != nil {
		return err
	}
	_, later, err := c.readUntil(channel, first, 2)
	if err != nil {
		return err
	}
	if err := c.store(channel, later, sequence+1); err != nil {
		return err
	}
	if err := c.store(channel, first, sequence+2); err != nil {
		if answerOf(err) == nil {
			return err
		}
		return refuted("%v", err)
	}
	token, _, err := c.stored(channel)
	if err == nil && token != first {
		return refuted("the older token was taken, and another one is stored.")
	}
	return err
}
