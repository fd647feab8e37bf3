package subscriber

import (
	"context"
	"errors"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/watermill-ots/watermill-ots/internal/ledger"
	"github.com/watermill-ots/watermill-ots/internal/service"
	"github.com/watermill-ots/watermill-ots/ots"
)

// validConfig has what is required and nothing else.
func validConfig() Config {
	return Config{Endpoint: "https://inst.cn-hangzhou.ots.aliyuncs.com", Instance: "inst", AccessKeyID: "id", AccessKeySecret: "hush-hush"}
}

func TestConfig_each_fault_names_its_field(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Config)
		want   string // in the error; empty: valid
	}{
		"minimal":                     {func(*Config) {}, ""},
		"endpoint empty":              {func(c *Config) { c.Endpoint = "" }, "Config.Endpoint is empty"},
		"endpoint without scheme":     {func(c *Config) { c.Endpoint = "inst.ots.aliyuncs.com" }, `Config.Endpoint is "inst.ots.aliyuncs.com"`},
		"endpoint of another scheme":  {func(c *Config) { c.Endpoint = "ftp://inst" }, "Config.Endpoint"},
		"endpoint without host":       {func(c *Config) { c.Endpoint = "https://" }, "Config.Endpoint"},
		"endpoint that is not a URL":  {func(c *Config) { c.Endpoint = "https://in st:%" }, "Config.Endpoint is not a URL"},
		"endpoint with a path":        {func(c *Config) { c.Endpoint = "https://inst/tunnel" }, "Config.Endpoint has more"},
		"endpoint with a query":       {func(c *Config) { c.Endpoint = "https://inst?a=b" }, "Config.Endpoint has more"},
		"endpoint with a fragment":    {func(c *Config) { c.Endpoint = "https://inst#a" }, "Config.Endpoint has more"},
		"endpoint with a user":        {func(c *Config) { c.Endpoint = "https://u:p@inst" }, "Config.Endpoint has more"},
		"endpoint with a slash":       {func(c *Config) { c.Endpoint += "/" }, ""},
		"endpoint with a port":        {func(c *Config) { c.Endpoint += ":443" }, ""},
		"http beyond loopback":        {func(c *Config) { c.Endpoint = "http://inst.ots.aliyuncs.com" }, "AllowInsecure"},
		"http beyond loopback wanted": {func(c *Config) { c.Endpoint = "http://inst"; c.AllowInsecure = true }, ""},
		"http at localhost":           {func(c *Config) { c.Endpoint = "http://localhost:8087" }, ""},
		"http at 127.0.0.1":           {func(c *Config) { c.Endpoint = "http://127.0.0.1:8087" }, ""},
		"http at ::1":                 {func(c *Config) { c.Endpoint = "http://[::1]:8087" }, ""},
		"http at a name like it":      {func(c *Config) { c.Endpoint = "http://localhost.evil.example" }, "AllowInsecure"},
		"instance empty":              {func(c *Config) { c.Instance = "" }, "Config.Instance is empty"},
		"key id empty":                {func(c *Config) { c.AccessKeyID = "" }, "Config.AccessKeyID is empty"},
		"key secret empty":            {func(c *Config) { c.AccessKeySecret = "" }, "Config.AccessKeySecret is empty"},
		"keys of a provider":          {func(c *Config) { c.AccessKeyID, c.AccessKeySecret, c.Credentials = "", "", service.StaticCredentials{} }, ""},
		"worker size":                 {func(c *Config) { c.WorkerSize = -1 }, "Config.WorkerSize is -1"},
		"max in flight":               {func(c *Config) { c.MaxInFlight = -1 }, "Config.MaxInFlight is -1"},
		"max in flight bytes":         {func(c *Config) { c.MaxInFlightBytes = -1 }, "Config.MaxInFlightBytes is -1"},
		"ordering":                    {func(c *Config) { c.Ordering = 3 }, "Config.Ordering is 3"},
		"heartbeat interval":          {func(c *Config) { c.HeartbeatInterval = -1 }, "Config.HeartbeatInterval is -1ns"},
		"heartbeat timeout":           {func(c *Config) { c.HeartbeatTimeout = -1 }, "Config.HeartbeatTimeout is -1ns"},
		"checkpoint interval":         {func(c *Config) { c.CheckpointInterval = -1 }, "Config.CheckpointInterval is -1ns"},
		"max poll interval":           {func(c *Config) { c.MaxPollInterval = -1 }, "Config.MaxPollInterval is -1ns"},
		"min poll interval":           {func(c *Config) { c.MinPollInterval = -1 }, "Config.MinPollInterval is -1ns"},
		"min poll above max":          {func(c *Config) { c.MinPollInterval, c.MaxPollInterval = 3*time.Second, 2*time.Second }, "must not exceed Config.MaxPollInterval (2s)"},
		"min poll above the default":  {func(c *Config) { c.MinPollInterval = 3 * time.Second }, "must not exceed Config.MaxPollInterval (1s)"},
		"min poll is max poll":        {func(c *Config) { c.MinPollInterval, c.MaxPollInterval = time.Second, time.Second }, ""},
		"max poll below min default":  {func(c *Config) { c.MaxPollInterval = 5 * time.Millisecond }, ""},
		"empty reads":                 {func(c *Config) { c.EmptyReadsPerSecond = -1 }, "Config.EmptyReadsPerSecond is -1"},
		"start before 1970":           {func(c *Config) { c.Tunnel.Start = time.Date(1960, 1, 1, 0, 0, 0, 0, time.UTC) }, "Config.Tunnel.Start is 1960-01-01"},
		"start at 1970":               {func(c *Config) { c.Tunnel.Start = time.Unix(0, 0) }, "Config.Tunnel.Start is 1970-01-01"},
		"start beyond nanoseconds":    {func(c *Config) { c.Tunnel.Start = time.Date(2300, 1, 1, 0, 0, 0, 0, time.UTC) }, "Config.Tunnel.Start is 2300"},
		"end before 1970":             {func(c *Config) { c.Tunnel.End = time.Date(1960, 1, 1, 0, 0, 0, 0, time.UTC) }, "Config.Tunnel.End is 1960-01-01"},
		"end beyond nanoseconds":      {func(c *Config) { c.Tunnel.End = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC) }, "Config.Tunnel.End is 9999"},
		"close timeout":               {func(c *Config) { c.CloseTimeout = -1 }, "Config.CloseTimeout is -1ns"},
		"timeout not above interval":  {func(c *Config) { c.HeartbeatInterval, c.HeartbeatTimeout = 10*time.Second, 10*time.Second }, "Config.HeartbeatInterval 10s: the timeout, in whole seconds, must be at least 14s"},
		"timeout in whole seconds":    {func(c *Config) { c.HeartbeatInterval, c.HeartbeatTimeout = 9*time.Second, 11900*time.Millisecond }, "must be at least 12s"},
		"timeout a third above":       {func(c *Config) { c.HeartbeatInterval, c.HeartbeatTimeout = 30*time.Second, 40*time.Second }, ""},
		"timeout less above":          {func(c *Config) { c.HeartbeatInterval, c.HeartbeatTimeout = 30*time.Second, 39*time.Second }, "must be at least 40s"},
		"timeout below a second":      {func(c *Config) { c.HeartbeatInterval, c.HeartbeatTimeout = time.Millisecond, 999*time.Millisecond }, "Config.HeartbeatTimeout is 999ms"},
		"timeout a tick above":        {func(c *Config) { c.HeartbeatInterval, c.HeartbeatTimeout = 401*time.Millisecond, time.Second }, "must be at least 2s"},
		"interval above the default":  {func(c *Config) { c.HeartbeatInterval = 226 * time.Second }, "must be at least 5m2s"},
		"timeout below the default":   {func(c *Config) { c.HeartbeatTimeout = 30 * time.Second }, "must be at least 40s"},
		"tunnel type":                 {func(c *Config) { c.Tunnel.Type = "Both" }, `Config.Tunnel.Type is "Both"`},
		"tunnel type given":           {func(c *Config) { c.Tunnel.Type = Stream }, ""},
		"start and earliest":          {func(c *Config) { c.Tunnel.Start, c.Tunnel.Earliest = time.Unix(1, 0), true }, "Config.Tunnel.Earliest and Config.Tunnel.Start"},
		"end before start":            {func(c *Config) { c.Tunnel.Start, c.Tunnel.End = time.Unix(2, 0), time.Unix(1, 0) }, "Config.Tunnel.End"},
		"end at start":                {func(c *Config) { c.Tunnel.Start, c.Tunnel.End = time.Unix(2, 0), time.Unix(2, 0) }, "Config.Tunnel.End"},
		"end alone":                   {func(c *Config) { c.Tunnel.End = time.Unix(2, 0) }, ""},
		"on gap":                      {func(c *Config) { c.OnGap = 2 }, "Config.OnGap is 2: take OnGapFail or OnGapRecreate"},
		"recreate alone":              {func(c *Config) { c.OnGap = OnGapRecreate }, ""},
		"recreate a stream":           {func(c *Config) { c.OnGap, c.Tunnel.Type = OnGapRecreate, Stream }, ""},
		"recreate base data":          {func(c *Config) { c.OnGap, c.Tunnel.Type = OnGapRecreate, BaseData }, "Config.Tunnel.Type is BaseData, which excludes OnGapRecreate"},
		"recreate with a start":       {func(c *Config) { c.OnGap, c.Tunnel.Start = OnGapRecreate, time.Unix(2, 0) }, "Config.Tunnel.Start excludes OnGapRecreate"},
		"recreate the earliest":       {func(c *Config) { c.OnGap, c.Tunnel.Earliest = OnGapRecreate, true }, "Config.Tunnel.Earliest excludes OnGapRecreate"},
		"recreate with an end":        {func(c *Config) { c.OnGap, c.Tunnel.End = OnGapRecreate, time.Unix(2, 0) }, "Config.Tunnel.End excludes OnGapRecreate"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := validConfig()
			c.change(&cfg)
			err := cfg.Validate()
			if c.want == "" {
				if err != nil {
					t.Fatalf("refused: %v", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q in it", err, c.want)
			}
			if n := strings.Count(err.Error(), "Config.Endpoint is") + strings.Count(err.Error(), "Config.Endpoint has"); n > 1 {
				t.Errorf("one fault is reported %d times: %v", n, err)
			}
			if _, newErr := New(cfg, nil); newErr == nil || newErr.Error() != err.Error() {
				t.Errorf("New returned %v, Validate %v", newErr, err)
			}
		})
	}
}

