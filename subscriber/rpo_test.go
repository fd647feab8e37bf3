package subscriber_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

func TestRPO_is_what_the_service_says_of_reads_and_checkpoints(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	s, messages := subscribe(t, b, nil)
	before := time.Now()
	put(t, b, "a", 1, 2)
	first := receive(t, messages)
	testbed.Eventually(t, 5*time.Second, "both records count as read, none as committed", func() bool {
		rpo, err := s.RPO(t.Context(), testbed.Topic)
		if err != nil {
			t.Fatal(err)
		}
		return rpo.ReadRecords == 2 && rpo.CommittedRecords == 0 && rpo.Read.After(before) && rpo.Committed.Before(rpo.Read) && rpo.Stage != ""
	})
	first.Ack()
	receive(t, messages).Ack()
	testbed.Eventually(t, 5*time.Second, "both count as committed", func() bool {
		rpo, err := s.RPO(t.Context(), testbed.Topic)
		return err == nil && rpo.CommittedRecords == 2 && rpo.Committed.After(before)
	})
}

func TestRPO_errors_say_what_was_asked(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	s, _ := subscribe(t, b, nil)
	if _, err := s.RPO(t.Context(), "other/tunnel"); !errors.Is(err, subscriber.ErrNotSubscribed) {
		t.Errorf("for a topic without subscription the error is %v", err)
	}
	b.Emulator.Inject(emulator.Fault{Operation: "tunnel/getrpobyoffset", Code: "OTSServerBusy"})
	_, err := s.RPO(t.Context(), testbed.Topic)
	var se *ots.ServiceError
	if !errors.As(err, &se) || se.Op != "getrpobyoffset" || se.Code != "OTSServerBusy" {
		t.Errorf("the error is %v", err)
	}
	b.Emulator.Inject(emulator.Fault{Operation: "tunnel/getrpo", Hang: true})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.RPO(ctx, testbed.Topic); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the error is %v", err)
	}
}
