package ledger

// budget is the arithmetic of one shared resource: records or bytes.
//
// With capacity C and n lanes, each lane has its own reserve r = max(1, C/2n). The
// rest is a pool P = C - n·r, lent first come, first served. A lane may read one more
// page if it uses less than r, or if less than P is lent. So one lane may use about
// half of the capacity, and never takes another lane's reserve.
//
// The size of a page is known only after it was read; therefore the bound is "C and
// one page a lane" (L6). To keep this bound, the budget knows how much of each lane's
// use is older than the last page that the lane was admitted for. Invariants:
//
//   - The sum of earlier over all lanes is less than C (or 0).
//   - used - earlier is at most the lane's last page.
//
// With a fixed number of lanes the rule above is enough for that. But when lanes
// open, reserves shrink, and more than P may be lent. Then the reserves of the new
// lanes are in use by others: until the loans are paid back, a new lane reads one
// page at a time, when it holds nothing.
type budget struct {
	capacity, reserve, pool int64
	lent                    int64 // what lanes use beyond their reserves
	lentEarlier             int64 // lent, without each lane's last page
}

// use is one lane's part of a budget.
type use struct {
	used    int64
	earlier int64
}

// mayRead reports whether a lane may read one more page.
func (b *budget) mayRead(u use) bool {
	return u.used == 0 || b.lends() || u.used < b.reserve && b.keeps()
}

// lends and keeps are the two conditions in mayRead that all lanes share.
func (b *budget) lends() bool { return b.lent < b.pool }
func (b *budget) keeps() bool { return b.lentEarlier <= b.pool }

// admit records that the lane will read one more page.
func (b *budget) admit(u *use) { b.change(u, use{u.used, u.used}) }

// set records what the lane uses, and reports whether other lanes may read because of it.
func (b *budget) set(u *use, used int64) (freed bool) {
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

// split divides the capacity among n lanes. The caller then adds up the loans again,
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
