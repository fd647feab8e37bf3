package subscriber

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"

	"github.com/watermill-ots/watermill-ots/internal/service"
)

// reads returns the tokens of the ReadRecords calls.
func reads(t *testing.T, f *fakeService) (tokens []string) {
	t.Helper()
	for _, body := range f.bodies("readrecords") {
		var req protocol.ReadRecordsRequest
		unmarshal(t, body, &req)
		tokens = append(tokens, req.GetToken())
	}
	return tokens
}

func TestReader_failed_read_is_repeated_with_pauses_from_the_same_token(t *testing.T) {
	corrupt := pageReply("t1", []*protocol.Record{someRecord(1)})
	corrupt.body[len(corrupt.body)/2] ^= 0xff
	for name, c := range map[string]struct {
		failure reply
		least   time.Duration // between two reads
	}{
		"network":      {reply{err: errNetwork}, 40 * time.Millisecond},
		"unavailable":  {unavailable, 40 * time.Millisecond},
		"busy":         {errorReply(503, service.CodeServerBusy), throttlePause},
		"corrupt page": {corrupt, 40 * time.Millisecond},
		"no next":      {pageReply("", nil), 40 * time.Millisecond},
		"auth":         {errorReply(403, service.CodeAuthFailed), 40 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := fakeTunnel(0)
				logger := watermill.NewCaptureLogger()
				calls := 0
				f.on("readrecords", func([]byte) reply {
					if calls++; calls <= 6 {
						return c.failure
					}
					if calls == 7 {
						return pageReply("t1", []*protocol.Record{someRecord(1)})
					}
					return pageReply("t1", nil)
				})
				start := time.Now()
				s, err := New(Config{Endpoint: "http://localhost", Instance: "inst", AccessKeyID: "id", AccessKeySecret: "hush-hush", Transport: f}, logger)
				if err != nil {
					t.Fatal(err)
				}
				messages, err := s.Subscribe(context.Background(), "table/tunnel")
				if err != nil {
					t.Fatal(err)
				}
				(<-messages).Ack()
				if err := s.Close(); err != nil {
					t.Error(err)
				}
				if got := reads(t, f)[:7]; !slices.Equal(got, slices.Repeat([]string{"t0"}, 7)) {
					t.Errorf("read from %v", got)
				}
				at := f.times("readrecords", start)
				for i := 1; i < 7; i++ {
					if pause := at[i] - at[i-1]; pause < c.least || pause > 5*time.Second*12/10 {
						t.Errorf("pause %d is %v", i, pause)
					}
				}
				told := 0
				for _, m := range logger.Captured()[watermill.ErrorLogLevel] {
					var ce *ChannelError
					if errors.As(m.Err, &ce) && ce.Channel == "c1" && ce.Table == "table" && ce.Tunnel == "tunnel" && !strings.Contains(m.Err.Error(), "hush") {
						told++
					}
				}
				detail := 0
				for _, m := range linesOf(logger, watermill.DebugLogLevel, "Read failed; retrying") {
					if err, _ := m.Fields["err"].(string); strings.HasPrefix(err, "table/tunnel channel c1: ") && !strings.Contains(err, "hush") {
						detail++
					}
				}
				if told != 1 || detail != 5 {
					t.Errorf("%d of 6 failures are logged with the channel at Error and %d at Debug, want the first one and the others", told, detail)
				}
			})
		})
	}
}

func TestL6_reading_stops_while_the_window_is_full(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := fakeTunnel(0)
		n := int64(0)
		f.on("readrecords", func([]byte) reply {
			n += 10
			var rs []*protocol.Record
			for i := range int64(10) {
				rs = append(rs, someRecord(n+i))
			}
			return pageReply("t", rs)
		})
		s := fakeSubscriber(t, f, func(c *Config) { c.MaxInFlight = 25; c.CloseTimeout = time.Second })
		messages := subscribeTo(t, s)
		time.Sleep(10 * time.Minute)
		if got := len(reads(t, f)); got != 3 {
			t.Errorf("%d pages of 10 were read with MaxInFlight 25, want 3", got)
		}
		for range 10 {
			(<-messages).Ack()
		}
		time.Sleep(10 * time.Minute)
		if got := len(reads(t, f)); got != 4 {
			t.Errorf("%d pages were read after one was acked, want 4", got)
		}
		_ = s.Close()
	})
}
