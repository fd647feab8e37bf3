package publisher

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	pb "github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"
	"github.com/cenkalti/backoff/v4"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/watermill-ots/watermill-ots/internal/service"
	"github.com/watermill-ots/watermill-ots/ots"
)

// keyed returns n messages "key/1", "key/2", ... of one ordering key.
func keyed(key string, n int) (messages []*message.Message) {
	for i := range n {
		msg := message.NewMessage(fmt.Sprintf("%s/%d", key, i+1), []byte("payload"))
		SetOrderingKey(msg, key)
		messages = append(messages, msg)
	}
	return messages
}

// loose returns n messages without an ordering key.
func loose(n int) (messages []*message.Message) {
	for i := range n {
		messages = append(messages, message.NewMessage(fmt.Sprintf("loose/%d", i+1), []byte("payload")))
	}
	return messages
}

// publishError returns the *PublishError of err or fails the test.
func publishError(t testing.TB, err error) *PublishError {
	t.Helper()
	var failure *PublishError
	if !errors.As(err, &failure) {
		t.Fatalf("%v is not a PublishError", err)
	}
	return failure
}

func TestPublish_messages_without_a_key_fill_requests_and_those_of_one_key_take_one_each(t *testing.T) {
	for _, c := range []struct {
		what     string
		messages []*message.Message
		want     []int // rows of each request
	}{
		{"without a key", loose(450), []int{200, 200, 50}},
		{"of one key", keyed("a", 3), []int{1, 1, 1}},
		{"of two keys", append(keyed("a", 3), keyed("b", 1)...), []int{2, 1, 1}},
		{"without even a UUID", []*message.Message{message.NewMessage("", nil), message.NewMessage("", nil)}, []int{2}},
	} {
		f := new(fakeTable)
		if err := newFake(t, f, nil).Publish("orders", c.messages...); err != nil {
			t.Fatal(err)
		}
		var got []int
		for _, r := range f.requests {
			got = append(got, len(r.rows))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("messages %s: requests of %v rows, want %v", c.what, got, c.want)
		}
	}
}

func TestPublish_requests_stay_within_MaxBatchBytes(t *testing.T) {
	f := new(fakeTable)
	p := newFake(t, f, nil)
	messages := loose(16)
	for i, msg := range messages {
		msg.Payload = make([]byte, 500_000)
		if i == 7 {
			msg.Payload = make([]byte, maxColumnBytes) // with its metadata more than the default
			msg.Metadata.Set("large", strings.Repeat("x", maxColumnBytes-100_000))
		}
	}
	if err := p.Publish("orders", messages...); err != nil {
		t.Fatal(err)
	}
	for _, r := range f.requests {
		if r.body > DefaultMaxBatchBytes && len(r.rows) > 1 || r.body > maxBatchBytes {
			t.Errorf("a request of %d rows has %d bytes", len(r.rows), r.body)
		}
	}
	if len(f.written) != len(messages) {
		t.Errorf("%d rows of %d", len(f.written), len(messages))
	}
}

func TestPublish_failed_rows_are_sent_again_alone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := new(fakeTable)
		f.verdict = func(rows []stored) verdict {
			if len(rows) == 3 {
				return verdict{rows: map[int]string{1: "OTSRowOperationConflict"}}
			}
			return verdict{}
		}
		if err := newFake(t, f, nil).Publish("orders", loose(3)...); err != nil {
			t.Fatal(err)
		}
		if len(f.requests) != 2 || len(f.requests[1].rows) != 1 || f.requests[1].rows[0].uuid != "loose/2" {
			t.Errorf("requests were %+v", f.requests)
		}
	})
}

