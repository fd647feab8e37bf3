package subscriber

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"github.com/cenkalti/backoff/v4"
)

// asking is a logger that asks for the Status with each line and each With.
type asking struct {
	watermill.LoggerAdapter
	ask func()
}

func (l asking) Error(msg string, err error, f watermill.LogFields) { l.ask() }
func (l asking) Info(msg string, f watermill.LogFields)             { l.ask() }
func (l asking) Debug(msg string, f watermill.LogFields)            { l.ask() }
func (l asking) Trace(msg string, f watermill.LogFields)            { l.ask() }
func (l asking) With(f watermill.LogFields) watermill.LoggerAdapter { l.ask(); return l }

// What is the user's may call Status, which takes the locks of everything: within the
// bubble a deadlock ends the test.
func TestStatus_may_be_asked_for_by_the_logger_and_the_backoffs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s *Subscriber
		var asked atomic.Int64
		ask := func() {
			asked.Add(1)
			if s != nil {
				s.Status()
			}
		}
		pauses := func() backoff.BackOff { ask(); return askingBackOff(ask) }
		var refused, failed atomic.Int64
		f := fakeTunnel(20)
		reads := f.handlers["readrecords"]
		f.on("readrecords", func(body []byte) reply {
			if refused.Add(1) <= 3 {
				return errorReply(400, tunnel.ErrCodeParamInvalid) // the channel is given back
			}
			return reads(body)
		})
		version := 0
		f.on("heartbeat", func([]byte) reply { // and handed out again
			version += 2
			return heartbeatReply(fmt.Sprintf("c1:%d:OPEN", version))
		})
		s = fakeSubscriber(t, f, func(c *Config) { c.NackBackoff, c.ReadBackoff, c.ReconnectBackoff = pauses, pauses, pauses })
		s.logger = asking{ask: ask}
		_, err := s.Handle(context.Background(), "table/tunnel", func(*message.Message) error {
			if failed.Add(1) <= 100 {
				return errors.New("no")
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Minute)
		if st := s.Status().Subscriptions[0]; st.Totals.Acked != 20 || st.Totals.Nacked != 100 || refused.Load() < 4 || asked.Load() < 100 {
			t.Errorf("totals are %+v", st.Totals)
		}
		_ = closeWithin(t, s, 20*time.Second)
	})
}

// askingBackOff pauses for a second, and calls itself before.
type askingBackOff func()

func (a askingBackOff) NextBackOff() time.Duration { a(); return time.Second }
func (a askingBackOff) Reset()                     {}
