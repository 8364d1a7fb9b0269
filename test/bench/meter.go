package bench

import "time"

// maxSpacings bounds what a meter keeps: 255 instances at 10 ms for 150 s.
const maxSpacings = 4_000_000

// meter watches the adverts of a time in which nothing is to happen. It is the
// ear's, which calls it under its lock.
type meter struct {
	last     [nodes][256]int64
	speaker  [256]int // who advertised last: 1 + node
	gaps     []time.Duration
	adverts  [nodes]int
	takeover int
}

// newMeter makes room for as many adverts as are to be expected, so that none
// waits for more of it.
func newMeter(expected int) *meter {
	return &meter{gaps: make([]time.Duration, 0, min(expected*5/4+1024, maxSpacings))}
}

func (m *meter) take(node int, s sound) {
	m.adverts[node]++
	if was := m.last[node][s.id]; was != 0 && node == 0 && len(m.gaps) < maxSpacings {
		m.gaps = append(m.gaps, time.Duration(s.at-was))
	}
	m.last[node][s.id] = s.at
	if m.speaker[s.id] != 1+node {
		if node == 1 { // from the master, or from nobody so far
			m.takeover++
		}
		m.speaker[s.id] = 1 + node
	}
}

// end counts the time since the last advert of each instance as a gap too: a master
// that fell silent is not to look well.
func (m *meter) end(now int64, interval time.Duration) {
	for _, at := range m.last[0] {
		if gap := time.Duration(now - at); at != 0 && gap > 2*interval {
			m.gaps = append(m.gaps, gap)
		}
	}
}