func TestPublish_gives_up_after_thirty_seconds_without_progress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeTable{verdict: func([]stored) verdict { return verdict{answer: &codeError{503, "OTSServerBusy"}} }}
		start := time.Now()
		err := newFake(t, f, nil).Publish("orders", loose(3)...)
		if took := time.Since(start); took < 20*time.Second || took > 40*time.Second {
			t.Errorf("took %v", took)
		}
		failure := publishError(t, err)
		var se *ots.ServiceError
		if !errors.As(err, &se) || se.Code != "OTSServerBusy" || se.Op != "BatchWriteRow" || len(failure.Failed) != 3 {
			t.Errorf("the error is %v", err)
		}
		if first, second := f.requests[0].at, f.requests[1].at; second.Sub(first) > 100*time.Millisecond {
			t.Errorf("the second try came after %v", second.Sub(first))
		}
	})
}

func TestPublish_backoff_starts_again_with_every_row_stored(t *testing.T) {
	for what, c := range map[string]struct {
		messages []*message.Message
		verdict  func(try int, rows []stored) verdict
	}{
		"all but one of a request fail": {loose(20), func(_ int, rows []stored) verdict {
			v := verdict{rows: make(map[int]string)}
			for i := range rows[1:] {
				v.rows[i+1] = "OTSServerBusy"
			}
			return v
		}},
		"two of three requests fail": {keyed("a", 10), func(try int, rows []stored) verdict {
			if try%3 == 0 {
				return verdict{}
			}
			return verdict{answer: &codeError{503, "OTSServerBusy"}}
		}},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := new(fakeTable)
			f.verdict = func(rows []stored) verdict { return c.verdict(len(f.requests), rows) }
			p := newFake(t, f, func(cfg *Config) {
				cfg.RetryBackoff = func() backoff.BackOff { return backoff.WithMaxRetries(backoff.NewConstantBackOff(time.Second), 2) }
			})
			if err := p.Publish("orders", c.messages...); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		})
	}
}

func TestPublish_stops_at_a_failure_that_is_not_transient(t *testing.T) {
	f := &fakeTable{verdict: func(rows []stored) verdict {
		for i, r := range rows {
			if r.uuid == "a/2" {
				return verdict{rows: map[int]string{i: "OTSConditionCheckFail"}}
			}
		}
		return verdict{}
	}}
	err := newFake(t, f, nil).Publish("orders", keyed("a", 4)...)
	failure := publishError(t, err)
	var outcomes []string
	for _, m := range failure.Failed {
		outcomes = append(outcomes, fmt.Sprintf("%d %s %v", m.Index, m.UUID, errors.Is(m.Err, ErrNotSent)))
	}
	if want := []string{"1 a/2 false", "2 a/3 true", "3 a/4 true"}; !slices.Equal(outcomes, want) {
		t.Errorf("outcomes are %v, want %v", outcomes, want)
	}
	if len(f.requests) != 2 {
		t.Errorf("%d requests", len(f.requests))
	}
	want := `publishing to table orders: 3 of 4 messages were not stored, first message "a/2" (number 2): ` +
		`BatchWriteRow: the service answered OTSConditionCheckFail: injected (request request-1)`
	if err.Error() != want {
		t.Errorf("the error reads\n%v, want\n%v", err, want)
	}
}

