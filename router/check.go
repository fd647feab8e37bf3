package router

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/internal/service"
	"github.com/watermill-ots/watermill-ots/router/internal/keypath"
	"github.com/watermill-ots/watermill-ots/router/internal/strictyaml"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// check returns the faults in cfg that can be found without the service and without
// code: bounds, missing values and references. They are in no particular order, and
// have no file and line.
func check(cfg Config) []Fault {
	c := checker{cfg: cfg, instances: names(cfg.Instances), consumers: make(map[consumed]string)}
	for _, f := range strictyaml.Check(cfg) {
		c.fault(f.Path, "%s", f.Text)
	}
	for _, name := range c.instances {
		c.instance(keypath.Join("instances", name), cfg.Instances[name])
	}
	for _, name := range names(cfg.Tunnels) {
		c.tunnel(keypath.Join("tunnels", name), name, cfg.Tunnels[name])
	}
	c.letters()
	return c.faults
}

type checker struct {
	cfg       Config
	instances []string            // their names, sorted
	consumers map[consumed]string // the first checked pipeline of each tunnel
	faults    []Fault
}

// consumed identifies a tunnel at the service.
type consumed struct{ instance, topic string }

// atService returns what identifies an instance at the service, independent of its name in the
// file.
func (c *checker) atService(instance string) string {
	in, ok := c.cfg.Instances[instance]
	if !ok {
		return instance
	}
	return strings.TrimRight(in.Endpoint, "/") + " " + in.Name
}

func (c *checker) fault(path, format string, args ...any) {
	c.faults = append(c.faults, Fault{Path: path, Text: fmt.Sprintf(format, args...)})
}

// because sets the paths from which the latest fault follows.
func (c *checker) because(paths ...string) {
	c.faults[len(c.faults)-1].because = paths
}

func (c *checker) instance(path string, in Instance) {
	if in.Endpoint != "" {
		c.endpoint(keypath.Join(path, "endpoint"), in)
	}
	switch keys := in.AccessKeyID != "" || in.AccessKeySecret != "" || in.SecurityToken != ""; {
	case in.Credentials != "" && keys:
		c.fault(keypath.Join(path, "credentials"), "excludes access_key_id, access_key_secret and security_token; keep one or the other")
	case in.Credentials == "" && in.AccessKeyID == "":
		c.fault(keypath.Join(path, "access_key_id"), "is missing; set it, or name a provider in credentials")
	}
	if in.Credentials == "" && in.AccessKeySecret == "" {
		c.fault(keypath.Join(path, "access_key_secret"), "is missing; set it, or name a provider in credentials")
	}
	c.signature(path, in)
	if in.PoolMaxOverflow > 0 && in.PoolSize == 0 {
		c.fault(keypath.Join(path, "pool_max_overflow"), "has no effect without pool_size; set that too")
		c.because(keypath.Join(path, "pool_size"))
	}
}

func (c *checker) endpoint(path string, in Instance) {
	switch fault, _ := service.CheckEndpoint(in.Endpoint, in.AllowInsecure); fault {
	case service.EndpointMalformed, service.EndpointNoHost:
		c.fault(path, `must be a URL such as https://my-instance.cn-hangzhou.ots.aliyuncs.com`)
	case service.EndpointHasMore:
		c.fault(path, "must have nothing before or after the host: no user, path, query or fragment")
	case service.EndpointPlain:
		c.fault(path, "is http:// to another machine; use https://, or set allow_insecure: true")
	}
}

const (
	tableNameRule  = "is %s; a table's name has " + service.TableNameRule
	tunnelNameRule = "is %s; a tunnel's name has " + service.TunnelNameRule
)

