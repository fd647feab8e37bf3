package batching

import (
	"context"
	"fmt"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/ack"
)

// benchSource delivers n messages with inFlight of them unfinished at any time.
type benchSource struct {
	out      chan *message.Message
	inFlight chan struct{}
}

func newBenchSource(inFlight int) *benchSource {
	return &benchSource{out: make(chan *message.Message), inFlight: make(chan struct{}, inFlight)}
}

func (s *benchSource) Subscribe(context.Context, string) (<-chan *message.Message, error) {
	return s.out, nil
}
func (s *benchSource) Close() error { return nil }

// release is the outermost middleware: it frees a place for the next message.
func (s *benchSource) release(h message.HandlerFunc) message.HandlerFunc {
	return func(msg *message.Message) ([]*message.Message, error) {
		out, err := h(msg)
		<-s.inFlight
		return out, err
	}
}

// benchDelivery is a Delivery that costs next to nothing.
type benchDelivery struct {
	key   string
	hurry chan struct{}
}

func (d *benchDelivery) Key() string            { return d.key }
func (d *benchDelivery) HandOff()               {}
func (d *benchDelivery) Begin()                 {}
func (d *benchDelivery) CallBack(error)         {}
func (d *benchDelivery) Hurry() <-chan struct{} { return d.hurry }

// cpuTime is the process's CPU time: unlike the elapsed time it is the same on a
// busy machine.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// runRouter sends b.N messages through a Router with the middlewares.
func runRouter(b *testing.B, inFlight, keys int, m ...message.HandlerMiddleware) {
	s := newBenchSource(inFlight)
	router, err := message.NewRouter(message.RouterConfig{}, watermill.NopLogger{})
	if err != nil {
		b.Fatal(err)
	}
	router.AddMiddleware(s.release)
	router.AddMiddleware(m...)
	router.AddConsumerHandler("h", "topic", s, func(*message.Message) error { return nil })
	stopped := make(chan error, 1)
	go func() { stopped <- router.Run(context.Background()) }()
	<-router.Running()

	// Delivered messages share their contexts, so that what those cost is not counted.
	hurry := make(chan struct{})
	contexts := make([]context.Context, keys)
	for i := range contexts {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		contexts[i] = ack.NewContext(ctx, &benchDelivery{key: strconv.Itoa(i), hurry: hurry})
	}

	b.ReportAllocs()
	b.ResetTimer()
	start := cpuTime()
	for i := range b.N {
		s.inFlight <- struct{}{}
		msg := message.NewMessage("", nil)
		if keys > 0 {
			msg.SetContext(contexts[i%keys])
		}
		s.out <- msg
	}
	for range inFlight { // all messages are done when it can be filled again
		s.inFlight <- struct{}{}
	}
	b.StopTimer()
	b.ReportMetric(float64(cpuTime()-start)/float64(b.N), "cpu-ns/op")
	close(s.out)
	router.Close()
	<-stopped
}

// BenchmarkRouter measures messages through Watermill's Router: bare, with batches,
// and with batches of messages that have a Delivery and one of 10 000 ordering keys.
// With fewer messages in flight than the batch size it would measure the timeout, so
// those cases are left out. The last batch of a run has a short timeout.
func BenchmarkRouter(b *testing.B) {
	for _, inFlight := range []int{1, 16, 256, 4096} {
		b.Run(fmt.Sprintf("inflight=%d/bare", inFlight), func(b *testing.B) {
			runRouter(b, inFlight, 0)
		})
		for _, size := range []int{1, 10, 100, 1000} {
			if size > inFlight {
				continue
			}
			for _, keys := range []int{0, 10_000} {
				name := "plain"
				if keys > 0 {
					name = "keys"
				}
				b.Run(fmt.Sprintf("inflight=%d/batch=%d/%s", inFlight, size, name), func(b *testing.B) {
					bt := mustNew(b, one(Batcher{
						Size: size, Timeout: 50 * time.Millisecond, Concurrency: 4,
						Handler: func(context.Context, *Batch) error { return nil },
					}), nil)
					runRouter(b, inFlight, keys, bt.Middleware)
					if err := bt.Close(); err != nil {
						b.Fatal(err)
					}
				})
			}
		}
	}
}