func TestPublish_message_that_does_not_fit_fails_before_anything_is_sent(t *testing.T) {
	for _, c := range []struct {
		what  string
		spoil func(msg *message.Message)
		want  string
	}{
		{"payload", func(m *message.Message) { m.Payload = make([]byte, maxColumnBytes+1) }, "its payload has 2097153 bytes, a column takes 2097152"},
		{"metadata", func(m *message.Message) { m.Metadata.Set("m", strings.Repeat("x", maxColumnBytes)) }, "its metadata has 2097160 bytes as JSON, a column takes 2097152"},
		{"metadata's text", func(m *message.Message) { m.Metadata.Set("m", "\xff") }, `its metadata "m" is not UTF-8`},
		{"UUID's text", func(m *message.Message) { m.UUID = "\xff"; SetOrderingKey(m, "a") }, "its UUID is not UTF-8"},
		{"UUID's text as the key", func(m *message.Message) { m.UUID = "\xff" }, "its UUID is not UTF-8"},
		{"UUID", func(m *message.Message) { m.UUID = strings.Repeat("x", 1025) }, "its UUID has 1025 bytes, a primary key column takes 1024"},
		{"ordering key", func(m *message.Message) { SetOrderingKey(m, strings.Repeat("x", 1025)) }, "its ordering key has 1025 bytes, a primary key column takes 1024"},
		{"ordering key's text", func(m *message.Message) { SetOrderingKey(m, "\xff") }, "its ordering key is not UTF-8"},
		{"sum", func(m *message.Message) {
			m.Payload = make([]byte, maxColumnBytes)
			m.Metadata.Set("m", strings.Repeat("x", maxColumnBytes-100))
		}, "it needs a request of 41"},
	} {
		f := new(fakeTable)
		messages := loose(3)
		c.spoil(messages[1])
		err := newFake(t, f, nil).Publish("orders", messages...)
		if !errors.Is(err, ErrMessage) || !strings.Contains(err.Error(), c.want) || len(f.requests) > 0 {
			t.Errorf("%s: the error is %v after %d requests", c.what, err, len(f.requests))
		}
		if failed := publishError(t, err).Failed; len(failed) != 3 || failed[1].UUID != messages[1].UUID || !errors.Is(failed[0].Err, ErrNotSent) {
			t.Errorf("%s: failed are %v", c.what, failed)
		}
	}
}

func TestPublish_ends_with_the_context_of_a_message(t *testing.T) {
	for what, f := range map[string]*fakeTable{
		"in a call":  {verdict: func([]stored) verdict { return verdict{hang: true} }},
		"in a pause": {verdict: func([]stored) verdict { return verdict{answer: &codeError{503, "OTSServerBusy"}} }},
	} {
		synctest.Test(t, func(t *testing.T) {
			reason := fmt.Errorf("the batch is over: %w", context.Canceled)
			ctx, cancel := context.WithCancelCause(t.Context())
			messages := loose(3)
			messages[2].SetContext(ctx)
			time.AfterFunc(10*time.Second, func() { cancel(reason) })
			start := time.Now()
			err := newFake(t, f, nil).Publish("orders", messages...)
			if took := time.Since(start); took != 10*time.Second {
				t.Errorf("%s: took %v", what, took)
			}
			if !errors.Is(err, reason) || len(publishError(t, err).Failed) != 3 {
				t.Errorf("%s: the error is %v", what, err)
			}
		})
	}
}

func TestPublish_retries_after_a_cancelled_call_that_was_not_its_own(t *testing.T) {
	elsewhere := fmt.Errorf("the shared call was given up: %w", context.Canceled)
	for _, what := range []string{"transport", "CredentialsProvider"} {
		synctest.Test(t, func(t *testing.T) {
			f, asked := new(fakeTable), 0
			f.verdict = func([]stored) verdict {
				if what == "transport" && len(f.requests) <= 2 {
					return verdict{answer: elsewhere}
				}
				return verdict{}
			}
			p := newFake(t, f, func(c *Config) {
				c.Credentials = ots.CredentialsProviderFunc(func(context.Context) (ots.Credentials, error) {
					if asked++; what == "CredentialsProvider" && asked <= 2 {
						return ots.Credentials{}, elsewhere
					}
					return ots.Credentials{AccessKeyID: "id", AccessKeySecret: "secret"}, nil
				})
			})
			if err := p.Publish("orders", loose(1)...); err != nil || len(f.written) != 1 {
				t.Errorf("%s: %v, written are %v", what, err, f.written)
			}
		})
	}
}

func TestPublish_request_without_an_answer_is_sent_again_after_CallTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := new(fakeTable)
		f.verdict = func([]stored) verdict { return verdict{hang: len(f.requests) == 1} }
		if err := newFake(t, f, nil).Publish("orders", loose(1)...); err != nil {
			t.Fatal(err)
		}
		if d := f.requests[1].at.Sub(f.requests[0].at); d < DefaultCallTimeout || d > DefaultCallTimeout+time.Second {
			t.Errorf("sent again after %v", d)
		}
	})
}

