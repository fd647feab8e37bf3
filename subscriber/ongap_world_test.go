package subscriber_test

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"path"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// logKept is for longer than the table's stream keeps its log, which is a day.
const logKept = 25 * time.Hour

// world is a table in a bubble, what it should hold, and a sink that consumers write to.
type world struct {
	*fleet
	table   map[string]int64 // by the text of the key
	sink    *mirror
	tunnels tunnel.TunnelClient

	mu    sync.Mutex
	steps map[string]int // answers of the service by operation and status, such as "create 200"
}

func newWorld(t *testing.T, partitions int) *world {
	t.Helper()
	w := &world{fleet: newFleet(t, partitions), table: make(map[string]int64), sink: &mirror{rows: make(map[string]row)}, steps: make(map[string]int)}
	transport := w.em.Transport()
	t.Cleanup(transport.CloseIdleConnections)
	w.tunnels = tunnel.NewTunnelClientWithConfig(w.em.Endpoint(), testbed.Instance, testbed.KeyID, testbed.KeySecret, &tunnel.TunnelConfig{Transport: transport})
	return w
}

func (w *world) put(i int, value int64) {
	w.Helper()
	if err := w.em.Put(testbed.Table, emulator.Row{"k": testbed.Key(i), "v": value}); err != nil {
		w.Fatal(err)
	}
	w.table[keyText(i)] = value
}

func (w *world) remove(i int) {
	w.Helper()
	if err := w.em.Delete(testbed.Table, emulator.Row{"k": testbed.Key(i)}); err != nil {
		w.Fatal(err)
	}
	delete(w.table, keyText(i))
}

func keyText(i int) string { return fmt.Sprintf("[%q]", testbed.Key(i)) }

// create creates the tunnel as another program would, and returns its id.
func (w *world) create(typ tunnel.TunnelType) string {
	w.Helper()
	resp, err := w.tunnels.CreateTunnel(&tunnel.CreateTunnelRequest{TableName: testbed.Table, TunnelName: testbed.Tunnel, Type: typ})
	if err != nil {
		w.Fatal(err)
	}
	return resp.TunnelId
}

func (w *world) delete() {
	w.Helper()
	if err := w.tryDelete(); err != nil {
		w.Fatal(err)
	}
}

func (w *world) tryDelete() error {
	_, err := w.tunnels.DeleteTunnel(&tunnel.DeleteTunnelRequest{TableName: testbed.Table, TunnelName: testbed.Tunnel})
	return err
}

// described returns the tunnel of the topic, nil if there is none.
func (w *world) described() *tunnel.TunnelInfo {
	resp, err := w.tunnels.DescribeTunnel(&tunnel.DescribeTunnelRequest{TableName: testbed.Table, TunnelName: testbed.Tunnel})
	if err != nil {
		return nil
	}
	return resp.Tunnel
}

// count returns how often the service answered consumers so, such as "create 200".
func (w *world) count(step string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.steps[step]
}

// inject adds faults.
func (w *world) inject(faults ...emulator.Fault) {
	w.Helper()
	for _, f := range faults {
		if err := w.em.Inject(f); err != nil {
			w.Fatal(err)
		}
	}
}

// gap makes the next read fail as that of a log that was trimmed.
func (w *world) gap() {
	w.inject(emulator.Fault{Operation: "tunnel/readrecords", Code: "OTSTunnelServerUnavailable", Status: http.StatusBadRequest,
		Message: "OTSTrimmedDataAccess Requested stream data is already trimmed or does not exist"})
}

// trim has the service's log age by more than it is kept, and clients by more than their timeouts. Its clock is right
// again then, or it would refuse all signatures.
func (w *world) trim() {
	w.em.SkewClock(logKept)
	w.em.SkewClock(0)
}

// rows returns what the sink holds.
func (w *world) rows() map[string]int64 {
	w.sink.mu.Lock()
	defer w.sink.mu.Unlock()
	values := make(map[string]int64)
	for key, r := range w.sink.rows {
		values[key] = r.value
	}
	return values
}

