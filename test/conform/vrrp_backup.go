package conform

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"
)

// vrrpVariant is one thing that is wrong or odd.
type vrrpVariant struct {
	id     string
	change func(*vrrpPacket)
}

// zero lets a backup hear that its master leaves: the later rows rest on it.
func (t *vrrpTester) zero() bool {
	outcome, seen := t.silence(t.cfg.Interval, true)
	t.row("T-ZERO", outcome, "%s", seen)
	if outcome == "never" || outcome == "" {
		for _, v := range append(t.refused(), t.odd()...) {
			t.skip("it does not take over at priority 0, by which acceptance is seen", v.id)
		}
		return false
	}
	return true
}

// silence makes the speaker a backup of a master with an interval, which falls
// silent, or leaves with priority 0, and measures when it takes over: up to four
// times, of which the closest counts, since a loaded machine makes a mess of times.
func (t *vrrpTester) silence(interval time.Duration, leaves bool) (outcome, seen string) {
	theory := t.cfg.down(interval)
	if leaves {
		theory = t.cfg.skew(interval)
	}
	limit := theory + theory/2 + 200*time.Millisecond
	outcome, seen = "never", "no advert within "+ms(limit)
	closest := limit
	for range 4 {
		if !t.makeBackup() {
			return "", noBackup
		}
		p := t.advert(t.peer, t.best())
		p.interval = interval
		mark := t.log.len()
		sent := t.transmit(p.frame())
		if leaves {
			t.pause(breath)
			p.priority = 0
			sent = t.transmit(p.frame())
		}
		s := t.await(mark, limit, t.acts)
		if s == nil {
			continue
		}
		t.backup = false
		took := s.at.Sub(sent)
		if off := (took - theory).Abs(); off < closest {
			closest, outcome = off, punctual(took, theory)
			seen = fmt.Sprintf("after %s, %+.1f ms against %s", fine(took), float64((took-theory).Microseconds())/1000, fine(theory))
		}
		if outcome == onTime {
			break
		}
	}
	return outcome, seen
}

// punctual compares a time with what it should be. A time that is early because
// it was cut to whole centiseconds is known by that.
func punctual(took, theory time.Duration) string {
	const early, centisecond = 1500 * time.Microsecond, 10 * time.Millisecond
	switch late := took - theory; {
	case late > 5*time.Millisecond+theory/50:
		return "late"
	case late >= -early:
		return onTime
	case took >= theory/centisecond*centisecond-early:
		return wholeCentiseconds
	}
	return "early"
}

// refused are the packets that must not change anything.
func (t *vrrpTester) refused() []vrrpVariant {
	body := 14 + 20
	if t.six() {
		body = 14 + 40
	}
	edit := func(f func([]byte) []byte) func(*vrrpPacket) { return func(p *vrrpPacket) { p.edit = f } }
	all := []vrrpVariant{
		{"R-TTL", func(p *vrrpPacket) { p.ttl = 254 }},
		{"R-CHECKSUM", func(p *vrrpPacket) { p.spoil = flip(body + 7) }},
		{"R-HEADER", edit(func(b []byte) []byte { return b[:7] })},
		{"R-SHORT", edit(func(b []byte) []byte { return b[:len(b)-1] })},
		{"R-LONG", edit(func(b []byte) []byte { return append(slices.Clone(b), 0, 0, 0, 0) })},
		{"R-COUNT", func(p *vrrpPacket) { p.change = func(b []byte) { b[3]++ } }},
		{"R-COUNT0", func(p *vrrpPacket) { p.addrs = nil }},
		{"R-VRID", func(p *vrrpPacket) { p.vrid ^= 0x80 }},
		{"R-VRID0", func(p *vrrpPacket) { p.vrid = 0 }},
		{"R-TYPE", func(p *vrrpPacket) { p.kind = 2 }},
		{"R-VERSION", func(p *vrrpPacket) { p.change = func(b []byte) { b[0] = 0x41 } }},
		{"R-FOREIGN", func(p *vrrpPacket) { p.addrs = t.foreignList() }},
		{"R-OTHERGROUP", func(p *vrrpPacket) {
			p.dst, p.to = netip.AddrFrom4([4]byte{224, 0, 0, 1}), net.HardwareAddr{0x01, 0x00, 0x5e, 0, 0, 1}
			if t.six() {
				p.dst, p.to = netip.MustParseAddr("ff02::1"), net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}
			}
		}},
	}
	if !t.six() {
		all = append(all, vrrpVariant{"R-IPSUM", func(p *vrrpPacket) { p.spoil = flip(offIPSum) }})
	}
	if t.cfg.Version == 3 {
		all = append(all, vrrpVariant{"R-INTERVAL0", func(p *vrrpPacket) { p.interval = 0 }})
	}
	if t.mac != nil {
		all = append(all, vrrpVariant{"R-UNICAST", func(p *vrrpPacket) { p.dst, p.to = t.speaker, t.mac }})
	}
	return all
}