func TestConfig_duration_without_a_unit_is_a_fault(t *testing.T) {
	set := reflect.ValueOf(&Config{}).Elem()
	durations := 0
	for i := range set.NumField() {
		if set.Field(i).Type() != reflect.TypeFor[time.Duration]() {
			continue
		}
		durations++
		name := set.Type().Field(i).Name
		for value, fault := range map[time.Duration]bool{1: true, 30: true, time.Millisecond - 1: true, time.Millisecond: false} {
			cfg := validConfig()
			reflect.ValueOf(&cfg).Elem().Field(i).Set(reflect.ValueOf(value))
			err := cfg.Validate()
			if told := err != nil && strings.Contains(err.Error(), "Config."+name+" is "+value.String()+": it must be at least 1ms"); told != fault {
				t.Errorf("%s of %v: %v", name, value, err)
			}
		}
	}
	if durations < 7 {
		t.Errorf("Config has %d durations: the test does not see them", durations)
	}
}

func TestConfig_one_error_lists_all_faults(t *testing.T) {
	err := Config{
		WorkerSize: -1, MaxInFlight: -1, MaxInFlightBytes: -1, Ordering: 9, HeartbeatInterval: -1, HeartbeatTimeout: -1,
		CheckpointInterval: -1, MaxPollInterval: -1, CloseTimeout: -1,
		Tunnel: TunnelSpec{Type: "x", Earliest: true, Start: time.Unix(2, 0), End: time.Unix(1, 0)},
	}.Validate()
	if err == nil {
		t.Fatal("valid")
	}
	for _, field := range []string{
		"Endpoint", "Instance", "AccessKeyID", "AccessKeySecret", "WorkerSize", "MaxInFlight", "MaxInFlightBytes", "Ordering",
		"HeartbeatInterval", "HeartbeatTimeout", "CheckpointInterval", "MaxPollInterval", "CloseTimeout",
		"Tunnel.Type", "Tunnel.Earliest", "Tunnel.End",
	} {
		if !strings.Contains(err.Error(), "Config."+field+" ") {
			t.Errorf("%s is not in it", field)
		}
	}
	if lines := strings.Count(err.Error(), "\n") + 1; lines != 16 {
		t.Errorf("%d lines, want one for each of 16 faults:\n%v", lines, err)
	}
}

