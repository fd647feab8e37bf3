package main

import (
	"testing"

	"github.com/watermill-ots/watermill-ots/examples/forward/forwardtest"
	"github.com/watermill-ots/watermill-ots/examples/simple/exampletest"
)

func TestMain(m *testing.M) { exampletest.Main(m, main) }

func TestToHTTP_forwards_each_change_in_order(t *testing.T) { forwardtest.Forwards(t, false) }

func TestToHTTP_drains_at_an_interrupt(t *testing.T) {
	p := exampletest.Start(t, "read back +[1-9]", nil, "-changes", "10000")
	p.Interrupt()
	p.Wait()
	p.Want("Interrupted", "arrived in order")
	if forwarded, read := p.Figure("forwarded"), p.Figure("read back"); forwarded == 0 || read < forwarded {
		t.Errorf("%d forwarded, %d read back:\n%s", forwarded, read, p.Output())
	}
}