// settles waits until the sink equals the table, for up to an hour.
func (w *world) settles() {
	w.Helper()
	for range 3600 {
		if maps.Equal(w.rows(), w.table) {
			return
		}
		time.Sleep(time.Second)
	}
	w.Fatalf("the sink holds\n%v, and the table\n%v", w.rows(), w.table)
}

// await waits until what is so, for up to an hour.
func (w *world) await(what string, is func() bool) {
	w.Helper()
	for range 3600 {
		if is() {
			return
		}
		time.Sleep(time.Second)
	}
	w.Fatalf("not within an hour: %s", what)
}

// consumer is one process that mirrors the table.
type consumer struct {
	*world
	sub    *subscriber.Subscriber
	logger *watermill.CaptureLoggerAdapter
	done   <-chan struct{}
	cut    *cutTransport

	mu     sync.Mutex
	alarms []subscriber.Alarm
}

// config is the configuration of the consumers.
func (w *world) config() subscriber.Config {
	return subscriber.Config{
		Endpoint: w.em.Endpoint(), Instance: testbed.Instance, AccessKeyID: testbed.KeyID, AccessKeySecret: testbed.KeySecret,
		AllowInsecure: true, OnGap: subscriber.OnGapRecreate, OnPhase: w.sink.phase,
		MaxPollInterval: 4 * time.Second, TunnelViewInterval: subscriber.NoTunnelView, // minutes pass, and each call costs real time
	}
}

// consumer returns a process that has not subscribed. It is closed at the end of the test.
func (w *world) consumer(change func(*subscriber.Config)) *consumer {
	w.Helper()
	transport := w.em.Transport()
	c := &consumer{world: w, logger: watermill.NewCaptureLogger(), cut: &cutTransport{transport: transport}}
	cfg := w.config()
	cfg.Transport = countTransport{c.cut, w}
	cfg.OnAlarm = c.alarmed
	if change != nil {
		change(&cfg)
	}
	var err error
	if c.sub, err = subscriber.New(cfg, c.logger); err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() {
		_ = c.sub.Close() // of one that was killed, whose calls all fail
		transport.CloseIdleConnections()
	})
	return c
}

// handle subscribes with the sink's handler, or another one.
func (c *consumer) handle(h message.NoPublishHandlerFunc) *consumer {
	c.Helper()
	if h == nil {
		h = c.sink.handle
	}
	var err error
	if c.done, err = c.sub.Handle(context.WithoutCancel(c.Context()), testbed.Topic, h); err != nil {
		c.Fatal(err)
	}
	return c
}

// starts returns a process that mirrors the table.
func (w *world) starts() *consumer { w.Helper(); return w.consumer(nil).handle(nil) }

// ends drains the process.
func (c *consumer) ends() {
	c.Helper()
	if err := c.sub.Close(); err != nil {
		c.Errorf("Close: %v", err)
	}
	if err := c.sub.Err(); err != nil {
		c.Errorf("Err: %v", err)
	}
}

// dies ends the process without a call to the service.
func (c *consumer) dies() {
	c.cut.dead.Store(true)
	_ = c.sub.Close() // nothing can be committed
}

func (c *consumer) alarmed(a subscriber.Alarm) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.alarms = append(c.alarms, a)
}

// raised counts the alarms of a kind.
func (c *consumer) raised(kind subscriber.AlarmKind) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range c.alarms {
		if a.Kind == kind {
			n++
		}
	}
	return n
}

// has reports whether a line was logged.
func (c *consumer) has(level watermill.LogLevel, msg string) bool {
	for _, line := range c.logger.Captured()[level] {
		if line.Msg == msg {
			return true
		}
	}
	return false
}

// recreating reports whether the status shows that the tunnel is recreated.
func (c *consumer) recreating() bool {
	for _, sub := range c.sub.Status().Subscriptions {
		for _, t := range sub.Trouble {
			if t.Op == "recreate" && !sub.Connected {
				return true
			}
		}
	}
	return false
}

// countTransport counts the service's answers.
type countTransport struct {
	http.RoundTripper
	w *world
}

func (c countTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := c.RoundTripper.RoundTrip(req)
	status := "lost"
	if err == nil {
		status = fmt.Sprint(resp.StatusCode)
	}
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	c.w.steps[path.Base(req.URL.Path)+" "+status]++
	return resp, err
}