func (c *checker) tunnel(path, name string, t Tunnel) {
	c.reference(keypath.Join(path, "instance"), t.Instance)
	if t.TableName != "" && !service.IsTableName(t.TableName) {
		c.fault(keypath.Join(path, "table_name"), tableNameRule, c.cfg.source.Show(keypath.Join(path, "table_name"), t.TableName))
	}
	if at := keypath.Join(path, "tunnel_name"); t.TunnelName != "" && !service.IsTunnelName(t.TunnelName) {
		c.fault(at, tunnelNameRule, c.cfg.source.Show(at, t.TunnelName))
	}
	if at := keypath.Join(path, "client_tag"); !service.ValidClientTag(t.ClientTag) {
		c.fault(at, "is %s; use at most %d printable ASCII characters", c.cfg.source.Show(at, t.ClientTag), service.MaxClientTag)
	}
	c.consumer(path, name, t)
	interval, timeout := subscriber.Config{Preset: subscriber.Preset(t.Preset), HeartbeatInterval: t.HeartbeatInterval, HeartbeatTimeout: t.HeartbeatTimeout}.Heartbeats()
	if least := service.MinHeartbeatTimeout(interval); timeout >= time.Second && timeout.Truncate(time.Second) < least {
		at := "heartbeat_timeout"
		if t.HeartbeatTimeout == 0 {
			at = "heartbeat_interval"
		}
		c.fault(keypath.Join(path, at), "heartbeat_timeout is %v and heartbeat_interval %v: the timeout, in whole seconds, must be at least %v, or one heartbeat without an answer loses the channels; three times the interval is a good choice", timeout, interval, least)
		c.because(keypath.Join(path, "heartbeat_timeout"), keypath.Join(path, "heartbeat_interval"))
	}
	c.polls(path, t)
	c.lookup(path, t)
	c.spec(keypath.Join(path, "tunnel"), t.Tunnel)
	c.onGap(keypath.Join(path, "tunnel"), keypath.Join(path, "on_gap"), t)
	inFlight := cmp.Or(t.MaxInFlight, subscriber.DefaultMaxInFlight)
	for _, b := range names(t.Batchers) {
		at := keypath.Join(path, "batchers", b)
		c.batcher(at, t.Batchers[b])
		if size := cmp.Or(t.Batchers[b].BatchSize, batching.DefaultSize); size > inFlight {
			c.fault(keypath.Join(at, "batch_size"), "is %d, but max_in_flight is %d: no batch would ever be full; raise max_in_flight or lower batch_size", size, inFlight)
			c.because(keypath.Join(path, "max_in_flight"))
		}
	}
	if at := keypath.Join(path, "scope"); divides(t.Scope) && len(t.Batchers) == 0 && t.Processors.Concurrency == 0 {
		c.fault(at, "has no effect without batchers and processors.concurrency, which it is about; set one of them, or leave scope out")
		c.because(keypath.Join(path, "batchers"), keypath.Join(path, "processors", "concurrency"))
	}
	if t.Forward != nil && len(t.Batchers) > 0 {
		c.fault(keypath.Join(path, "forward"), "excludes batchers; put forward into each batcher that should publish")
	}
	c.failure(keypath.Join(path, "failure"), t)
}

// consumer checks that no two enabled pipelines consume one tunnel. It is called in
// the order of names.
func (c *checker) consumer(path, name string, t Tunnel) {
	if t.TableName == "" || t.TunnelName == "" || t.Disabled {
		return
	}
	key := consumed{c.atService(t.Instance), t.topic()}
	if first, ok := c.consumers[key]; ok {
		c.fault(keypath.Join(path, "tunnel_name"), "is the tunnel of %s too: each would get a part of the records; give each its own tunnel", keypath.Join("tunnels", first))
		return
	}
	c.consumers[key] = name
}

func (c *checker) reference(path, instance string) {
	if _, ok := c.cfg.Instances[instance]; !ok && instance != "" && len(c.cfg.Instances) > 0 {
		c.fault(path, "no instance is called %s%s", c.cfg.source.Show(path, instance), strictyaml.Suggest(instance, c.instances, "instances"))
		c.because("instances")
	}
}

func (c *checker) spec(path string, s TunnelSpec) {
	if !s.Create {
		for _, k := range []struct {
			key string
			set bool
		}{{"type", s.Type != ""}, {"start", s.Start != ""}, {"end", !s.End.IsZero()}} {
			if k.set {
				c.fault(keypath.Join(path, k.key), "has no effect unless create is true")
				c.because(keypath.Join(path, "create"))
			}
		}
		return
	}
	start, _, err := s.start()
	if err != nil {
		at := keypath.Join(path, "start")
		c.fault(at, "is %s; it must be latest, earliest or a time such as 2026-01-31T00:00:00Z", c.cfg.source.Show(at, s.Start))
	}
	for _, k := range []struct {
		key string
		at  time.Time
	}{{"start", start}, {"end", s.End}} {
		if !k.at.IsZero() && (!k.at.After(time.Unix(0, 0)) || k.at.Year() > lastYear) {
			c.fault(keypath.Join(path, k.key), "is %v; it must be after the beginning of 1970, from which the service counts, and before the end of %d", k.at.Format(time.RFC3339), lastYear)
		}
	}
	if !s.End.IsZero() && !s.End.After(start) {
		c.fault(keypath.Join(path, "end"), "must be after start")
		c.because(keypath.Join(path, "start"))
	}
}

// onGap checks that on_gap: recreate could recreate the tunnel as it is configured. path is that of its
// properties, policy that of on_gap.
func (c *checker) onGap(path, policy string, t Tunnel) {
	s := t.Tunnel
	if !t.recreates() || !s.Create { // without create, having them at all is the fault
		return
	}
	for _, k := range []struct {
		key, text string
		wrong     bool
	}{
		{"type", "is BaseData, which excludes on_gap: recreate: what that creates is BaseAndStream; repeat a backfill with a tunnel of another name", s.Type == string(subscriber.BaseData)},
		{"start", "excludes on_gap: recreate: the tunnels that it creates begin with all rows, at their creation", s.Start != "" && s.Start != "latest"},
		{"end", "excludes on_gap: recreate: the tunnels that it creates have no end", !s.End.IsZero()},
	} {
		if k.wrong {
			c.fault(keypath.Join(path, k.key), "%s", k.text)
			c.because(policy)
		}
	}
}

