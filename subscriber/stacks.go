package subscriber

import (
	"bytes"
	"fmt"
	"runtime/pprof"
	"strings"
)

// maxStacks bounds the text that handlerStacks returns.
const maxStacks = 64 << 10

// handlerFrames are functions that call a handler: the Router's, those of
// Subscriber.Handle and of a batch. Who reads the output with a loop of his own has none of them.
var handlerFrames = []string{
	"watermill-ots/batching.call",
	"watermill-ots/subscriber.(*toHandler).call",
	"watermill/message.(*handler).handleMessage",
}

// ourFrames are functions of which one is in each goroutine of this library and of what it stands on that
// runs no handler.
var ourFrames = []string{"watermill-ots/subscriber.", "aliyun-tablestore-go-sdk/", "net/http.(*persistConn)", "runtime/pprof."}

// handlerStacks returns the stacks of goroutines that run a handler, each stack once
// with the number of goroutines that have it: a dump costs what it has to say, however many
// messages are stuck. A message does not know its goroutine, so all handlers are there.
// Without any, the program reads the output by itself: then all goroutines are there but
// those of the library.
func handlerStacks() string {
	var dump bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&dump, 1); err != nil { // a buffer takes everything
		return fmt.Sprintf("no stacks: %v", err)
	}
	return pickStacks(dump.String())
}

// pickStacks is handlerStacks for a goroutine profile in its text form (debug=1).
func pickStacks(profile string) string {
	var handlers, others strings.Builder
	for _, block := range strings.Split(profile, "\n\n") {
		switch {
		case mentions(block, handlerFrames):
			addStack(&handlers, block)
		case !mentions(block, ourFrames):
			addStack(&others, block)
		}
	}
	if handlers.Len() > 0 {
		return handlers.String()
	}
	return others.String()
}

func mentions(block string, frames []string) bool {
	for _, f := range frames {
		if strings.Contains(block, f) {
			return true
		}
	}
	return false
}

// addStack appends a block of a goroutine profile in a form for people: the number of
// goroutines, and a line for each function. Nothing is appended beyond maxStacks.
func addStack(to *strings.Builder, block string) {
	var text strings.Builder
	for line := range strings.Lines(block) {
		line = strings.TrimSuffix(line, "\n")
		if count, _, ok := strings.Cut(line, " @ "); ok {
			text.WriteString(count + " goroutine(s):\n")
		} else if frame, ok := strings.CutPrefix(line, "#\t"); ok {
			if _, place, ok := strings.Cut(frame, "\t"); ok { // without the address
				text.WriteString("\t" + strings.Join(strings.Fields(place), " ") + "\n")
			}
		}
	}
	if text.Len() > 0 && to.Len()+text.Len() < maxStacks {
		to.WriteString(text.String() + "\n")
	}
}
