package main

import (
	"testing"

	"github.com/watermill-ots/watermill-ots/examples/simple/exampletest"
)

func TestMain(m *testing.M) { exampletest.Main(m, main) }

func TestAdvanced_delivers_each_change_to_its_place_including_dead_letters(t *testing.T) {
	t.Parallel() // it mostly waits
	p := exampletest.Start(t, "", nil, "-duration", "2s")
	p.Wait()
	p.Want("is split", "the bug is fixed", "sevens are not implemented", "3 attempts")
	written, queue, bucket, alerts := p.Figure("changes written"), p.Figure("found in SQS"), p.Figure("found in S3"), p.Figure("topic alerts")
	if queue == 0 || bucket == 0 || alerts == 0 || p.Figure("dead letters") == 0 || queue+bucket+alerts != written {
		t.Errorf("%d changes were written, %d are in SQS, %d in S3 and %d are alerts:\n%s", written, queue, bucket, alerts, p.Output())
	}
}

func TestAdvanced_drains_at_an_interrupt(t *testing.T) {
	t.Parallel() // it mostly waits
	p := exampletest.Start(t, "  sqs ", nil, "-duration", "1m")
	p.Interrupt()
	p.Wait()
	p.Want("Interrupted", "left in the tunnel")
	if p.Figure("handled") == 0 {
		t.Errorf("nothing was handled:\n%s", p.Output())
	}
}
