package publisher

// pending holds the rows of one Publish that are not stored yet: a queue for
// each ordering key, in the order of Publish. It is not safe for concurrent use.
//
// Invariants:
//   - No queue is empty; their lengths add up to rows.
//   - A request contains heads of queues, so a row is sent only when all earlier rows
//     of its key are stored.
//   - The heads of the first taken queues are in the request.
type pending struct {
	queues [][]*row
	rows   int
	taken  int
}

func newPending(rows []*row) *pending {
	p := &pending{rows: len(rows)}
	place := make(map[string]int, len(rows))
	for _, r := range rows {
		i, ok := place[r.key]
		if !ok {
			i = len(p.queues)
			place[r.key] = i
			p.queues = append(p.queues, nil)
		}
		p.queues[i] = append(p.queues[i], r)
	}
	return p
}

// take returns the rows of the next request: at least one, at most maxRows, and
// no more than maxBytes unless the first one has more by itself.
func (p *pending) take(maxRows, maxBytes int) []*row {
	n, bytes := min(maxRows, len(p.queues)), 0
	heads := make([]*row, 0, n)
	for _, q := range p.queues[:n] {
		if bytes += q[0].bytes; bytes > maxBytes && len(heads) > 0 {
			break
		}
		heads = append(heads, q[0])
	}
	p.taken = len(heads)
	return heads
}

// settle removes the stored rows of the request and returns how many they are. The keys
// of the request move behind those that were not in it.
func (p *pending) settle(outcomes []error) (stored int) {
	asked := p.queues[:p.taken]
	p.queues = p.queues[p.taken:]
	for i, q := range asked {
		if q[0].err = outcomes[i]; q[0].err == nil {
			q = q[1:]
			stored++
		}
		if len(q) > 0 {
			p.queues = append(p.queues, q)
		}
	}
	p.rows -= stored
	p.taken = 0
	return stored
}

// left returns the rows that are not stored, in any order.
func (p *pending) left() []*row {
	rows := make([]*row, 0, p.rows)
	for _, q := range p.queues {
		rows = append(rows, q...)
	}
	return rows
}
