package health

import (
	"fmt"
	"time"

	"github.com/watermill-ots/watermill-ots/subscriber"
)

// failingAfter is how long calls must have failed without success until a subscription is
// not ready: one failure, or a moment of a busy service, is mended by a retry. A
// kubelet that asks every 5 seconds sees it 15 seconds after the first failure.
const failingAfter = 10 * time.Second

// notReady returns why the program does not do its work, one sentence a reason:
// a subscriber without a subscription, or a subscription that is not connected,
// whose calls fail, that drains, or has ended by itself. A connected subscription
// without channels is ready: other consumers have them. One whose tunnel was read to
// its end did its work. fault reports whether one
// of the reasons is a fault, not a part of a start or an end.
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

// down returns which batchers are down, one sentence each.
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

// whyNotConnected is why in words, and the newest error of the subscription's clients.
func whyNotConnected(sub subscriber.SubscriptionStatus) string {
	for _, t := range sub.Trouble {
		if t.Op == "connect" || len(sub.Clients) == 0 { // the second: it fails to start
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
	}
	h.progress = seen
	return append(reasons, allFailed(subscribers)...)
}

// allFailed returns why nothing can work any more: the last subscriptions have ended by
// themselves, and stay ended. While any other one works or is yet to begin, of
// whatever subscriber, there is no reason: a restart would only disturb it.
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