func TestPublish_malformed_answer_is_a_transient_failure(t *testing.T) {
	ok := func() *pb.RowInBatchWriteRowResponse {
		return &pb.RowInBatchWriteRowResponse{IsOk: proto.Bool(true), Consumed: &pb.ConsumedCapacity{CapacityUnit: &pb.CapacityUnit{Read: proto.Int32(0), Write: proto.Int32(1)}}}
	}
	answer := func(table string, rows ...*pb.RowInBatchWriteRowResponse) *pb.BatchWriteRowResponse {
		return &pb.BatchWriteRowResponse{Tables: []*pb.TableInBatchWriteRowResponse{{TableName: &table, Rows: rows}}}
	}
	for what, body := range map[string]protoadapt.MessageV1{
		"nothing":                        &pb.BatchWriteRowResponse{},
		"a message of another type":      &pb.Error{Code: proto.String("code")},
		"an outcome too few":             answer("orders", ok()),
		"an outcome too many":            answer("orders", ok(), ok(), ok()),
		"another table":                  answer("others", ok(), ok()),
		"a failure without a reason":     answer("orders", ok(), &pb.RowInBatchWriteRowResponse{IsOk: proto.Bool(false)}),
		"a success without its capacity": answer("orders", ok(), &pb.RowInBatchWriteRowResponse{IsOk: proto.Bool(true)}),
	} {
		synctest.Test(t, func(t *testing.T) {
			f := new(fakeTable)
			f.verdict = func([]stored) verdict {
				if len(f.requests) == 1 {
					return verdict{body: body}
				}
				return verdict{}
			}
			if err := newFake(t, f, nil).Publish("orders", loose(2)...); err != nil {
				t.Errorf("%s: %v", what, err)
			}
			if len(f.requests) != 2 || len(f.written) != 2 {
				t.Errorf("%s: %d requests, written are %v", what, len(f.requests), f.written)
			}
		})
	}
}

func TestPublish_uses_old_credentials_while_the_provider_fails_until_they_expire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("no role")
		asked := 0
		f := new(fakeTable)
		p := newFake(t, f, func(c *Config) {
			c.RetryBackoff = func() backoff.BackOff { return &backoff.StopBackOff{} }
			c.Credentials = ots.CredentialsProviderFunc(func(context.Context) (ots.Credentials, error) {
				if asked++; asked > 1 {
					return ots.Credentials{}, broken
				}
				return ots.Credentials{AccessKeyID: "id", AccessKeySecret: "secret", Expires: time.Now().Add(time.Hour)}, nil
			})
		})
		for _, c := range []struct {
			wait time.Duration
			want error
		}{{0, nil}, {59*time.Minute + time.Second, nil}, {time.Minute, broken}} {
			time.Sleep(c.wait)
			if err := p.Publish("orders", loose(1)...); !errors.Is(err, c.want) {
				t.Errorf("after %v more: %v, want %v", c.wait, err, c.want)
			}
		}
		if asked != 3 {
			t.Errorf("the provider was asked %d times", asked)
		}
	})
}

