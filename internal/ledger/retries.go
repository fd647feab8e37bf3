package ledger

import "time"

// retries is a binary heap of the entries in state retrying, the one due first
// on top. Entries leave it only from the top: an entry cannot be settled while it is
// retrying, and Drain and Fence drop the whole heap.
//
// container/heap would allocate for each push.
type retries []retry

type retry struct {
	at time.Time
	e  *entry
}

// push adds e and reports whether it is the one due first.
func (h *retries) push(e *entry, at time.Time) (first bool) {
	*h = append(*h, retry{at, e})
	s := *h
	i := len(s) - 1
	for i > 0 {
		parent := (i - 1) / 2
		if !s[i].at.Before(s[parent].at) {
			break
		}
		s[i], s[parent] = s[parent], s[i]
		i = parent
	}
	return i == 0
}

// popDue removes and returns the entry due first, if it is due at now.
func (h *retries) popDue(now time.Time) (*entry, bool) {
	s := *h
	if len(s) == 0 || s[0].at.After(now) {
		return nil, false
	}
	e := s[0].e
	last := len(s) - 1
	s[0], s[last] = s[last], retry{}
	s = s[:last]
	*h = s
	for i := 0; ; {
		child := 2*i + 1
		if child >= len(s) {
			return e, true
		}
		if right := child + 1; right < len(s) && s[right].at.Before(s[child].at) {
			child = right
		}
		if !s[child].at.Before(s[i].at) {
			return e, true
		}
		s[i], s[child] = s[child], s[i]
		i = child
	}
}

// due returns when the first entry is due, or the zero time.
func (h retries) due() time.Time {
	if len(h) == 0 {
		return time.Time{}
	}
	return h[0].at
}
