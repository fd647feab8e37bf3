package pubsubtest

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/tests"

	"github.com/watermill-ots/watermill-ots/internal/testsize"
	pubsub "github.com/watermill-ots/watermill-ots/publisher"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

var longPublisher = flag.Bool("publisher.long", false, "run TestPublisher with the suite's full numbers of messages")

// TestPublisher runs the whole suite, restarts included, with package
// publisher: topics are its tables, and the ordered group is its ordering key.
func TestPublisher(t *testing.T) {
	f := &publisherFixture{fixture: newFixture(t, subscriber.OrderByChannel), made: make(map[string]*messageTable)}
	features := f.features(t)
	features.ForceShort = !*longPublisher
	if testing.Short() && !testsize.Full() {
		// TestReconnect has no short form: without a command it skips itself.
		t.Log("TestReconnect is left to TestPubSub/OrderByKey; -short leaves it out here")
		features.RestartServiceCommand = nil
	}
	tests.TestPubSub(t, features, f.pubSub, f.groupPubSub)
}

// publisherFixture creates the suite's publishers and subscribers for one
// service.
type publisherFixture struct {
	*fixture

	mu   sync.Mutex
	made map[string]*messageTable // by name
}

// messageTable is a topic's table, created once, when it is first needed.
type messageTable struct {
	once sync.Once
	err  error
}

func (f *publisherFixture) pubSub(t *testing.T) (message.Publisher, message.Subscriber) {
	return f.groupPubSub(t, "everybody")
}

func (f *publisherFixture) groupPubSub(t *testing.T, group string) (message.Publisher, message.Subscriber) {
	pub, err := pubsub.New(pubsub.Config{
		Endpoint: f.service.endpoint, Instance: instance, AccessKeyID: keyID, AccessKeySecret: keySecret,
		Table:       tableOf,
		OrderingKey: func(_ string, msg *message.Message) string { return string(msg.Payload) },
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	cfg := f.service.config(f.ordering)
	cfg.Unmarshaler = late{pubsub.Unmarshaler{}}
	sub, err := subscriber.New(cfg, watermill.NewStdLogger(false, false))
	if err != nil {
		t.Fatal(err)
	}
	both := &publisherPair{fixture: f, Publisher: pub, Subscriber: sub, group: group}
	t.Cleanup(func() {
		if err := both.closeSubscriber(); err != nil {
			t.Errorf("closing a subscriber: %v", err)
		}
		if err := pub.Close(); err != nil {
			t.Errorf("closing a publisher: %v", err)
		}
		for _, topic := range both.topics {
			if err := f.tables.drop(topic); err != nil {
				t.Error(err)
			}
		}
	})
	// Rows must be large, see padding.
	pad, err := message.MessageTransformPublisherDecorator(func(msg *message.Message) { msg.Metadata.Set("padding", paddingText) })(pairPublisher{both})
	if err != nil {
		t.Fatal(err)
	}
	return pad, pairSubscriber{both}
}

var paddingText = strings.Repeat(".", len(padding))

// ensure creates the topic's table with several partitions, unless it exists.
func (p *publisherPair) ensure(topic string) error {
	f, name := p.fixture, tableOf(topic)
	f.mu.Lock()
	table := f.made[name]
	if table == nil {
		table = new(messageTable)
		f.made[name] = table
		p.topics = append(p.topics, topic)
	}
	f.mu.Unlock()
	table.once.Do(func() {
		if table.err = p.Publisher.CreateTable(context.Background(), topic); table.err == nil {
			table.err = f.service.splitAt(name, "2", "4", "6") // payloads begin with digits
		}
	})
	return table.err
}

// splitAt divides the table's partitions at these keys.
func (s *service) splitAt(table string, keys ...string) error {
	body, err := json.Marshal(map[string]any{"at": keys})
	if err != nil {
		return err
	}
	resp, err := http.Post(s.admin+"/tables/"+table+"/split", "application/json", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("splitting table %s at %v: %s", table, keys, resp.Status)
	}
	return nil
}

// publisherPair is a Publisher and a Subscriber of one group.
type publisherPair struct {
	fixture    *publisherFixture
	Publisher  *pubsub.Publisher
	Subscriber *subscriber.Subscriber
	group      string
	topics     []string // topics whose tables it created; the fixture's mutex guards them
}

func (p *publisherPair) closeSubscriber() error {
	err := p.Subscriber.Close()
	if onlyUnsettled(err) { // as in groupSubscriber
		return nil
	}
	return err
}

// pairPublisher creates the table of a topic that is published to before it has
// a subscriber.
type pairPublisher struct{ *publisherPair }

func (p pairPublisher) Publish(topic string, messages ...*message.Message) error {
	if err := p.ensure(topic); err != nil {
		return err
	}
	return p.Publisher.Publish(topic, messages...)
}

func (p pairPublisher) Close() error { return p.Publisher.Close() }

// pairSubscriber maps topics to the table and the group: "table/group".
type pairSubscriber struct{ *publisherPair }

var _ message.SubscribeInitializer = pairSubscriber{}

func (p pairSubscriber) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	return p.Subscriber.Subscribe(ctx, tableOf(topic)+"/"+p.group)
}

func (p pairSubscriber) SubscribeInitialize(topic string) error {
	if err := p.ensure(topic); err != nil {
		return err
	}
	return p.Subscriber.SubscribeInitialize(tableOf(topic) + "/" + p.group)
}

func (p pairSubscriber) Close() error { return p.closeSubscriber() }
