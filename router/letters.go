package router

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/watermill-ots/watermill-ots/internal/letters"
	"github.com/watermill-ots/watermill-ots/internal/service"
	"github.com/watermill-ots/watermill-ots/router/internal/keypath"
)

// letterStore keeps dead letters. Put returns when the letter is stored. It may be called
// several times with the same letter.
type letterStore interface {
	Put(ctx context.Context, letter *letters.Letter) error
}

var (
	_ letterStore = (*letters.Table)(nil)
	_ letterStore = (*letters.Topic)(nil)
)

// letterStore needs mu. It returns where the tunnel's dead letters go, nil for nowhere.
func (r *Router) letterStore(name string) letterStore {
	dl := r.cfg.Tunnels[name].Failure.DeadLetter
	switch {
	case dl == nil:
		return nil
	case dl.Topic != "":
		return &letters.Topic{Publisher: r.publishers[cmp.Or(dl.Publisher, DefaultPublisher)], Topic: dl.Topic}
	}
	return r.letterTable(name)
}

// letterTable needs mu. The tunnel has a dead-letter table.
func (r *Router) letterTable(name string) *letters.Table {
	t := r.cfg.Tunnels[name]
	at := cmp.Or(t.Failure.DeadLetter.Instance, t.Instance)
	in := r.cfg.Instances[at]
	return letters.NewTable(service.TableClient{
		Endpoint: in.Endpoint, Instance: in.Name, Region: in.Region,
		Transport: r.transports[at], Credentials: r.letterCredentials(at),
	}, t.Failure.DeadLetter.Table, r.logger.With(watermill.LogFields{"tunnel": name}))
}

// letterCredentials needs mu. It returns the cache that all letter tables of an instance
// share. Run closes it.
func (r *Router) letterCredentials(instance string) *service.CredentialsCache {
	c := r.letterKeys[instance]
	if c == nil {
		c = service.NewCredentialsCache(r.cfg.Instances[instance].provider(r.credentials), r.logger)
		if r.letterKeys == nil {
			r.letterKeys = make(map[string]*service.CredentialsCache)
		}
		r.letterKeys[instance] = c
	}
	return c
}

// prepareLetters creates missing dead-letter tables, and refuses tables that have another
// primary key. It does so before anything runs: when a letter has to be written it is too
// late to find out that it cannot be.
func (r *Router) prepareLetters(ctx context.Context) error {
	var errs []error
	for _, name := range names(r.pipelines) {
		if table, ok := r.pipelines[name].policy.letters.(*letters.Table); ok {
			if err := r.unlessStopping(table.Prepare(ctx)); err != nil {
				errs = append(errs, fmt.Errorf("%s.failure.dead_letter: %w", keypath.Join("tunnels", name), err))
			}
		}
	}
	return errors.Join(errs...)
}

// payloadLimiter is implemented by publishers that take only messages up to a
// size, whatever their settings. Zero means no limit.
type payloadLimiter interface{ MaxPayloadBytes() int }

// limitedLetters needs mu. It returns a fault if the tunnel's dead letters go to a publisher
// that cannot take all of them. A letter holds a whole row, whose size has no bound to
// compare a limit with.
func (r *Router) limitedLetters(name string) []Fault {
	dl := r.cfg.Tunnels[name].Failure.DeadLetter
	if dl == nil || dl.Topic == "" {
		return nil
	}
	pub := cmp.Or(dl.Publisher, DefaultPublisher)
	limited, ok := r.publishers[pub].(payloadLimiter)
	if !ok || limited.MaxPayloadBytes() == 0 {
		return nil
	}
	at := keypath.Join("tunnels", name, "failure", "dead_letter")
	return []Fault{{Path: at, Text: fmt.Sprintf("the publisher called %s takes messages of at most %d bytes, but a dead letter holds a whole row and may be larger: it could never be kept; use dead_letter.table, which keeps letters of any size",
		r.cfg.source.Show(keypath.Join(at, "publisher"), pub), limited.MaxPayloadBytes())}}
}