func TestPublish_asks_for_other_credentials_after_a_refusal_and_before_they_expire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		f := new(fakeTable)
		f.verdict = func([]stored) verdict {
			if len(f.requests) == 2 {
				return verdict{answer: &codeError{403, "OTSAuthFailed"}}
			}
			return verdict{}
		}
		p := newFake(t, f, func(c *Config) {
			c.Credentials = ots.CredentialsProviderFunc(func(context.Context) (ots.Credentials, error) {
				asked++
				time.Sleep(time.Millisecond) // so that concurrent calls sign with the old ones
				return ots.Credentials{AccessKeyID: fmt.Sprint("id", asked), AccessKeySecret: "secret", Expires: time.Now().Add(time.Hour)}, nil
			})
		})
		for try := 1; try <= 5; try++ {
			err := p.Publish("orders", loose(1)...)
			if refused := errors.Is(err, ots.ErrAuth); refused != (try == 2) || err != nil && !refused {
				t.Errorf("try %d: %v", try, err)
			}
			if try == 3 {
				time.Sleep(59*time.Minute + time.Second) // then others are requested, concurrently with the calls
			}
			time.Sleep(service.AskPause)
		}
		var keys []string
		for _, r := range f.requests {
			keys = append(keys, r.key)
		}
		if want := []string{"id1", "id1", "id2", "id2", "id3"}; !slices.Equal(keys, want) {
			t.Errorf("signed with %v, want %v", keys, want)
		}
	})
}

func TestClose_waits_for_running_calls_and_cancels_them_after_CloseTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeTable{verdict: func([]stored) verdict { return verdict{hang: true} }}
		p := newFake(t, f, nil)
		outcome := make(chan error, 1)
		go func() { outcome <- p.Publish("orders", loose(1)...) }()
		synctest.Wait()
		start := time.Now()
		if err := p.Close(); !errors.Is(err, ErrCloseTimeout) {
			t.Errorf("Close returned %v", err)
		}
		if took := time.Since(start); took != DefaultCloseTimeout {
			t.Errorf("Close took %v", took)
		}
		if err := <-outcome; !errors.Is(err, ErrCloseTimeout) {
			t.Errorf("Publish returned %v", err)
		}
		if err := p.Publish("orders", loose(1)...); !errors.Is(err, ErrClosed) {
			t.Errorf("Publish after Close returned %v", err)
		}
	})
}

func TestClose_returns_nil_when_running_calls_end_in_time(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := new(fakeTable)
		f.verdict = func([]stored) verdict {
			if len(f.requests) == 1 {
				return verdict{answer: errBroken}
			}
			return verdict{}
		}
		p := newFake(t, f, nil)
		outcome := make(chan error, 1)
		go func() { outcome <- p.Publish("orders", keyed("a", 5)...) }()
		synctest.Wait() // it pauses after the failure
		if err := errors.Join(p.Close(), <-outcome, p.Close()); err != nil {
			t.Error(err)
		}
		if len(f.written) != 5 {
			t.Errorf("written are %v", f.written)
		}
	})
}

func TestPublish_topic_that_is_not_a_table_name_is_refused(t *testing.T) {
	f := new(fakeTable)
	p := newFake(t, f, nil)
	for _, topic := range []string{"", "a-b", "a/b", "1a", "ä", strings.Repeat("x", 256)} {
		if err := p.Publish(topic, loose(1)...); !errors.Is(err, ErrNoTable) || !strings.Contains(err.Error(), "Config.Table") {
			t.Errorf("%q: %v", topic, err)
		}
	}
	mapped := newFake(t, f, func(c *Config) { c.Table = func(topic string) string { return strings.ReplaceAll(topic, "-", "_") } })
	if err := mapped.Publish("a-b", loose(1)...); err != nil {
		t.Error(err)
	}
}

// BenchmarkPublish measures the cost of a message besides the network.
func BenchmarkPublish(b *testing.B) {
	for name, messages := range map[string][]*message.Message{"200 without a key": loose(200), "200 of 20 keys": twenty()} {
		b.Run(name, func(b *testing.B) {
			f := new(fakeTable)
			p := newFake(b, f, nil)
			b.ReportAllocs()
			for b.Loop() {
				if err := p.Publish("orders", messages...); err != nil {
					b.Fatal(err)
				}
				f.written, f.requests = nil, nil
			}
			b.ReportMetric(float64(b.N*len(messages))/b.Elapsed().Seconds(), "messages/s")
		})
	}
}

func twenty() (messages []*message.Message) {
	for i := range 20 {
		messages = append(messages, keyed(fmt.Sprint("key", i), 10)...)
	}
	return messages
}
