package router

import (
	"cmp"
	"fmt"
	"net"
	"net/url"
	"reflect"
	"regexp"
	"strings"
	"time"

	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// check returns what is wrong in cfg as far as it can be seen without the
// service and without code: bounds, missing values and references. Faults come
// in no particular order, without file and line.
func check(cfg Config) []Fault {
	c := checker{cfg: cfg}
	c.bounds(reflect.ValueOf(cfg), "")
	for _, name := range names(cfg.Instances) {
		c.instance(join("instances", name), cfg.Instances[name])
	}
	for _, name := range names(cfg.Tunnels) {
		c.tunnel(join("tunnels", name), name, cfg.Tunnels[name])
	}
	return c.faults
}

type checker struct {
	cfg    Config
	faults []Fault
}

func (c *checker) fault(path, format string, args ...any) {
	c.faults = append(c.faults, Fault{Path: path, Text: fmt.Sprintf(format, args...)})
}

// because says what the latest fault follows from.
func (c *checker) because(paths ...string) {
	c.faults[len(c.faults)-1].because = paths
}

// bounds checks what the field tags say. A zero value is an absent one.
func (c *checker) bounds(v reflect.Value, path string) {
	switch v.Kind() {
	case reflect.Map:
		for _, name := range v.MapKeys() {
			c.bounds(v.MapIndex(name), join(path, name.String()))
		}
		return
	case reflect.Pointer:
		if !v.IsNil() {
			c.bounds(v.Elem(), path)
		}
		return
	case reflect.Struct:
	default:
		return
	}
	for i := range v.NumField() {
		f, field := v.Type().Field(i), v.Field(i)
		if !f.IsExported() {
			continue
		}
		at := join(path, f.Tag.Get("yaml"))
		switch {
		case field.Kind() == reflect.Map && f.Tag.Get("required") != "" && field.Len() == 0:
			c.fault(at, "is missing or empty; at least one is needed")
		case field.IsZero() && f.Tag.Get("required") != "":
			c.fault(at, "is missing")
		case field.IsZero():
		case field.Type() == timeType:
		default:
			if text := outOfBounds(field, f.Tag); text != "" {
				c.fault(at, "is %v; %s", field, text)
			}
			c.bounds(field, at)
		}
	}
}

func (c *checker) instance(path string, in Instance) {
	if in.Endpoint != "" {
		c.endpoint(join(path, "endpoint"), in)
	}
	switch keys := in.AccessKeyID != "" || in.AccessKeySecret != "" || in.SecurityToken != ""; {
	case in.Credentials != "" && keys:
		c.fault(join(path, "credentials"), "excludes access_key_id, access_key_secret and security_token; keep one or the other")
	case in.Credentials == "" && in.AccessKeyID == "":
		c.fault(join(path, "access_key_id"), "is missing; set it, or name a provider in credentials")
	}
	if in.Credentials == "" && in.AccessKeySecret == "" {
		c.fault(join(path, "access_key_secret"), "is missing; set it, or name a provider in credentials")
	}
	if in.PoolMaxOverflow > 0 && in.PoolSize == 0 {
		c.fault(join(path, "pool_max_overflow"), "has no effect without pool_size; set that too")
		c.because(join(path, "pool_size"))
	}
}

func (c *checker) endpoint(path string, in Instance) {
	u, err := url.Parse(in.Endpoint)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		c.fault(path, `must be a URL such as https://my-instance.cn-hangzhou.ots.aliyuncs.com`)
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil:
		c.fault(path, "must have nothing before or after the host: no user, path or query")
	case u.Scheme == "http" && !in.AllowInsecure && !isLoopback(u.Hostname()):
		c.fault(path, "is http:// to another machine; use https://, or set allow_insecure: true")
	}
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// tableName is what the service takes as a table's name.
var tableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,254}$`)

const tableNameRule = "is %q; a table's name has up to 255 letters, digits and underscores, and begins with no digit"

func (c *checker) tunnel(path, name string, t Tunnel) {
	c.reference(join(path, "instance"), t.Instance)
	if t.TableName != "" && !tableName.MatchString(t.TableName) {
		c.fault(join(path, "table_name"), tableNameRule, t.TableName)
	}
	if strings.ContainsAny(t.TunnelName, "/ \t\n") {
		c.fault(join(path, "tunnel_name"), "is %q; a tunnel's name has no slashes and no spaces", t.TunnelName)
	}
	for _, other := range names(c.cfg.Tunnels) {
		o := c.cfg.Tunnels[other]
		if other < name && o.Instance == t.Instance && o.topic() == t.topic() && t.TunnelName != "" {
			c.fault(join(path, "tunnel_name"), "is the tunnel of tunnels.%s too: each would get a part of the records; give them tunnels of their own", other)
		}
	}
	interval := cmp.Or(t.HeartbeatInterval, subscriber.DefaultHeartbeatInterval)
	timeout := cmp.Or(t.HeartbeatTimeout, subscriber.DefaultHeartbeatTimeout)
	if timeout >= time.Second && timeout.Truncate(time.Second) <= interval {
		at := "heartbeat_timeout"
		if t.HeartbeatTimeout == 0 {
			at = "heartbeat_interval"
		}
		c.fault(join(path, at), "heartbeat_timeout (%v, in whole seconds) must be more than heartbeat_interval (%v), or channels are lost between two heartbeats", timeout, interval)
		c.because(join(path, "heartbeat_timeout"), join(path, "heartbeat_interval"))
	}
	c.spec(join(path, "tunnel"), t.Tunnel)
	inFlight := cmp.Or(t.MaxInFlight, subscriber.DefaultMaxInFlight)
	for _, b := range names(t.Batchers) {
		at := join(join(path, "batchers"), b)
		c.batcher(at, t.Batchers[b])
		if size := cmp.Or(t.Batchers[b].BatchSize, batching.DefaultSize); size > inFlight {
			c.fault(join(at, "batch_size"), "is %d, but max_in_flight is %d: no batch would ever be full; raise max_in_flight or lower batch_size", size, inFlight)
			c.because(join(path, "max_in_flight"))
		}
	}
	if t.Forward != nil && len(t.Batchers) > 0 {
		c.fault(join(path, "forward"), "excludes batchers; put forward into each batcher that should publish")
	}
	c.failure(join(path, "failure"), t)
}

func (c *checker) reference(path, instance string) {
	if _, ok := c.cfg.Instances[instance]; !ok && instance != "" && len(c.cfg.Instances) > 0 {
		c.fault(path, "no instance is called %q%s", instance, suggest(instance, names(c.cfg.Instances), "instances"))
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
				c.fault(join(path, k.key), "has no effect unless create is true")
				c.because(join(path, "create"))
			}
		}
		return
	}
	start, _, err := s.start()
	if err != nil {
		c.fault(join(path, "start"), "is %q; it must be latest, earliest or a time such as 2026-01-31T00:00:00Z", s.Start)
	}
	if !s.End.IsZero() && !s.End.After(start) {
		c.fault(join(path, "end"), "must be after start")
		c.because(join(path, "start"))
	}
}

func (c *checker) batcher(path string, b Batcher) {
	if timeout := cmp.Or(b.BatchTimeout, batching.DefaultTimeout); b.BatchIdle >= timeout {
		c.fault(join(path, "batch_idle"), "is %v; it must be below batch_timeout, which is %v", b.BatchIdle, timeout)
		c.because(join(path, "batch_timeout"))
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
		c.fault(join(path, at), "backoff_initial (%v) must not be more than backoff_max (%v)", initial, longest)
		c.because(join(path, "backoff_initial"), join(path, "backoff_max"))
	}
	dl := f.DeadLetter
	if dl == nil {
		if f.Attempts != 0 {
			c.fault(join(path, "attempts"), "has no effect without dead_letter: messages are tried again for ever; add dead_letter")
			c.because(join(path, "dead_letter"))
		}
		return
	}
	path = join(path, "dead_letter")
	switch {
	case dl.Topic == "" && dl.Table == "":
		c.fault(path, "needs a topic to publish to or a table to write to")
		c.because(join(path, "topic"), join(path, "table"))
		return
	case dl.Topic != "" && dl.Table != "":
		c.fault(path, "has both a topic and a table; keep one of them")
		return
	case dl.Topic != "":
		if dl.Instance != "" {
			c.fault(join(path, "instance"), "has no effect with topic; it says where a table is")
		}
		return
	}
	if dl.Publisher != "" {
		c.fault(join(path, "publisher"), "has no effect with table; it says whose topic it is")
	}
	c.reference(join(path, "instance"), dl.Instance)
	if !tableName.MatchString(dl.Table) {
		c.fault(join(path, "table"), tableNameRule, dl.Table)
	}
	if dl.Table == t.TableName && cmp.Or(dl.Instance, t.Instance) == t.Instance {
		c.fault(join(path, "table"), "is the table whose changes are handled: its dead letters would come back as changes; take another one")
	}
}