func TestConfig_errors_hold_no_secret(t *testing.T) {
	for _, endpoint := range []string{
		"https://hush:psst@inst", "ftp://hush:psst@inst", "https://inst?key=psst", "https://hush:psst@", "https://hush:ps st@%", "inst?secret=psst", "https://inst/psst",
	} {
		cfg := Config{Endpoint: endpoint, AccessKeySecret: "psst", SecurityToken: "psst", WorkerSize: -1}
		if err := cfg.Validate(); err == nil || strings.Contains(err.Error(), "psst") {
			t.Errorf("%s: %v", endpoint, err)
		}
	}
}

func TestConfig_zero_fields_mean_their_defaults(t *testing.T) {
	c := validConfig().withDefaults()
	if c.WorkerSize != 1 || c.HeartbeatInterval != 30*time.Second || c.HeartbeatTimeout != 300*time.Second ||
		c.Ordering != OrderByKey || c.MaxInFlight != 4096 || c.MaxInFlightBytes != 64<<20 ||
		c.CheckpointInterval != 5*time.Second || c.MinPollInterval != 20*time.Millisecond || c.MaxPollInterval != time.Second ||
		c.EmptyReadsPerSecond != 100 || c.CloseTimeout != 10*time.Second ||
		c.Tunnel.Type != BaseAndStream || c.Unmarshaler != (JSON{}) {
		t.Errorf("defaults are %+v", c)
	}
	if shorter := (Config{MaxPollInterval: 5 * time.Millisecond}).withDefaults(); shorter.MinPollInterval != 5*time.Millisecond {
		t.Errorf("below MaxPollInterval 5ms, MinPollInterval is %v", shorter.MinPollInterval)
	}
	cred, err := c.Credentials.Credentials(context.Background())
	if err != nil || cred != (ots.Credentials{AccessKeyID: "id", AccessKeySecret: "hush-hush"}) {
		t.Errorf("credentials are %v, %v", cred, err)
	}
	if err := (validConfig().withDefaults()).Validate(); err != nil {
		t.Errorf("the defaults are refused: %v", err)
	}
}

