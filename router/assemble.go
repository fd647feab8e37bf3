package router

import (
	"cmp"
	"fmt"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/cenkalti/backoff/v4"

	"github.com/watermill-ots/watermill-ots/router/internal/keypath"
	"github.com/watermill-ots/watermill-ots/router/internal/strictyaml"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// assemble builds the pipelines of all enabled tunnels.
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

// missing needs mu. It returns what the tunnel's pipeline lacks.
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

// pipeline needs mu. It returns the tunnel's pipeline, and builds it if needed.
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

// parts needs mu. It returns what the tunnel's pipeline is built from.
func (r *Router) parts(name string) parts {
	return parts{
		name:        name,
		cfg:         r.cfg.Tunnels[name],
		handlers:    r.handlers[name],
		middlewares: r.middlewares,
		publishers:  r.publishers,
		letters:     r.letterStore(name),
		onBatch:     r.onBatch[name],
		stops:       r.stops,
		end:         func(err error) { r.brakePipeline(name, err) },
		logger:      r.logger.With(watermill.LogFields{"tunnel": name}),
	}
}

// subscriberConfig needs mu. It returns a tunnel's configuration as the subscriber's type.
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
		OnPhase:             r.handlers[name].Phase,
		Preset:              subscriber.Preset(t.Preset),
		ClientTag:           t.ClientTag,
		ExpectedClients:     t.ExpectedClients,
		TunnelViewInterval:  t.TunnelViewInterval,
		OnGap:               t.onGap(),
		Lookup:              t.lookup(),
		LookupColumns:       t.lookupColumns(),
		Tunnel: subscriber.TunnelSpec{
			Type: subscriber.TunnelType(t.Tunnel.Type), Start: start, Earliest: earliest, End: t.Tunnel.End,
		},
	}
}

// backoff returns the pauses between the attempts of a message.
func (f Failure) backoff() backoff.BackOff {
	return backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(cmp.Or(f.BackoffInitial, DefaultBackoffInitial)),
		backoff.WithMaxInterval(cmp.Or(f.BackoffMax, DefaultBackoffMax)),
		backoff.WithMultiplier(2),
		backoff.WithRandomizationFactor(0.2),
		backoff.WithMaxElapsedTime(0),
	)
}
