package ledger

// budget is the arithmetic of one shared resource: records, or bytes.
//
// With capacity C and n lanes, each lane has a reserve r = max(1, C/2n) of its
// own, and the rest is a pool P = C - n·r that is lent to whoever asks first. A
// lane may read one more page if it uses less than r, or if less than P is lent.
// So one lane may have about half of everything, and never keeps another from
// its reserve.
//
// What a page will hold is known only after it was read; therefore the bound is
// "C and one page a lane" (L6). To keep to it, the budget knows of each lane how
// much of its use is older than the last page it was admitted for. Invariant:
//
//   - The sum of earlier over all lanes is less than C (or 0).
//   - used - earlier is at most the lane's last page.
//
// With a fixed number of lanes the rule above is enough for that. But when lanes
// open, reserves shrink, and more than P turns out to be lent; then what is
// promised to the newcomers is not there, and they read a page at a time,
// whenever they hold nothing, until the loans are paid back.
type budget struct {
	capacity, reserve, pool int64
	lent                    int64 // what lanes use beyond their reserves
	lentEarlier             int64 // the same, without each lane's last page
}

// use is one lane's part of a budget.
type use struct {
	used    int64
	earlier int64
}

// room reports whether a lane may read one more page.
func (b *budget) room(u use) bool {
	return u.used == 0 || b.lends() || u.used < b.reserve && b.keeps()
}

// lends and keeps are the two conditions in room that lanes share.
func (b *budget) lends() bool { return b.lent < b.pool }
func (b *budget) keeps() bool { return b.lentEarlier <= b.pool }

// admit notes that the lane will read one more page.
func (b *budget) admit(u *use) { b.change(u, use{u.used, u.used}) }

// set notes what the lane uses, and reports whether that may have made room for others.
func (b *budget) set(u *use, used int64) (roomier bool) {
	lends, keeps := b.lends(), b.keeps()
	b.change(u, use{used, min(u.earlier, used)})
	return b.lends() && !lends || b.keeps() && !keeps
}

func (b *budget) change(u *use, to use) {
	b.lent += b.beyond(to.used) - b.beyond(u.used)
	b.lentEarlier += b.beyond(to.earlier) - b.beyond(u.earlier)
	*u = to
}

func (b *budget) beyond(n int64) int64 { return max(0, n-b.reserve) }

// split shares the capacity among n lanes. The caller adds up the loans again,
// with owe for each lane.
func (b *budget) split(n int) {
	b.reserve = max(1, b.capacity/int64(2*max(1, n)))
	b.pool = max(0, b.capacity-int64(n)*b.reserve)
	b.lent, b.lentEarlier = 0, 0
}

func (b *budget) owe(u use) {
	b.lent += b.beyond(u.used)
	b.lentEarlier += b.beyond(u.earlier)
}
