package health

import (
	"fmt"
	"time"

	"github.com/watermill-ots/watermill-ots/subscriber"
)

// failingAfter is how long calls must have failed without success before a subscription
// is not ready: a retry resolves a single failure or a short busy period of the service.
// A kubelet that probes every 5 seconds sees the failure 15 seconds after it began.
const failingAfter = 10 * time.Second

// notReady returns why the program is not ready, one sentence for each reason: a
// subscriber without a subscription, or a subscription that is not connected, whose
// calls fail, that drains, or that has ended by itself. A connected subscription without
// channels is ready: other consumers have the channels. A subscription whose tunnel was
// read to its end has done its work. fault reports whether one of the reasons is a fault,
// rather than part of a start or an end.
func notReady(now time.Time, subscribers []subscriber.Status) (reasons []string, fault bool) {
	reasons = []string{}
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
				why := whyNotConnected(sub)
				reasons = append(reasons, sub.Topic+": not connected"+why)
				fault = fault || why != "" || now.Sub(sub.Started) >= failingAfter
			default:
				for _, t := range sub.Trouble {
					if d := now.Sub(t.Since); d >= failingAfter {
						reasons = append(reasons, fmt.Sprintf("%s: for %v %s", sub.Topic, d.Round(time.Second), t))
						fault = true
					}
				}
			}
		}
		over := over(st)
		for _, sub := range over {
			if !sub.Finished {
				reasons = append(reasons, ended(sub))
			}
			fault = fault || sub.Fatal != ""
		}
		if len(at)+len(over) == 0 {
			reasons = append(reasons, fmt.Sprintf("instance %s: nothing is subscribed", st.Instance))
		}
	}
	return reasons, fault
}

// down returns the batchers that are down, one sentence for each.
func down(batchings []BatchingStatus) (reasons []string) {
	for _, b := range batchings {
		for _, st := range b.Batchers {
			if !st.DownSince.IsZero() {
				reasons = append(reasons, fmt.Sprintf("%s, batcher %s: nothing has succeeded since %s (%d probes): %s",
					b.Name, st.Batcher, st.DownSince.UTC().Format(time.RFC3339), st.Probes, st.DownError))
			}
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

// over returns the ended subscriptions of topics without a running one.
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

// whyNotConnected returns the cause in words and its error, or else the latest error of
// the subscription's clients.
func whyNotConnected(sub subscriber.SubscriptionStatus) string {
	for _, t := range sub.Trouble {
		if t.Op == "connect" || len(sub.Clients) == 0 { // without clients: the start fails
			return ": " + t.Cause + ": " + t.Error
		}
	}
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

// subscriptionID identifies a subscription between snapshots.
type subscriptionID struct {
	subscriber int // index
	topic      string
	started    time.Time
}

// progress is how many messages of a subscription were settled, and since when that
// number has not changed while some messages were with handlers.
type progress struct {
	settled uint64
	since   time.Time
}

// notLive returns the problems that a restart is likely to fix, one sentence for each.
//
// If two snapshots have the same number of settled messages, none was settled between
// them; if both have messages with handlers, these are the same messages.
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
	}
	h.progress = seen
	return append(reasons, allFailed(subscribers)...)
}

// allFailed returns why the program cannot work any longer: all subscriptions have ended
// by themselves, for good. While a subscription of any subscriber still runs or has not
// begun, there is no such reason: a restart would only interrupt it.
func allFailed(subscribers []subscriber.Status) (reasons []string) {
	for _, st := range subscribers {
		if st.Closed {
			continue
		}
		if len(atWork(st)) > 0 || len(st.Subscriptions) == 0 {
			return nil
		}
		for _, sub := range over(st) {
			if sub.Fatal != "" {
				reasons = append(reasons, ended(sub))
			}
		}
	}
	return reasons
}
