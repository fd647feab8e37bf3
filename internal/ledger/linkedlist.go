package ledger

// linkedList is a doubly linked list of elements that hold their own links, so that to add one
// allocates nothing. The zero linkedList is empty.
//
// The entries of a queue have a list of their own: with links of this type an entry would
// be an eighth larger, and there is one for each record in flight.
type linkedList[T any] struct {
	first, last *links[T]
	len         int
}

// links are an element's place in a list. An element is in one list at most.
type links[T any] struct {
	prev, next *links[T]
	of         *T // the element that holds the links; nil: not in a list
}

// head returns the first element, nil if the list is empty.
func (l *linkedList[T]) head() *T { return l.first.element() }

// push appends an element, which n belongs to.
func (l *linkedList[T]) push(n *links[T], element *T) {
	n.of, n.prev = element, l.last
	if l.last == nil {
		l.first = n
	} else {
		l.last.next = n
	}
	l.last = n
	l.len++
}

// remove removes an element from any place. The links are cleared, so that an element
// which is kept does not keep others in memory.
func (l *linkedList[T]) remove(n *links[T]) {
	if n.prev == nil {
		l.first = n.next
	} else {
		n.prev.next = n.next
	}
	if n.next == nil {
		l.last = n.prev
	} else {
		n.next.prev = n.prev
	}
	*n = links[T]{}
	l.len--
}

// element returns the element of the links, nil for nil.
func (n *links[T]) element() *T {
	if n == nil {
		return nil
	}
	return n.of
}
