package sim

import (
	"hash/fnv"
	"math/rand/v2"
	"time"
)

// Range is a uniform distribution from Min to Max. The zero value is always 0.
type Range struct{ Min, Max time.Duration }

// Span returns the Range from min to max.
func Span(min, max time.Duration) Range { return Range{min, max} }

// source is the PRNG of one purpose. Each purpose has its own, so that another
// draw for one leaves the others as they were.
type source struct{ *rand.Rand }

func newSource(seed uint64, purpose string) source {
	h := fnv.New64a()
	h.Write([]byte(purpose))
	return source{rand.New(rand.NewPCG(seed, h.Sum64()))}
}

// in draws from r.
func (s source) in(r Range) time.Duration {
	if r.Max <= r.Min {
		return r.Min
	}
	return r.Min + time.Duration(s.Int64N(int64(r.Max-r.Min)+1))
}

// chance is true with probability p; it draws nothing if p is 0.
func (s source) chance(p float64) bool { return p > 0 && s.Float64() < p }

// around draws from the exponential distribution with the given mean, bounded to
// 20 means.
func (s source) around(mean time.Duration) time.Duration {
	return time.Duration(min(s.ExpFloat64(), 20) * float64(mean))
}
