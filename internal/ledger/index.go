package ledger

import "hash/maphash"

// index finds the queue of a key. It is a hash table whose chains are linked through
// the queues. Nearly every record adds and removes a queue. A map would hash the key
// three times for that (to find, to add and to delete it); index hashes it once. A map
// also stores its keys, which is more memory for the garbage collector to scan.
//
// Invariants:
//   - A queue with a key is in the chain of its hash, and no other queue has that key.
//   - There are at least as many chains as queues. Chains are never freed: there are
//     at most twice as many as the most keys that were in flight at once.
type index struct {
	seed   maphash.Seed
	chains []*queue // a power of two of them, linked by queue.chained
	queues int
}

// leastChains is the initial number of chains.
const leastChains = 64

func newIndex() index {
	return index{seed: maphash.MakeSeed(), chains: make([]*queue, leastChains)}
}

func (x *index) hash(key string) uint64 { return maphash.String(x.seed, key) }

// chain returns the head of the chain for a hash.
func (x *index) chain(hash uint64) **queue { return &x.chains[hash&uint64(len(x.chains)-1)] }

// get returns the queue of a key with its hash, or nil.
func (x *index) get(key string, hash uint64) *queue {
	for q := *x.chain(hash); q != nil; q = q.chained {
		if q.hash == hash && q.key == key {
			return q
		}
	}
	return nil
}

// add adds a queue, which has its key and hash.
func (x *index) add(q *queue) {
	if x.queues == len(x.chains) {
		x.grow()
	}
	first := x.chain(q.hash)
	q.chained, *first = *first, q
	x.queues++
}

// remove removes a queue.
func (x *index) remove(q *queue) {
	at := x.chain(q.hash)
	for *at != q {
		at = &(*at).chained
	}
	*at, q.chained = q.chained, nil
	x.queues--
}

func (x *index) grow() {
	old := x.chains
	x.chains = make([]*queue, 2*len(old))
	for _, q := range old {
		for q != nil {
			next := q.chained
			first := x.chain(q.hash)
			q.chained, *first = *first, q
			q = next
		}
	}
}