// foreignList is as long as the configured one, and has none of its addresses.
func (t *vrrpTester) foreignList() (list []netip.Addr) {
	for _, a := range t.cfg.Addresses {
		b := a.AsSlice()
		b[len(b)-2] ^= 0x40
		foreign, _ := netip.AddrFromSlice(b)
		list = append(list, foreign)
	}
	return list
}

// refusals offers a backup each bad packet alone.
func (t *vrrpTester) refusals() {
	if t.mac == nil {
		t.skip(fmt.Sprintf("%v does not answer", t.speaker), "R-UNICAST")
	}
	for _, v := range t.refused() {
		t.twice(v.id, func() (string, string) { return t.refusal(v) })
	}
}

// refusal offers a backup, which follows a master, a packet as of this master
// that leaves, and later one as of this master that lives, each with the same
// thing wrong. The first must not make it take over, nor the second keep it from
// taking over in its time.
func (t *vrrpTester) refusal(v vrrpVariant) (outcome, seen string) {
	if !t.makeBackup() {
		return "", noBackup
	}
	own := t.cfg.Interval
	skew, down := t.cfg.skew(own), t.cfg.down(own)
	mark, begin := t.log.len(), t.said
	send := func(priority uint8) time.Time {
		p := t.advert(t.peer, priority)
		v.change(p)
		return t.transmit(p.frame())
	}
	sent := send(0)
	if s := t.await(mark, skew+t.react(), t.acts); s != nil {
		t.backup = false
		return accepts, fmt.Sprintf("with priority 0: takes over after %s", fine(s.at.Sub(sent)))
	}
	if t.cfg.Quick {
		return nothingChanges, "with priority 0: nothing; more is left out of a quick run"
	}
	t.until(begin.Add(down / 2))
	sent = send(t.best())
	s := t.log.await(t.ctx, mark, begin.Add(down+down/4+t.react()), t.acts)
	if s == nil {
		return holdsBack, fmt.Sprintf("with priority 0: nothing; with priority %d: no takeover within %s", t.best(), ms(now().Sub(begin)))
	}
	t.backup = false
	took := s.at.Sub(begin)
	seen = fmt.Sprintf("with priority 0: nothing; with priority %d: takeover %s after the good one", t.best(), fine(took))
	if took < down-15*time.Millisecond { // FRR cuts to whole centiseconds
		return takesOver, seen + fmt.Sprintf(", %s after the bad one", fine(s.at.Sub(sent)))
	}
	return nothingChanges, seen
}

// odd are the packets that are odd and not wrong.
func (t *vrrpTester) odd() []vrrpVariant {
	all := []vrrpVariant{
		{"K-MAC", func(p *vrrpPacket) { p.from = t.wire.mac }},
		{"K-TOS", func(p *vrrpPacket) { p.tos = 0 }},
		{"K-PADDING", func(p *vrrpPacket) { p.paddingAfterFrame = []byte("what a switch may leave in a short frame") }},
	}
	if !t.six() {
		all = append(all, vrrpVariant{"K-DF", func(p *vrrpPacket) { p.df = true }})
		if len(t.cfg.Addresses) > 1 {
			all = append(all, vrrpVariant{"K-ORDER", func(p *vrrpPacket) { slices.Reverse(p.addrs) }})
		}
	}
	if t.cfg.Version == 3 {
		all = append(all, vrrpVariant{"K-RESERVED", func(p *vrrpPacket) { p.reserved = 15 }})
		if !t.six() {
			all = append(all, vrrpVariant{"K-PSEUDO", func(p *vrrpPacket) { p.plain = false }}, vrrpVariant{"K-PLAIN", func(p *vrrpPacket) { p.plain = true }})
		}
	}
	return all
}

// acceptances offers a backup each odd packet as of its master that leaves: that
// it takes over shows that it took the packet.
func (t *vrrpTester) acceptances() {
	if !t.six() && len(t.cfg.Addresses) == 1 {
		t.skip("there is one address only", "K-ORDER")
	}
	for _, v := range t.odd() {
		t.twice(v.id, func() (outcome, seen string) {
			if !t.makeBackup() {
				return "", noBackup
			}
			p := t.advert(t.peer, 0)
			v.change(p)
			mark := t.log.len()
			sent := t.transmit(p.frame())
			s := t.await(mark, t.cfg.skew(t.cfg.Interval)+t.react(), t.acts)
			if s == nil {
				return refuses, "with priority 0: nothing"
			}
			t.backup = false
			return accepts, "with priority 0: takes over after " + fine(s.at.Sub(sent))
		})
	}
}

// timers measures the times of a backup with the intervals of several masters.
func (t *vrrpTester) timers() {
	own := t.cfg.Interval
	measure := func(id string, interval time.Duration, leaves bool) {
		outcome, seen := t.silence(interval, leaves)
		t.row(id, outcome, "%s", seen)
	}
	measure("T-DOWN", own, false)
	if t.cfg.Version == 2 {
		return
	}
	measure("T-LEARN-SHORT", t.short(), false)
	measure("T-LEARN-LONG", 3*own, false)
	measure("T-LEARN-ZERO", 3*own, true)
	t.twice("T-RETURN", t.returns)
	t.twice("T-CEILING", t.ceiling)
}