func TestConfig_fields_that_are_set_stay(t *testing.T) {
	own := func() backoff.BackOff { return backoff.NewConstantBackOff(time.Hour) }
	in := Config{
		WorkerSize: 2, HeartbeatInterval: 3, HeartbeatTimeout: 4, MaxInFlight: 5, MaxInFlightBytes: 6, CheckpointInterval: 7, MaxPollInterval: 8,
		CloseTimeout: 9, Tunnel: TunnelSpec{Type: BaseData}, NackBackoff: own, ReadBackoff: own, ReconnectBackoff: own,
		Credentials: service.StaticCredentials{AccessKeyID: "other"},
	}
	c := in.withDefaults()
	if c.WorkerSize != 2 || c.HeartbeatInterval != 3 || c.HeartbeatTimeout != 4 || c.MaxInFlight != 5 || c.MaxInFlightBytes != 6 ||
		c.CheckpointInterval != 7 || c.MaxPollInterval != 8 || c.CloseTimeout != 9 || c.Tunnel.Type != BaseData || c.Credentials != in.Credentials {
		t.Errorf("got %+v", c)
	}
	for name, b := range map[string]func() backoff.BackOff{"NackBackoff": c.NackBackoff, "ReadBackoff": c.ReadBackoff, "ReconnectBackoff": c.ReconnectBackoff} {
		if d := b().NextBackOff(); d != time.Hour {
			t.Errorf("%s pauses %v", name, d)
		}
	}
}

