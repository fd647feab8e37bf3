package health

import (
	"fmt"
	"time"

	"github.com/watermill-ots/watermill-ots/subscriber"
)

// notReady returns why the program does not do its work, one sentence a reason:
// a subscriber without a subscription, or a subscription that is not connected,
// drains, or has ended by itself. A connected subscription without channels is
// ready: other consumers have them.
func notReady(subscribers []subscriber.Status) []string {
	reasons := []string{}
	if len(subscribers) == 0 {
		reasons = append(reasons, "there is no subscriber yet")
	}
	for _, st := range subscribers {
		if st.Closed {
			reasons = append(reasons, fmt.Sprintf("instance %s: the subscriber is closed", st.Instance))
			continue
		}
		at := atWork(st)
		for _, sub := range at {
			switch {
			case sub.Draining:
				reasons = append(reasons, sub.Topic+": draining")
			case !sub.Connected:
				reasons = append(reasons, sub.Topic+": not connected"+whyNotConnected(sub))
			}
		}
		over := over(st)
		for _, sub := range over {
			reasons = append(reasons, ended(sub))
		}
		if len(at)+len(over) == 0 {
			reasons = append(reasons, fmt.Sprintf("instance %s: nothing is subscribed", st.Instance))
		}
	}
	return reasons
}

// atWork returns the subscriptions that have not ended.
func atWork(st subscriber.Status) (subs []subscriber.SubscriptionStatus) {
	for _, sub := range st.Subscriptions {
		if !sub.Ended {
			subs = append(subs, sub)
		}
	}
	return subs
}

// over returns what has ended of topics that nobody is subscribed to any more.
func over(st subscriber.Status) (subs []subscriber.SubscriptionStatus) {
	working := make(map[string]bool)
	for _, sub := range atWork(st) {
		working[sub.Topic] = true
	}
	for _, sub := range st.Subscriptions {
		if sub.Ended && !working[sub.Topic] {
			subs = append(subs, sub)
		}
	}
	return subs
}

func ended(sub subscriber.SubscriptionStatus) string {
	if sub.Fatal == "" {
		return sub.Topic + ": ended"
	}
	return "ended by itself: " + sub.Fatal // which names the topic
}

// whyNotConnected is the newest error of the subscription's clients.
func whyNotConnected(sub subscriber.SubscriptionStatus) string {
	var last *subscriber.Failure
	for _, c := range sub.Clients {
		if c.LastError != nil && (last == nil || c.LastError.Time.After(last.Time)) {
			last = c.LastError
		}
	}
	if last == nil {
		return ""
	}
	return ": " + last.Error
}

// subscriptionID tells subscriptions apart from one look to the next.
type subscriptionID struct {
	subscriber int // index
	topic      string
	started    time.Time
}

// progress is how many messages of a subscription were settled, and since when
// that has been so while some were with handlers.
type progress struct {
	settled uint64
	since   time.Time
}

// notLive returns what a restart is likely to end, one sentence a reason.
//
// An equal number of settled messages at two looks means that none was settled
// between; if some are with handlers at both, these are still the same ones.
func (h *Health) notLive(now time.Time, subscribers []subscriber.Status) []string {
	reasons := []string{}
	h.mu.Lock()
	defer h.mu.Unlock()
	seen := make(map[subscriptionID]progress)
	for i, st := range subscribers {
		if st.Closed {
			continue
		}
		at := atWork(st)
		for _, sub := range at {
			held := 0
			for _, c := range sub.Channels {
				held += c.WithHandlers
			}
			if held == 0 || h.cfg.StuckAfter == NeverStuck {
				continue
			}
			id := subscriptionID{i, sub.Topic, sub.Started}
			t := sub.Totals
			p := progress{settled: t.Acked + t.Nacked + t.CalledBack + t.Abandoned + t.Skipped, since: now}
			if before, ok := h.progress[id]; ok && before.settled == p.settled {
				p.since = before.since
			}
			seen[id] = p
			if still := now.Sub(p.since); still >= h.cfg.StuckAfter {
				reasons = append(reasons, fmt.Sprintf("%s: no message was settled for %v, %d are with their handlers", sub.Topic, still.Round(time.Second), held))
			}
		}
		// A subscription that ended by itself stays ended. Others of the same
		// subscriber go on, and a restart would only disturb them.
		if len(at) > 0 {
			continue
		}
		for _, sub := range over(st) {
			if sub.Fatal != "" {
				reasons = append(reasons, ended(sub))
			}
		}
	}
	h.progress = seen
	return reasons
}
