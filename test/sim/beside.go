package sim

import (
	"net/netip"
	"time"

	"github.com/carpd/carpd/carp"
)

// Beside makes a second segment for hosts whose Config has a path over link 1, and
// which are on their first one already. It carries adverts and nothing else: no
// client is on it, and its cable has no carrier to lose. The checkers that measure from
// the last harm look at the first segment; Paths looks at both.
func (w *World) Beside(name string, hosts ...*Host) *Segment {
	s := w.Segment(name)
	s.aside = true
	for _, h := range hosts {
		for len(s.paths) <= h.slot { // the slots of the first segment serve here too
			for i := range s.paths {
				s.paths[i] = append(s.paths[i], newPath())
			}
			row := make([]path, len(s.paths)+1)
			for i := range row {
				row[i] = newPath()
			}
			s.paths = append(s.paths, row)
		}
		s.hosts = append(s.hosts, h)
		h.beside = s
	}
	return s
}

// besideLocal is the own side of a host's link 1. Its order among the hosts is the
// reverse of that of the first link, so that a tie that is decided twice shows.
func (h *Host) besideLocal() carp.Local {
	n := byte(250 - h.index)
	return carp.Local{IPv4: netip.AddrFrom4([4]byte{198, 51, 100, n}), MAC: carp.MAC{2, 0, 0, 0, 1, n}}
}

// side returns the own side of a host's link to s, and its number.
func (s *Segment) side(h *Host) (carp.Local, uint8) {
	if s.aside {
		return h.besideLocal(), 1
	}
	return h.local, 0
}

// heardLast is when the youngest advert of a was sent that b took, over either segment.
func heardLast(a, b *Host) time.Duration {
	heard := a.seg.path(a, b).heard
	if a.beside != nil {
		heard = max(heard, a.beside.path(a, b).heard)
	}
	return heard
}

// reaches reports whether frames on s reach the kernel of a host.
func (s *Segment) reaches(h *Host) bool {
	if s.aside {
		return h.powered && !h.paused
	}
	return h.listens()
}

// sendAll carries the frames of one round over their paths, and reports whether any
// could be sent.
func (h *Host) sendAll(frames []carp.Frame) (sent bool) {
	for _, f := range frames {
		switch {
		case f.Path > 0 && h.beside != nil:
			h.beside.send(h, f)
			sent = true
		case f.Path == 0 && h.deaf == 0 && h.carrier == 0 && h.seg != nil:
			h.seg.send(h, f)
			sent = true
		}
	}
	return sent
}

// probeFall and probeRise are how long the probe of the client side takes to notice.
const (
	probeFall = 600 * time.Millisecond
	probeRise = 400 * time.Millisecond
)

// CutOff cuts a host off from all others of its first segment, where no link goes
// down: its probe notices. It returns what joins it again.
func (h *Host) CutOff() (join func()) {
	change := func(f func(from, to Port)) {
		for _, other := range h.seg.hosts {
			if other != h {
				f(h, other)
				f(other, h)
			}
		}
	}
	h.w.fault(h, "cut off from the client side")
	change(h.seg.Cut)
	h.lonely++
	h.probe(probeFall)
	return func() {
		h.w.mend(h, "client side back")
		change(h.seg.Join)
		h.lonely--
		h.probe(probeRise)
	}
}

// probe tells the daemon after a while how its client side is then.
func (h *Host) probe(after time.Duration) {
	h.w.After(after, func() {
		h.command(func() { h.apply(h.engine.ClientSide(h.now(), h.lonely == 0)) })
	})
}

// Paths checks what a second segment is for, in worlds that have one: while either
// segment carries adverts both ways between two hosts, none of them takes the role
// for the other's silence, and they do not answer together for longer than with one
// segment that is whole.
type Paths struct{ since map[[2]int]time.Duration }

// Name implements Checker.
func (*Paths) Name() string { return "paths" }

// Look implements Checker.
func (c *Paths) Look(w *World) { c.together(w) }

// Observe implements Checker.
func (c *Paths) Observe(w *World, e *Event) {
	switch e.Kind {
	case KindTransition:
		c.silence(w, e)
	case KindAddrOn, KindAddrOff:
		c.note(w)
	}
	c.together(w)
}

// note keeps since when each pair answers together.
func (c *Paths) note(w *World) {
	if c.since == nil {
		c.since = map[[2]int]time.Duration{}
	}
	for i, a := range w.hosts {
		for _, b := range w.hosts[i+1:] {
			_, on := c.since[pair(a, b)]
			switch both := a.Answers() && b.Answers(); {
			case both && !on:
				c.since[pair(a, b)] = w.now
			case !both:
				delete(c.since, pair(a, b))
			}
		}
	}
}

// soundSince returns since when some segment has carried everything between two
// hosts; ok is false if none does.
func soundSince(a, b *Host) (since time.Duration, ok bool) {
	for _, s := range []*Segment{a.seg, a.beside} {
		if s == nil || !s.Whole(a, b) {
			continue
		}
		from := max(s.path(a, b).harmed, s.path(b, a).harmed, a.stoppedAt, b.stoppedAt)
		if !ok || from < since {
			since, ok = from, true
		}
	}
	return since, ok
}

// silence: nobody is called dead who is heard over any segment.
func (c *Paths) silence(w *World, e *Event) {
	if e.Change.To != carp.Master || e.Change.Reason != carp.ReasonTimedOut {
		return
	}
	b := e.Host
	for _, a := range w.hosts {
		if a == b || a.state != carp.Master && a.state != carp.Releasing || !a.Alive() || a.carrier > 0 {
			continue
		}
		down := b.Config.FastestDown() + time.Duration(b.Config.AdvSkew)*time.Second/256
		since, ok := soundSince(a, b)
		if from := max(since, a.promoted, b.left, b.upAt); ok && w.now-from > down+a.interval() {
			w.Fail(c, "%s says that %s is silent, though one of the two segments has carried everything for %v", b.Name, a.Name, w.now-from)
		}
	}
}

// equal reports whether two hosts advertise the same weight, as two whose probes fail
// most often do, or would without demotions, which come and go.
func equal(a, b *Host) bool {
	x, y := a.Status(), b.Status()
	if x.AdvBase == y.AdvBase && x.AdvSkew == y.AdvSkew && x.Priority == y.Priority {
		return true
	}
	return x.AdvBase == y.AdvBase && x.EffectiveAdvSkew == y.EffectiveAdvSkew && x.EffectivePriority == y.EffectivePriority
}

// together: two hosts that hear each other over either segment do not both answer.
func (c *Paths) together(w *World) {
	for i, a := range w.hosts {
		for _, b := range w.hosts[i+1:] {
			since, on := c.since[pair(a, b)]
			if !on {
				continue
			}
			sound, ok := soundSince(a, b)
			bound, bounded := overlapBound(a, b)
			if equal(a, b) { // the primary path decides while it was heard lately, and then three rounds more
				bound += a.Config.FastestDown() + 5*a.interval()
			}
			if from := max(since, sound); ok && bounded && w.now-from > bound {
				delete(c.since, pair(a, b))
				w.Fail(c, "%s and %s both answered for %v, with one of the two segments whole; the bound is %v", a.Name, b.Name, w.now-from, bound)
			}
		}
	}
}