// short is a tenth of the speaker's interval, in whole centiseconds.
func (t *vrrpTester) short() time.Duration {
	const unit = 10 * time.Millisecond
	return max(unit, (t.cfg.Interval/10+unit-1)/unit*unit)
}

// returns looks at the interval of a master that has learned another as backup.
func (t *vrrpTester) returns() (outcome, seen string) {
	if !t.makeBackup() {
		return "", noBackup
	}
	own := t.cfg.Interval
	p := t.advert(t.peer, t.best())
	p.interval = 2 * own
	t.transmit(p.frame())
	t.pause(breath)
	p.priority = 0
	mark := t.log.len()
	t.transmit(p.frame())
	t.backup = false
	if t.await(mark, t.cfg.skew(2*own)+own, t.ours) == nil {
		return "never", "it does not take over"
	}
	t.pause(3*own + own/2)
	all := t.log.since(mark, t.ours)
	if len(all) < 2 {
		return "none", "no second advert within " + ms(3*own+own/2)
	}
	_, middle, _ := spread(gaps(all))
	seen = fmt.Sprintf("its master had %v; then its own adverts were %s apart and said %v", 2*own, fine(middle), all[len(all)-1].vrrp.interval)
	if (middle-own).Abs() < own/4 && all[len(all)-1].vrrp.interval == own {
		return "the interval", seen
	}
	return "another", seen
}

// ceiling lets a backup hear the longest interval there is, once.
func (t *vrrpTester) ceiling() (outcome, seen string) {
	if !t.makeBackup() {
		return "", noBackup
	}
	p := t.advert(t.peer, t.best())
	p.interval = 4095 * 10 * time.Millisecond
	mark := t.log.len()
	sent := t.transmit(p.frame())
	s := t.await(mark, 2*t.cfg.down(t.cfg.Interval), t.acts)
	if s == nil {
		return "waits", fmt.Sprintf("no advert within %s; by the rule after %v", ms(now().Sub(sent)), t.cfg.down(p.interval))
	}
	t.backup = false
	return takesOver, "after " + fine(s.at.Sub(sent))
}

// holds lets a backup hear packets in each interval, for longer than its
// master-down time, and says whether it stays backup.
func (t *vrrpTester) holds(build func() [][]byte) (outcome, seen string) {
	if !t.makeBackup() {
		return "", noBackup
	}
	own, down := t.cfg.Interval, t.cfg.down(t.cfg.Interval)
	mark, begin, n := t.log.len(), t.said, 0
	for at := begin.Add(own * 9 / 10); at.Before(begin.Add(down + down*6/10)); at = at.Add(own * 9 / 10) {
		if s := t.log.await(t.ctx, mark, at, t.acts); s != nil {
			t.backup = false
			return takesOver, fmt.Sprintf("%s after the last good one, while %d of these came", fine(s.at.Sub(begin)), n)
		}
		t.oneByOne(build())
		n++
	}
	return staysBackup, fmt.Sprintf("no advert within %s, while %d of these came", ms(now().Sub(begin)), n)
}

// company lets a backup hear good adverts of several sorts.
func (t *vrrpTester) company() {
	own, low := t.cfg.Priority, uint8(2)
	from := func(src netip.Addr, priority uint8) []byte { return t.advert(src, priority).frame() }
	hold := func(id string, frames ...func() []byte) {
		t.twice(id, func() (string, string) {
			return t.holds(func() (all [][]byte) {
				for _, f := range frames {
					all = append(all, f())
				}
				return all
			})
		})
	}
	if t.cfg.Quick {
		t.skip(leftOut, "B-255", "B-EQUAL-ABOVE", "B-TWO")
	} else {
		hold("B-255", func() []byte { return from(t.peer, 255) })
		hold("B-EQUAL-ABOVE", func() []byte { return from(t.above, own) })
		hold("B-TWO", func() []byte { return from(t.peer, own+1) }, func() []byte { return from(t.stranger(), low) })
	}
	hold("B-HIGHER", func() []byte { return from(t.peer, own+1) })
	hold("B-EQUAL-BELOW", func() []byte { return from(t.below, own) })
	hold("B-LOWER", func() []byte { return from(t.peer, low) })
	t.twice("B-ZERO-OTHER", func() (outcome, seen string) {
		if !t.makeBackup() {
			return "", noBackup
		}
		mark := t.log.len()
		sent := t.say(t.stranger(), 0)
		s := t.await(mark, t.cfg.skew(t.cfg.Interval)+t.react(), t.acts)
		if s == nil {
			return staysBackup, "nothing within " + ms(now().Sub(sent))
		}
		t.backup = false
		return takesOver, "after " + fine(s.at.Sub(sent))
	})
}

// stranger is an address that is neither the speaker's nor the usual peer's.
func (t *vrrpTester) stranger() netip.Addr {
	if t.peer == t.above {
		return t.below
	}
	return t.above
}