// BenchmarkHotRow routes a stream by parity. Every fifth change is of one hot row,
// which alternates between the two batchers, is always even, or is absent. The
// results are those of the other rows: their rate, from the first message to the last
// ack, and the size of their batches. A run takes as long as the stream, so compare
// the rates within a run:
//
//	go test ./batching -run '^$' -bench HotRow -benchtime 3x
func BenchmarkHotRow(b *testing.B) {
	const messages, pause = 1000, time.Millisecond
	for _, hot := range []string{"none", "even", "alternating"} {
		b.Run("hot="+hot, func(b *testing.B) {
			var others, batches, took float64
			for b.Loop() {
				var counted, inBatches atomic.Int64
				bt := mustNew(b, Config{
					Defaults: Batcher{Size: 100, Timeout: 100 * time.Millisecond, Handler: func(_ context.Context, batch *Batch) error {
						n := 0
						for _, m := range batch.Messages {
							if m.Metadata.Get("key") != "h" {
								n++
							}
						}
						if n > 0 {
							counted.Add(1)
							inBatches.Add(int64(n))
						}
						time.Sleep(pause)
						return nil
					}},
					Batchers: map[string]Batcher{"even": {}, "odd": {}},
				}, nil)
				s := newSource(4096, time.Second)
				stopped := s.route(bt.Middleware(func(msg *message.Message) ([]*message.Message, error) {
					to := []string{"even", "odd"}[msg.UUID[len(msg.UUID)-1]%2]
					if hot == "even" && msg.Metadata.Get("key") == "h" {
						to = "even"
					}
					SetBatcher(msg, to)
					return nil, nil
				}))
				began, sent := time.Now(), 0
				for i := range messages {
					switch {
					case i%5 != 0:
						s.add(fmt.Sprint("m", i), fmt.Sprint("m", i))
						sent++
					case hot != "none":
						s.add(fmt.Sprint("h", i/5), "h")
					}
					time.Sleep(pause)
				}
				for inBatches.Load() < int64(sent) {
					time.Sleep(pause)
				}
				took += time.Since(began).Seconds()
				others += float64(sent)
				batches += float64(counted.Load())
				s.Close()
				<-stopped
				if err := bt.Close(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(others/took, "others/s")
			b.ReportMetric(others/batches, "others/batch")
		})
	}
}

// joinDelivery is a benchDelivery that can be deferred.
type joinDelivery struct {
	benchDelivery
	done *atomic.Int64
}

func (d *joinDelivery) Defer(ack.Listener) bool     { return true }
func (d *joinDelivery) Settle(error)                { d.done.Add(1) }
func (d *joinDelivery) BeginAll([]ack.Deferrer)     {}
func (d *joinDelivery) AckAll(all []ack.Deferrer)   { d.done.Add(int64(len(all))) }
func (d *joinDelivery) Deadline() (time.Time, bool) { return time.Time{}, false }
func (d *joinDelivery) Done() <-chan struct{}       { return nil }
func (d *joinDelivery) Err() error                  { return nil }
func (d *joinDelivery) Value(key any) any {
	if key == ack.DeliveryKey {
		return ack.Delivery(d)
	}
	return nil
}

// BenchmarkJoin measures what batches of 100 cost a message that is deferred, without the
// message itself.
func BenchmarkJoin(b *testing.B) {
	bt := mustNew(b, one(Batcher{
		Size: 100, Timeout: 50 * time.Millisecond, Concurrency: 4,
		Handler: func(context.Context, *Batch) error { return nil },
	}), nil)
	d := &Deferral{
		Process:   func(*message.Message) ([]*message.Message, error) { return nil, nil },
		Succeeded: func([]*message.Message) {},
		Failed:    func(_ *message.Message, _ any, err error) error { return err },
	}
	var done atomic.Int64
	hurry := make(chan struct{})
	const inFlight = 4096
	contexts := make([]*joinDelivery, 10_000)
	messages := make([]*message.Message, len(contexts))
	for i := range contexts {
		contexts[i] = &joinDelivery{benchDelivery: benchDelivery{key: strconv.Itoa(i), hurry: hurry}, done: &done}
		messages[i] = message.NewMessage("", nil)
	}
	b.ReportAllocs()
	b.ResetTimer()
	start := cpuTime()
	for i := range b.N {
		for int64(i)-done.Load() >= inFlight {
			time.Sleep(10 * time.Microsecond)
		}
		msg := messages[i%len(messages)]
		msg.SetContext(contexts[i%len(contexts)])
		if joined, err := bt.Join(msg, d, nil); err != nil || !joined {
			b.Fatal(joined, err)
		}
	}
	for done.Load() < int64(b.N) {
		time.Sleep(time.Millisecond)
	}
	b.StopTimer()
	b.ReportMetric(float64(cpuTime()-start)/float64(b.N), "cpu-ns/op")
	if err := bt.Close(); err != nil {
		b.Fatal(err)
	}
}