func TestConfig_default_pauses_double_up_to_their_bound_and_never_stop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := Config{}.withDefaults()
		for name, b := range map[string]struct {
			make           func() backoff.BackOff
			first, longest time.Duration
		}{
			"NackBackoff":      {c.NackBackoff, 100 * time.Millisecond, 30 * time.Second},
			"ReadBackoff":      {c.ReadBackoff, 50 * time.Millisecond, 5 * time.Second},
			"ReconnectBackoff": {c.ReconnectBackoff, 200 * time.Millisecond, 10 * time.Second},
		} {
			pauses, base := b.make(), b.first
			for i := range 1000 {
				d := pauses.NextBackOff()
				if low, high := base*79/100, base*121/100; d < low || d > high {
					t.Fatalf("%s: pause %d is %v, want %v within a fifth", name, i, d, base)
				}
				base = min(2*base, b.longest)
				time.Sleep(d)
			}
		}
	})
}

func TestNextPause_takes_Stop_for_a_long_pause(t *testing.T) {
	if d := nextPause(&backoff.StopBackOff{}); d != stoppedPause {
		t.Errorf("got %v", d)
	}
}

func TestOrdering_has_names_and_a_trackers_counterpart(t *testing.T) {
	for o, want := range map[Ordering]struct {
		name    string
		tracker ledger.Ordering
	}{
		OrderByKey: {"key", ledger.ByKey}, OrderByChannel: {"channel", ledger.ByChannel}, Unordered: {"none", ledger.Unordered}, 7: {"Ordering(7)", ledger.ByKey},
	} {
		if o.String() != want.name || o.tracker() != want.tracker {
			t.Errorf("%d is %q, %v", o, o, o.tracker())
		}
	}
}

func TestTunnelSpec_offsets_are_nanoseconds(t *testing.T) {
	if c := (TunnelSpec{}).stream(); c != nil {
		t.Errorf("without times: %+v, want the service's default", c)
	}
	start, end := time.Unix(1700000000, 123), time.Unix(1800000000, 456)
	c := TunnelSpec{Start: start, End: end}.stream()
	if c.StartOffset != 1700000000000000123 || c.EndOffset != 1800000000000000456 || c.Flag != 0 {
		t.Errorf("got %+v", c)
	}
	if c = (TunnelSpec{Earliest: true}).stream(); c.Flag != 1 || c.StartOffset != 0 || c.EndOffset != 0 {
		t.Errorf("earliest: %+v", c)
	}
}

func TestNew_takes_the_given_transport_and_trims_the_endpoint(t *testing.T) {
	cfg := validConfig()
	cfg.Endpoint += "//"
	s, err := New(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	if own, ok := s.endpoint.Base.(pooled); !ok || own.Transport != s.own || s.endpoint.URL != "https://inst.cn-hangzhou.ots.aliyuncs.com" {
		t.Errorf("transport %T, url %s", s.endpoint.Base, s.endpoint.URL)
	}
	f := new(fakeService)
	cfg.Transport = f
	if s, err = New(cfg, nil); err != nil || s.endpoint.Base != http.RoundTripper(f) || s.own != nil {
		t.Errorf("transport %T, %v", s.endpoint.Base, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := s.Subscribe(context.Background(), "table/tunnel"); !errors.Is(err, ErrClosed) {
		t.Errorf("Subscribe after Close: %v", err)
	}
	if err := s.SubscribeInitialize("table/tunnel"); !errors.Is(err, ErrClosed) {
		t.Errorf("SubscribeInitialize after Close: %v", err)
	}
}
