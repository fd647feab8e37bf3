package ledger

import "hash/maphash"

// index finds the queue of a key: a hash table that is chained through the
// queues. A queue comes and goes with nearly every record. A map would hash the key
// three times for that, to look for it, to add and to delete, where this does it
// once; and a map holds its keys itself, which is more memory for the garbage collector to look through.
//
// Invariants:
//   - A queue with a key is in the chain of its hash, and no other queue has that key.
//   - There are at least as many chains as queues. Chains are never given back:
//     there are at most twice as many as there once were keys in flight.
type index struct {
	seed   maphash.Seed
	chains []*queue // a power of two of them, linked by queue.chained
	queues int
}

// leastChains is how many there are in the beginning.
const leastChains = 64

func newIndex() index {
	return index{seed: maphash.MakeSeed(), chains: make([]*queue, leastChains)}
}

func (x *index) hash(key string) uint64 { return maphash.String(x.seed, key) }

// chain returns the place of the first queue with that hash.
func (x *index) chain(hash uint64) **queue { return &x.chains[hash&uint64(len(x.chains)-1)] }

// get returns the queue of a key, nil if there is none. hash is the key's.
func (x *index) get(key string, hash uint64) *queue {
	for q := *x.chain(hash); q != nil; q = q.chained {
		if q.hash == hash && q.key == key {
			return q
		}
	}
	return nil
}

// add takes in a queue with its key and hash.
func (x *index) add(q *queue) {
	if x.queues == len(x.chains) {
		x.grow()
	}
	first := x.chain(q.hash)
	q.chained, *first = *first, q
	x.queues++
}

// remove takes a queue out.
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
