package router

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/cenkalti/backoff/v4"

	"github.com/watermill-ots/watermill-ots/internal/service"
	"github.com/watermill-ots/watermill-ots/router/internal/keypath"
	"github.com/watermill-ots/watermill-ots/router/internal/strictyaml"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// assemble makes the pipelines of all tunnels that are enabled.
func (r *Router) assemble() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var faults []Fault
	for _, name := range r.cfg.enabled() {
		faults = append(faults, r.missing(name)...)
	}
	if err := r.faulty(faults...); err != nil {
		return err
	}
	for _, name := range r.cfg.enabled() {
		if _, err := r.pipeline(name); err != nil {
			return err
		}
	}
	return nil
}

// missing needs mu. It returns what the tunnel's pipeline still lacks.
func (r *Router) missing(name string) []Fault {
	t, path := r.cfg.Tunnels[name], keypath.Join("tunnels", name)
	var faults []Fault
	lacks := func(at, kind, missing string, registered []string, register string) {
		faults = append(faults, Fault{Path: at, Text: fmt.Sprintf("no %s called %s is registered (%s)%s", kind, r.cfg.source.Show(at, missing), register, strictyaml.Suggest(missing, registered, "registered names"))})
	}
	if h, ok := r.handlers[name]; !ok && len(h.check(name, t)) > 0 {
		faults = append(faults, Fault{Path: path, Text: fmt.Sprintf("has no handlers; call Handle(%q, ...) before Run", name)})
	}
	for _, to := range t.targets() {
		if r.publishers[to.publisher] == nil {
			lacks(keypath.Join(path, to.keys...), "publisher", to.publisher, names(r.publishers), "RegisterPublisher")
		}
	}
	faults = append(faults, r.limitedLetters(name)...)
	if format := cmp.Or(t.Payload, DefaultPayload); r.payloads[format] == nil {
		lacks(keypath.Join(path, "payload"), "payload format", format, names(r.payloads), "RegisterPayload")
	}
	instances := []string{t.Instance}
	if dl := t.Failure.DeadLetter; dl != nil && dl.Instance != "" && dl.Instance != t.Instance {
		instances = append(instances, dl.Instance)
	}
	for _, in := range instances {
		if provider := r.cfg.Instances[in].Credentials; provider != "" && r.credentials[provider] == nil {
			lacks(keypath.Join("instances", in, "credentials"), "credentials provider", provider, names(r.credentials), "RegisterCredentials")
		}
	}
	return faults
}

// pipeline needs mu. It returns the tunnel's pipeline, and makes it if need be.
func (r *Router) pipeline(name string) (*pipeline, error) {
	if p := r.pipelines[name]; p != nil {
		return p, nil
	}
	p, err := newPipeline(r.parts(name))
	if err != nil {
		return nil, err
	}
	r.pipelines[name] = p
	return p, nil
}

// parts needs mu. It collects what the tunnel's pipeline is made of.
func (r *Router) parts(name string) parts {
	return parts{
		name:        name,
		cfg:         r.cfg.Tunnels[name],
		handlers:    r.handlers[name],
		middlewares: r.middlewares,
		publishers:  r.publishers,
		letters:     r.letters(name),
		onBatch:     r.onBatch[name],
		stops:       r.stops,
		end:         func(err error) { r.brakePipeline(name, err) },
		logger:      r.logger.With(watermill.LogFields{"tunnel": name}),
	}
}

// letters needs mu. It returns where the tunnel's dead letters go, nil for nowhere.
func (r *Router) letters(name string) letterbox {
	dl := r.cfg.Tunnels[name].Failure.DeadLetter
	switch {
	case dl == nil:
		return nil
	case dl.Topic != "":
		return &topicLetters{publisher: r.publishers[cmp.Or(dl.Publisher, DefaultPublisher)], topic: dl.Topic}
	}
	return r.letterTable(name)
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

// letterTable needs mu. The tunnel has a dead-letter table.
func (r *Router) letterTable(name string) *tableLetters {
	t := r.cfg.Tunnels[name]
	at := t.deadLetterInstance()
	in := r.cfg.Instances[at]
	return &tableLetters{
		client: &tableClient{service.TableClient{
			Endpoint: in.Endpoint, Instance: in.Name, Region: in.Region,
			Transport: r.transports[at], Credentials: r.letterCredentials(at), Timeout: tableCallTimeout,
		}},
		table:  t.Failure.DeadLetter.Table,
		logger: r.logger.With(watermill.LogFields{"tunnel": name}),
	}
}

// prepareLetters creates dead-letter tables that are missing, and refuses those that have another key. It does so before
// anything runs: when a letter has to be written it would be too late to find out
// that it cannot be done.
func (r *Router) prepareLetters(ctx context.Context) error {
	var errs []error
	for _, name := range names(r.pipelines) {
		if table, ok := r.pipelines[name].policy.letters.(*tableLetters); ok {
			if err := r.unlessStopping(table.prepare(ctx)); err != nil {
				errs = append(errs, fmt.Errorf("%s.failure.dead_letter: %w", keypath.Join("tunnels", name), err))
			}
		}
	}
	return errors.Join(errs...)
}

// subscriberConfig needs mu. It is the subscriber's form of a tunnel's configuration.
func (r *Router) subscriberConfig(name string) subscriber.Config {
	t := r.cfg.Tunnels[name]
	in := r.cfg.Instances[t.Instance]
	start, earliest, _ := t.Tunnel.start() // checked by New
	return subscriber.Config{
		Endpoint: in.Endpoint, Instance: in.Name,
		AccessKeyID: in.AccessKeyID, AccessKeySecret: in.AccessKeySecret, SecurityToken: in.SecurityToken,
		Credentials:         r.credentials[in.Credentials],
		SignatureVersion:    in.signatureVersion(),
		Region:              in.Region,
		AllowInsecure:       in.AllowInsecure,
		Transport:           r.transports[t.Instance],
		WorkerSize:          t.WorkerSize,
		HeartbeatInterval:   t.HeartbeatInterval,
		HeartbeatTimeout:    t.HeartbeatTimeout,
		Ordering:            t.ordering(),
		MaxInFlight:         t.MaxInFlight,
		MaxInFlightBytes:    t.MaxInFlightBytes,
		Unmarshaler:         r.payloads[cmp.Or(t.Payload, DefaultPayload)],
		CheckpointInterval:  t.CheckpointInterval,
		MinPollInterval:     t.MinPollInterval,
		MaxPollInterval:     t.MaxPollInterval,
		EmptyReadsPerSecond: t.EmptyReadsPerSecond,
		CloseTimeout:        t.CloseTimeout,
		NackBackoff:         t.Failure.backoff,
		OnAck:               r.onAck(),
		Preset:              subscriber.Preset(t.Preset),
		ClientTag:           t.ClientTag,
		ExpectedClients:     t.ExpectedClients,
		TunnelViewInterval:  t.TunnelViewInterval,
		Tunnel: subscriber.TunnelSpec{
			Type: subscriber.TunnelType(t.Tunnel.Type), Start: start, Earliest: earliest, End: t.Tunnel.End,
		},
	}
}

// backoff makes the pauses between two attempts of a message.
func (f Failure) backoff() backoff.BackOff {
	return backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(cmp.Or(f.BackoffInitial, DefaultBackoffInitial)),
		backoff.WithMaxInterval(cmp.Or(f.BackoffMax, DefaultBackoffMax)),
		backoff.WithMultiplier(2),
		backoff.WithRandomizationFactor(0.2),
		backoff.WithMaxElapsedTime(0),
	)
}