// lastYear is the last whole year that the service's nanoseconds since 1970 can express.
const lastYear = 2261

// polls checks the pauses between reads.
func (c *checker) polls(path string, t Tunnel) {
	longest := cmp.Or(t.MaxPollInterval, subscriber.DefaultMaxPollInterval)
	if t.MinPollInterval > longest {
		c.fault(keypath.Join(path, "min_poll_interval"), "is %v; it must not exceed max_poll_interval, which is %v", t.MinPollInterval, longest)
		c.because(keypath.Join(path, "max_poll_interval"))
	}
}

// lookup checks the columns of lookup.
func (c *checker) lookup(path string, t Tunnel) {
	at, columns := keypath.Join(path, "lookup_columns"), t.lookupColumns()
	if len(columns) > 0 && t.lookup() == subscriber.LookupNone {
		c.fault(at, "has no effect without lookup: set lookup to updates or always, or leave the columns out")
		c.because(keypath.Join(path, "lookup"))
	}
	if len(columns) > subscriber.MaxLookupColumns {
		c.fault(at, "has %d columns; the service reads at most %d", len(columns), subscriber.MaxLookupColumns)
	}
	for _, name := range columns {
		if !service.IsColumnName(name) {
			c.fault(at, "has %q; a column's name has %s", name, service.ColumnNameRule)
		}
	}
}

func (c *checker) batcher(path string, b Batcher) {
	if timeout := cmp.Or(b.BatchTimeout, batching.DefaultTimeout); b.BatchIdle >= timeout {
		c.fault(keypath.Join(path, "batch_idle"), "is %v; it must be below batch_timeout, which is %v", b.BatchIdle, timeout)
		c.because(keypath.Join(path, "batch_timeout"))
	}
}

func (c *checker) failure(path string, t Tunnel) {
	f := t.Failure
	initial, longest := cmp.Or(f.BackoffInitial, DefaultBackoffInitial), cmp.Or(f.BackoffMax, DefaultBackoffMax)
	if initial > longest {
		at := "backoff_initial"
		if f.BackoffInitial == 0 {
			at = "backoff_max"
		}
		c.fault(keypath.Join(path, at), "backoff_initial (%v) must not be more than backoff_max (%v)", initial, longest)
		c.because(keypath.Join(path, "backoff_initial"), keypath.Join(path, "backoff_max"))
	}
	dl := f.DeadLetter
	if dl == nil {
		for _, k := range []struct {
			key string
			set bool
		}{{"attempts", f.Attempts != 0}, {"give_up_after", f.GiveUpAfter != 0}, {"stop_after", f.StopAfter != nil}} {
			if k.set {
				c.fault(keypath.Join(path, k.key), "has no effect without dead_letter: messages are retried without limit; add dead_letter")
				c.because(keypath.Join(path, "dead_letter"))
			}
		}
		return
	}
	if f.GiveUpAfter > 0 && f.GiveUpAfter < initial {
		c.fault(keypath.Join(path, "give_up_after"), "is %v, shorter than the pause before the second attempt (backoff_initial, %v): no message would be retried in time; raise it, or lower backoff_initial", f.GiveUpAfter, initial)
		c.because(keypath.Join(path, "backoff_initial"))
	}
	if s := f.StopAfter; s != nil && s.Of > 0 && s.Letters >= s.Of {
		c.fault(keypath.Join(path, "stop_after", "letters"), "is %d among %d messages: it would never be exceeded; make it less than of", s.Letters, s.Of)
		c.because(keypath.Join(path, "stop_after", "of"))
	}
	path = keypath.Join(path, "dead_letter")
	switch {
	case dl.Topic == "" && dl.Table == "":
		c.fault(path, "needs a topic to publish to or a table to write to")
		c.because(keypath.Join(path, "topic"), keypath.Join(path, "table"))
		return
	case dl.Topic != "" && dl.Table != "":
		c.fault(path, "has both a topic and a table; keep one of them")
		return
	case dl.Topic != "":
		if dl.Instance != "" {
			c.fault(keypath.Join(path, "instance"), "has no effect with topic; it is the instance of a table")
		}
		return
	}
	if dl.Publisher != "" {
		c.fault(keypath.Join(path, "publisher"), "has no effect with table; it is the publisher of a topic")
	}
	c.reference(keypath.Join(path, "instance"), dl.Instance)
	if !service.IsTableName(dl.Table) {
		c.fault(keypath.Join(path, "table"), tableNameRule, c.cfg.source.Show(keypath.Join(path, "table"), dl.Table))
	}
	if dl.Table == t.TableName && c.atService(cmp.Or(dl.Instance, t.Instance)) == c.atService(t.Instance) {
		c.fault(keypath.Join(path, "table"), "is the table whose changes are handled: its dead letters would come back as changes; use another one")
	}
}
