package modules

import (
	"math"
	"slices"
	"time"
)

// peer is what is known of another node.
type peer struct {
	entries  map[string]Entry
	asked    time.Time // a poll waits for an answer since; zero: none
	polled   time.Time // when it polled this node
	last     time.Time // when it was heard
	failures int       // in a row
	retry    time.Time // not before
	absurd   bool      // its latest report had something that cannot be
}

func (p *peer) heard(now time.Time) {
	p.last = now
	p.failures = 0
	p.retry = time.Time{}
}

func (p *peer) failed(now time.Time, interval time.Duration) {
	p.asked = time.Time{}
	p.failures++
	p.retry = now.Add(min(backOff(interval, p.failures), maxAway))
}

// maxAway is how long a node that cannot be reached is left alone: after that it is
// found again, also when nothing is heard of it.
const maxAway = 10 * time.Second

// backOff doubles with each failure in a row.
func backOff(interval time.Duration, failures int) time.Duration {
	return min(interval<<min(failures, 16), maxBackOff)
}

// neighbours returns who is polled: on the ring of all node ids the next one, and others
// at distances that grow in equal proportion, so that news need but a few steps to all.
// The next one that is not known to be away stands in for one that is.
func (c *Core) neighbours(now time.Time) []uint8 {
	ring := append(slices.Clone(c.cfg.Peers), c.cfg.Self)
	slices.Sort(ring)
	n, self := len(ring), slices.Index(ring, c.cfg.Self)
	var near []uint8
	for _, d := range distances(n, c.cfg.Fanout) {
		for i, step := 0, 0; i < n; i++ {
			id := ring[(self+d+step)%n]
			if id != c.cfg.Self && !slices.Contains(near, id) && !now.Before(c.peers[id].retry) {
				near = append(near, id)
				break
			}
			// Far steps first: what is away together is often side by side.
			step = standIn(i, n)
		}
	}
	return near
}

// others returns whom a fresh holder asks beside its neighbours, some in each interval: it
// may begin only when it has heard all.
func (c *Core) others(now time.Time, near []uint8) (more []uint8) {
	if c.holding == 0 || !slices.ContainsFunc(c.modules, (*module).fresh) {
		return nil
	}
	for range min(maxOthers, len(c.cfg.Peers)) {
		id := c.cfg.Peers[c.sweep%len(c.cfg.Peers)]
		c.sweep++
		if !now.Before(c.peers[id].retry) && !slices.Contains(near, id) {
			more = append(more, id)
		}
	}
	return more
}

// maxOthers is how many others are asked in one interval.
const maxOthers = 16

// distances returns where on a ring of n the neighbours are.
func distances(n, fanout int) []int {
	var all []int
	base := math.Pow(float64(n), 1/float64(fanout))
	for i := range fanout {
		d := max(int(math.Round(math.Pow(base, float64(i)))), i+1)
		if d >= n {
			break
		}
		all = append(all, d)
	}
	return all
}

// standIn returns how far beyond its place the try after number i is made: 1, 2, 4 and so
// on around the ring, and one by one after that.
func standIn(i, n int) int {
	if i < 16 && 1<<i < n {
		return 1 << i
	}
	return i
}

// listeners returns who is told at once: neighbours, and those whose neighbour this
// node is.
func (c *Core) listeners(now time.Time) []uint8 {
	near := c.neighbours(now)
	for id, p := range c.peers {
		if !p.polled.IsZero() && now.Sub(p.polled) < pollPatience*c.cfg.Interval && !slices.Contains(near, id) {
			near = append(near, id)
		}
	}
	slices.Sort(near)
	return near
}
