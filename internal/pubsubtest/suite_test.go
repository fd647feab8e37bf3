package pubsubtest

import (
	"sync"
	"testing"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/tests"

	"github.com/watermill-ots/watermill-ots/internal/testsize"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// orderings are the orderings for which the whole suite runs.
var orderings = []struct {
	name     string
	ordering subscriber.Ordering
}{
	{"OrderByKey", subscriber.OrderByKey},
	{"OrderByChannel", subscriber.OrderByChannel},
}

func TestPubSub(t *testing.T) {
	for _, o := range orderings {
		t.Run(o.name, func(t *testing.T) {
			f := newFixture(t, o.ordering)
			features := f.features(t)
			features.ForceShort = !testsize.Full() // Watermill's short form: fewer messages
			if o.ordering == subscriber.OrderByChannel && !testsize.Full() {
				// TestReconnect has no short form: without a command it skips itself.
				t.Log("TestReconnect with OrderByChannel is left to TestPublisher: here only in the full form, " + testsize.Variable + "=1")
				features.RestartServiceCommand = nil
			}
			tests.TestPubSub(t, features, f.pubSub, f.groupPubSub)
		})
	}
	t.Run("Unordered", func(t *testing.T) {
		f := newFixture(t, subscriber.Unordered)
		features := f.features(t)
		features.GuaranteedOrder = false
		features.RestartServiceCommand = nil
		features.ForceShort = true
		tests.TestPubSub(t, features, f.pubSub, f.groupPubSub)
	})
}

// TestPubSubStress runs several suites side by side with one emulator.
func TestPubSubStress(t *testing.T) {
	if !testsize.Full() || testing.Short() {
		t.Skip("it repeats TestPubSub side by side: only in the full form, " + testsize.Variable + "=1, and not with -short")
	}
	for _, o := range orderings {
		t.Run(o.name, func(t *testing.T) {
			f := newFixture(t, o.ordering)
			features := f.features(t)
			limitStress(t, &features)
			tests.TestPubSubStressTest(t, features, f.pubSub, f.groupPubSub)
		})
	}
}

// TestReplay runs the suite's test for subscribers that receive what others
// have consumed: each has its own tunnel that starts at the oldest change.
func TestReplay(t *testing.T) {
	for _, o := range orderings {
		t.Run(o.name, func(t *testing.T) {
			f := newFixture(t, o.ordering)
			features := f.features(t)
			features.NewSubscriberReceivesOldMessages = true
			tests.TestNewSubscriberReceivesOldMessages(t, tests.TestContext{TestID: tests.NewTestID(), Features: features}, f.replayPubSub)
		})
	}
}

// fixture creates the suite's publishers and subscribers for one service.
type fixture struct {
	service  *service
	tables   *tables
	ordering subscriber.Ordering
}

func newFixture(t *testing.T, ordering subscriber.Ordering) *fixture {
	s := startService(t)
	return &fixture{service: s, tables: newTables(t, s), ordering: ordering}
}

// features declares what the subscriber promises; the package documentation
// gives the reasons.
func (f *fixture) features(t *testing.T) tests.Features {
	return tests.Features{
		ConsumerGroups:                   true,
		ExactlyOnceDelivery:              false,
		GuaranteedOrder:                  true,
		Persistent:                       true,
		RestartServiceCommand:            f.service.restartCommand(t),
		NewSubscriberReceivesOldMessages: false,
		ContextPreserved:                 false,
	}
}

func (f *fixture) pubSub(t *testing.T) (message.Publisher, message.Subscriber) {
	return f.groupPubSub(t, "everybody")
}

func (f *fixture) groupPubSub(t *testing.T, group string) (message.Publisher, message.Subscriber) {
	return f.make(t, group, false, f.service.config(f.ordering))
}

func (f *fixture) replayPubSub(t *testing.T) (message.Publisher, message.Subscriber) {
	cfg := f.service.config(f.ordering)
	cfg.Tunnel.Earliest = true
	return f.make(t, "replay_"+watermill.NewShortUUID(), true, cfg)
}

// make creates a publisher and a subscriber. They are closed at the end of the
// test at the latest (TestPublishSubscribeInOrder leaves its subscribers open),
// and the tables that they created are deleted.
func (f *fixture) make(t *testing.T, group string, own bool, cfg subscriber.Config) (message.Publisher, message.Subscriber) {
	inner, err := subscriber.New(cfg, watermill.NewStdLogger(false, false))
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var topics []string
	pub := &publisher{tables: f.tables, ordering: f.ordering}
	sub := &groupSubscriber{
		Subscriber: inner, tables: f.tables, group: group, own: own,
		made: func(topic string) {
			mu.Lock()
			defer mu.Unlock()
			topics = append(topics, topic)
		},
	}
	t.Cleanup(func() {
		if err := sub.Close(); err != nil {
			t.Errorf("closing a subscriber: %v", err)
		}
		mu.Lock()
		defer mu.Unlock()
		for _, topic := range topics {
			if err := f.tables.drop(topic); err != nil {
				t.Error(err)
			}
		}
	})
	return pub, sub
}
