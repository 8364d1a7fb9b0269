package lab

import (
	"hash/fnv"
	"time"
)

// faults are the settings of one path. The zero value is a good cable.
type faults struct {
	delay, jitter  time.Duration
	lose           float64
	corrupt        float64
	duplicate      float64
	duplicateLater time.Duration
	reorder        float64
	reorderLater   time.Duration
	echo           float64
	only           func(Frame) bool // nil: all frames
	limit          int              // frames under way or held
}

// defaultLimit is as long as the transmit queue of an interface.
const defaultLimit = 1000

// fate is what is to happen to one frame on one path.
type fate struct {
	lost    bool
	corrupt bool
	at      int  // the byte that is corrupted
	flip    byte // never 0 if corrupt
	delay   time.Duration
	late    bool // may be overtaken
	again   bool
	gap     time.Duration // until it arrives again
}

// The purposes of draws. Their numbers are part of what a seed means: a new one
// goes to the end.
const (
	drawLose = iota
	drawCorrupt
	drawCorruptAt
	drawCorruptFlip
	drawDuplicate
	drawDuplicateLater
	drawReorder
	drawReorderLater
	drawJitter
	drawEcho
)

// dice are the draws for one frame: pure functions of seed, path, number of the
// frame and purpose. No draw depends on whether another one is made, so that a
// change of one setting leaves what the others do.
type dice uint64

// pathKey mixes the seed with the names of both ends.
func pathKey(seed uint64, from, to string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(from + "\x00" + to)) // cannot fail
	return mix(seed ^ mix(h.Sum64()))
}

// throw is for the n-th frame of a path, counted from 1.
func throw(key, n uint64) dice { return dice(mix(key + n*0x9e3779b97f4a7c15)) }

// mix is the finaliser of SplitMix64 (Steele, Lea, Flood 2014).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func (d dice) draw(purpose int) uint64 { return mix(uint64(d) + uint64(purpose)*0xd1342543de82ef95) }

// chance is true with probability p.
func (d dice) chance(purpose int, p float64) bool {
	return p > 0 && float64(d.draw(purpose)>>11)/(1<<53) < p
}

// below is uniform from 0 to n-1; n is at least 1.
func (d dice) below(purpose, n int) int { return int(d.draw(purpose) % uint64(n)) }

// upTo is uniform from 0 to most.
func (d dice) upTo(purpose int, most time.Duration) time.Duration {
	if most <= 0 {
		return 0
	}
	return time.Duration(d.draw(purpose) % uint64(most+1))
}

// ethernetHeader is spared by corruption: the frame is to arrive.
const ethernetHeader = 14

// decide returns what happens to the n-th frame of a path, which has length bytes.
// Corruption changes one byte, which each Internet checksum over it notices: the
// sum changes by 1 to 255 times 1 or 256, and that is never 0 modulo 65535.
func (f *faults) decide(key, n uint64, length int) fate {
	d := throw(key, n)
	v := fate{
		lost:  d.chance(drawLose, f.lose),
		delay: f.delay + d.upTo(drawJitter, f.jitter),
	}
	if length > ethernetHeader && d.chance(drawCorrupt, f.corrupt) {
		v.corrupt = true
		v.at = ethernetHeader + d.below(drawCorruptAt, length-ethernetHeader)
		v.flip = byte(1 + d.below(drawCorruptFlip, 255))
	}
	if d.chance(drawReorder, f.reorder) {
		v.late = true
		v.delay += d.upTo(drawReorderLater, f.reorderLater)
	}
	if d.chance(drawDuplicate, f.duplicate) {
		v.again = true
		v.gap = d.upTo(drawDuplicateLater, f.duplicateLater)
	}
	return v
}
