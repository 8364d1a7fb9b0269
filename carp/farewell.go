package carp

import (
	"net/netip"
	"time"
)

// farewells is how often a loser says at most that there was another master: as it has
// let go, and again at each of the winner's next adverts, unless one of them shows that
// the winner knows.
const farewells = 3

// reminder is what is left of saying farewell. The zero value says nothing more.
type reminder struct {
	winner netip.Addr
	left   int
	said   Instant
}

// sayFarewell tells the winner, once the addresses are gone, that clients may look for
// them here, so that it announces them again.
func (e *Engine) sayFarewell(now Instant) {
	e.emit(now, e.held)
	e.reminder.left, e.reminder.said = farewells-1, now
}

// remind says farewell again if the winner has not heard it: a lost one would leave
// clients on this node until their own caches give up, half a minute later. A winner
// that has heard it answers with an advert out of turn. That is one of carpd, and
// whoever follows RFC 9568 (6.4.3); another gets all of them. It is said when the
// winner has just been heard, so that nobody takes this node for a living master in
// its place.
func (e *Engine) remind(now Instant, h *hearing, p *Packet) {
	r := &e.reminder
	if r.left == 0 || p.Src != r.winner {
		return
	}
	if !e.outbids(h, p) {
		r.left = 0 // weaker by now: it would take a farewell for the advert of a better master
		return
	}
	came, every := arrival(now, p), e.paceOf(h.bid)
	if came <= r.said {
		return
	}
	if last := e.sighting(p.Src); last != nil && came.Sub(last.came) < every*3/4 {
		r.left = 0
		return
	}
	if now.Sub(r.said) >= every/4 {
		e.emit(now, e.held)
		r.left, r.said = r.left-1, now
	}
}

// outbids reports whether a master wins against what this node was as a master.
func (e *Engine) outbids(h *hearing, p *Packet) bool {
	if h.leaves {
		return false
	}
	order := e.compare(h.bid, e.held)
	if order == 0 {
		wins, ok := e.winsTie(h, p)
		return ok && !wins
	}
	return order < 0
}

// paceOf is how far apart a master with this bid sends its adverts at least. Under a
// lease advskew does not count.
func (e *Engine) paceOf(b bid) time.Duration {
	switch {
	case e.cfg.Protocol.VRRP():
		return b.every
	case b.base > 0:
		return time.Duration(b.base) * time.Second
	}
	return b.timing.interval()
}
