package subscriber

// endedSubscriptions is what is kept of the subscriptions of a topic that have ended.
type endedSubscriptions struct {
	last      SubscriptionStatus // of the one that ended last
	tally     tally
	calls     failedCalls
	unsettled unsettled
	fatal     error // the last one
}

// add takes in a subscription that has ended, whose last status is given.
func (e *endedSubscriptions) add(sub *subscription, last SubscriptionStatus) {
	e.last = last
	sums := sub.sums()
	e.tally.add(&sums)
	e.calls.addAll(&sub.observer.calls)
	e.unsettled.add(&sub.observer.unsettled)
	if err := sub.fatal(); err != nil {
		e.fatal = err
	}
}

func (e *endedSubscriptions) status() SubscriptionStatus {
	st := e.last
	st.Totals = e.tally.totals()
	st.Errors, _ = e.calls.status()
	return st
}
