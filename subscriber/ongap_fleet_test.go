package subscriber_test

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/testsize"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

func TestOnGapRecreate_of_several_processes_recreates_the_tunnel_once(t *testing.T) {
	t.Parallel()
	for name, breaks := range map[string]func(w *world){
		"one of them finds a gap": func(w *world) { w.gap() },
		"a person has deleted it": func(w *world) { w.delete() },
		"all find it expired": func(w *world) { // with changes that none could read before they were trimmed
			w.inject(always(emulator.Fault{Operation: "tunnel/readrecords", Code: "OTSServerBusy"}))
			w.change(7)
			w.trim()
			time.Sleep(time.Minute)
			w.em.ClearFaults()
		},
		"two of them find a gap": func(w *world) { // and the deletion by the first one comes after that by the second
			w.inject(emulator.Fault{Operation: "tunnel/delete", Delay: 20 * time.Second})
			w.gap()
			w.gap()
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				former := w.create(tunnel.TunnelTypeStream)
				fleet := []*consumer{w.starts(), w.starts(), w.starts()}
				time.Sleep(2 * time.Minute) // the channels are balanced
				for i := range 10 {
					w.put(i, 1)
				}
				w.settles()
				breaks(w)
				w.await("all continue with another tunnel", func() bool {
					for _, c := range fleet {
						st := c.sub.Status().Subscriptions[0]
						if st.Totals.Recreations == 0 || !st.Connected {
							return false
						}
					}
					return true
				})
				w.change(2)
				w.settles()
				if info := w.described(); info.TunnelId == former {
					t.Error("the former tunnel is still there")
				}
				if n := w.count("create 200"); n != 1 {
					t.Errorf("%d tunnels were created, want 1: %v", n, w.steps)
				}
				for _, c := range fleet {
					if n := c.sub.Status().Subscriptions[0].Totals.Recreations; n != 1 {
						t.Errorf("a process continued with %d tunnels", n)
					}
					c.ends()
				}
			})
		})
	}
}

func TestOnGapRecreate_of_several_processes_that_start_at_once(t *testing.T) {
	for name, exists := range map[string]bool{"expired": true, "missing": false} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.put(1, 1)
				if exists {
					w.create(tunnel.TunnelTypeStream)
					w.put(1, 2)
					time.Sleep(logKept)
				}
				fleet := make([]*consumer, 3)
				var starting sync.WaitGroup
				for i := range fleet {
					fleet[i] = w.consumer(nil)
					starting.Go(func() { fleet[i].handle(nil) })
				}
				starting.Wait()
				w.settles()
				w.change(2)
				w.settles()
				if n := w.count("create 200"); n != 1 {
					t.Errorf("%d tunnels were created, want 1: %v", n, w.steps)
				}
			})
		})
	}
}

// What an old change writes after a newer row would stay in the sink.
func TestL4_recreated_tunnel_is_not_read_while_handlers_of_the_former_one_run(t *testing.T) {
	for name, breaks := range map[string]func(w *world){
		"another process finds a gap": func(w *world) { w.gap() },
		"the tunnel is deleted":       func(w *world) { w.delete() },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.create(tunnel.TunnelTypeStream)
				first := w.described().CreateTime.UnixNano()
				var mu sync.Mutex
				running := 0
				var fenced, read time.Time
				handler := func(msg *message.Message) error {
					if msg.Metadata.Get(subscriber.MetadataSnapshot) != snapshot(first) {
						mu.Lock()
						defer mu.Unlock()
						if read.IsZero() {
							read = time.Now()
						}
						if running != 0 {
							t.Errorf("%d handlers of the former tunnel run", running)
						}
						return nil
					}
					if msg.Metadata.Get(subscriber.MetadataKey) == keyText(0) { // the other channel has no messages, so that its reader finds the gap
						mu.Lock()
						running++
						mu.Unlock()
						<-msg.Context().Done()
						mu.Lock()
						running--
						fenced = time.Now()
						mu.Unlock()
						return msg.Context().Err()
					}
					return nil
				}
				w.consumer(func(c *subscriber.Config) { c.MaxInFlight = 1 }).handle(handler) // its window is full: it does not read
				w.put(0, 1)
				w.await("the handler runs", func() bool { mu.Lock(); defer mu.Unlock(); return running == 1 })
				other := w.consumer(nil).handle(handler)
				time.Sleep(2 * time.Minute)
				if n := len(other.sub.Status().Subscriptions[0].Channels); n == 0 {
					t.Fatal("the other process has no channel")
				}
				mu.Lock()
				stillRuns := running == 1
				mu.Unlock()
				if !stillRuns { // the emulator moves the newest channel, which is not the handler's
					t.Fatal("the channel of the handler moved to the other process")
				}
				breaks(w)
				w.await("the new tunnel is read", func() bool { mu.Lock(); defer mu.Unlock(); return !read.IsZero() })
				mu.Lock()
				if read.Before(fenced) {
					t.Errorf("the new tunnel is read at %v, and the handler was fenced at %v", read, fenced)
				}
				mu.Unlock()
			})
		})
	}
}

// Processes crash, start, find gaps and expired tunnels at any time, and in
// the end the sink equals the table.
func TestOnGapRecreate_random_crashes_and_gaps_end_with_the_table(t *testing.T) {
	seeds := 2
	switch {
	case testing.Short():
		seeds = 1
	case testsize.Full():
		seeds = 8
	}
	for range seeds {
		seed := rand.Uint64()
		t.Run("", func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				t.Logf("seed %d", seed)
				random := rand.New(rand.NewPCG(seed, 0))
				fleet := []*consumer{w.starts()}
				for round := range int64(12) {
					for range random.IntN(8) {
						if i := random.IntN(12); random.IntN(4) == 0 {
							w.remove(i)
						} else {
							w.put(i, 100*round+int64(i))
						}
					}
					switch random.IntN(7) {
					case 0:
						w.gap()
					case 1:
						w.trim()
					case 2:
						_ = w.tryDelete() // there may be none
					case 3:
						fleet[random.IntN(len(fleet))].dies()
					case 4:
						op := []string{"tunnel/describe", "tunnel/delete", "tunnel/create", "tunnel/connect"}[random.IntN(4)]
						w.inject(emulator.Fault{Operation: op, Break: []emulator.Break{emulator.BeforeRequest, emulator.BeforeAnswer}[random.IntN(2)], Times: 1 + random.IntN(3)})
					}
					if random.IntN(2) == 0 && len(fleet) < 5 {
						fleet = append(fleet, w.starts())
					}
					time.Sleep(time.Duration(random.IntN(int(10 * time.Minute))))
				}
				w.em.ClearFaults()
				time.Sleep(subscriber.RecreateWindow)
				w.starts() // the others may all have died, or given up
				w.settles()
			})
		})
	}
}
