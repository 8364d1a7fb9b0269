package conform

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"
)

// contests shows a master what it may yield to.
func (t *vrrpTester) contests() {
	own := t.cfg.Priority
	from := func(src netip.Addr, priority uint8) func(*sighting) [][]byte {
		return func(*sighting) [][]byte { return [][]byte{t.advert(src, priority).frame()} }
	}
	t.asMaster("M-LOWER", from(t.peer, own-1))
	t.answers("M-LOWER-SENDS", own-1)
	t.asMaster("M-ZERO", from(t.peer, 0))
	t.answers("M-ZERO-SENDS", 0)
	t.asMaster("M-TIE-ABOVE", from(t.above, own))
	t.asMaster("M-TIE-BELOW", from(t.below, own))
	t.asMaster("M-255", from(t.peer, 255))
	t.asMaster("M-ECHO", func(s *sighting) [][]byte { return [][]byte{s.frame} })
	if t.cfg.Quick {
		t.skip(leftOut, "M-OWNSOURCE", "M-TWO")
		return
	}
	t.asMaster("M-OWNSOURCE", func(*sighting) [][]byte {
		p := t.advert(t.speaker, t.best())
		p.from = t.wire.mac
		return [][]byte{p.frame()}
	})
	t.asMaster("M-TWO", func(*sighting) [][]byte {
		return [][]byte{t.advert(t.stranger(), 2).frame(), t.advert(t.peer, own+1).frame(), t.advert(t.stranger(), 2).frame()}
	})
}

// asMaster shows packets to a master, right after an advert of it, and writes
// down whether it yields.
func (t *vrrpTester) asMaster(id string, build func(last *sighting) [][]byte) {
	t.twice(id, func() (string, string) {
		s, ok := t.makeMaster()
		if !ok {
			return "", noMaster
		}
		mark := t.log.len()
		sent := t.oneByOne(build(s))
		outcome := t.hears(mark, sent)
		return outcome, t.next(outcome, mark, sent)
	})
}

// answers shows an advert to a master that stays, in the middle of its interval,
// and writes down what it sends at once.
func (t *vrrpTester) answers(id string, priority uint8) {
	t.twice(id, func() (string, string) {
		s, ok := t.makeMaster()
		if !ok {
			return "", noMaster
		}
		t.until(s.at.Add(t.cfg.Interval * 4 / 10))
		mark, watch := t.log.len(), t.cfg.Interval*4/10
		sent := t.say(t.peer, priority)
		t.until(sent.Add(watch))
		all := t.log.since(mark, func(s *sighting) bool { return t.ours(s) && s.at.After(sent) && s.at.Sub(sent) < watch })
		arps := t.log.since(mark, func(s *sighting) bool { return (s.kind == announced || s.kind == neighbour) && s.at.After(sent) })
		seen := fmt.Sprintf("%d adverts and %d announcements within %s", len(all), len(arps), ms(watch))
		switch {
		case len(all) > 0:
			return "advert", seen + ", the first advert after " + fine(all[0].at.Sub(sent))
		case len(arps) > 0:
			return "announcement", seen
		}
		return nothing, seen
	})
}

// mismatch is a setting in which a peer differs.
type mismatch struct {
	id     string
	change func(*vrrpPacket)
}

// differing lists the settings, without those that cannot be tried here.
func (t *vrrpTester) differing() []mismatch {
	more := slices.Concat(t.cfg.Addresses, t.foreignList()[:1])
	all := []mismatch{{"X-MORE", func(p *vrrpPacket) { p.addrs = more }}}
	if len(t.cfg.Addresses) > 1 {
		all = append(all, mismatch{"X-FEWER", func(p *vrrpPacket) { p.addrs = p.addrs[:1] }})
	}
	if !t.six() {
		all = append(all, mismatch{"X-VERSION", func(p *vrrpPacket) {
			p.version, p.interval, p.authType, p.auth = 5-p.version, max(p.interval, time.Second), 0, [8]byte{}
		}})
	}
	if t.cfg.Version == 3 {
		return append(all, mismatch{"X-INTERVAL", func(p *vrrpPacket) { p.interval = 4095 * 10 * time.Millisecond }})
	}
	return append(
		all,
		mismatch{"X-INTERVAL", func(p *vrrpPacket) { p.interval += 2 * time.Second }},
		mismatch{"X-PASSWORD", func(p *vrrpPacket) { p.authType = 1; copy(p.auth[:], "another!") }},
		mismatch{"X-AUTHTYPE", func(p *vrrpPacket) { p.authType, p.auth = 2, [8]byte{} }},
		mismatch{"X-AH", func(p *vrrpPacket) { p.authType, p.auth, p.ah = 2, [8]byte{}, true }},
	)
}

// mismatches lets a peer of other settings be heard: by a backup, and by a master
// as a better and as a worse one.
func (t *vrrpTester) mismatches() {
	if len(t.cfg.Addresses) == 1 {
		t.skip("there is one address only", "X-FEWER-B", "X-FEWER-M", "X-FEWER-W")
	}
	for _, m := range t.differing() {
		frame := func(priority uint8) []byte {
			p := t.advert(t.peer, priority)
			m.change(p)
			return p.frame()
		}
		t.twice(m.id+"-B", func() (string, string) { return t.holds(func() [][]byte { return [][]byte{frame(t.best())} }) })
		t.asMaster(m.id+"-M", func(*sighting) [][]byte { return [][]byte{frame(t.best())} })
		if t.cfg.Quick {
			t.skip(leftOut, m.id+"-W")
			continue
		}
		t.asMaster(m.id+"-W", func(*sighting) [][]byte { return [][]byte{frame(2)} })
	}
}

// junk sends bad packets to a master, few and many, and watches its adverts.
func (t *vrrpTester) junk() {
	own := t.cfg.Interval
	lasts := max(6*own, time.Second)
	t.twice("J-SLOW", func() (string, string) { return t.disturb(own/4, 1, lasts) })
	if lasts = max(floodTime, 4*own); t.cfg.Quick {
		lasts = max(floodQuick, 4*own)
	}
	t.twice("J-FLOOD", func() (string, string) { return t.disturb(floodTick, floodBurst, lasts) })
}

// disturb sends bursts of bad packets to a master.
func (t *vrrpTester) disturb(every time.Duration, burst int, lasts time.Duration) (outcome, seen string) {
	first, ok := t.makeMaster()
	if !ok {
		return "", noMaster
	}
	frames, own := t.badFrames(), t.cfg.Interval
	mark, sent := t.log.len(), 0
	tick := time.NewTicker(every)
	defer tick.Stop()
	for begin := now(); now().Sub(begin) < lasts && t.ctx.Err() == nil; sent += burst {
		<-tick.C
		for i := range burst {
			t.transmit(frames[(sent+i)%len(frames)])
		}
	}
	end := now()
	heard := t.log.since(mark, t.ours)
	t.await(t.log.len(), own+own/2+t.react(), t.ours)
	all := gaps(append([]*sighting{first}, t.log.since(mark, t.ours)...))
	seen = fmt.Sprintf("%d packets in %s: ", sent, ms(lasts))
	if len(heard) == 0 {
		return "silenced", seen + fmt.Sprintf("no advert for %s", ms(end.Sub(first.at)))
	}
	_, middle, most := spread(all)
	seen += fmt.Sprintf("%d adverts, %s apart, at most %s", len(heard), fine(middle), fine(most))
	if most < own+own/2+50*time.Millisecond {
		return "undisturbed", seen
	}
	return "disturbed", seen
}

// badFrames are packets that nobody may take.
func (t *vrrpTester) badFrames() (frames [][]byte) {
	for _, v := range t.refused() {
		switch v.id {
		case "R-TTL", "R-CHECKSUM", "R-SHORT", "R-HEADER":
			p := t.advert(t.peer, 255)
			v.change(p)
			frames = append(frames, p.frame())
		}
	}
	return frames
}

// restarts starts the speaker anew with several priorities, and stops it.
func (t *vrrpTester) restarts() error {
	if t.cfg.Restart == nil {
		t.skip("no command that restarts the speaker was given", "T-START", "T-PRIO-200", "T-PRIO-1", "T-PRIO-254",
			"O-START", "O-LOWER", "O-BELOW", "O-ABOVE")
		return t.stops()
	}
	usual := t.cfg.Priority
	defer func() { t.cfg.Priority = usual }()
	waited, err := t.restart(200)
	if err != nil {
		return err
	}
	down := t.cfg.down(t.cfg.Interval)
	for _, priority := range []uint8{200, 1, 254} {
		id := fmt.Sprintf("T-PRIO-%d", priority)
		if priority != 200 {
			if t.cfg.Quick {
				t.skip(leftOut, id)
				continue
			}
			if _, err := t.restart(priority); err != nil {
				return err
			}
		}
		outcome, seen := t.silence(t.cfg.Interval, false)
		t.row(id, outcome, "%s", seen)
	}
	owned, err := t.restart(255)
	if err == nil && waited-owned <= down/2 {
		owned, err = t.restart(255) // a loaded machine starts slowly at times
	}
	if err != nil {
		return err
	}
	t.asOwner(waited, owned, down)
	if _, err := t.restart(usual); err != nil {
		return err
	}
	return t.stops()
}

// never stands for the time of an advert that did not come.
const never = time.Duration(math.MaxInt64)

// restart starts the speaker with a priority and returns when its first advert
// came, from when the start was done: it may have come a little before. It is never
// if none came, or not with this priority.
func (t *vrrpTester) restart(priority uint8) (time.Duration, error) {
	mark := t.log.len()
	err := t.cfg.Restart(t.ctx, priority)
	t.cfg.Priority, t.backup = priority, false
	if err != nil {
		return 0, fmt.Errorf("conform: restart the speaker with priority %d: %w", priority, err)
	}
	begin := now()
	if priority != 200 && priority != 255 {
		return never, nil // nobody asks
	}
	fresh := func(s *sighting) bool { return t.ours(s) && s.vrrp.priority == priority } // and no farewell
	s := t.await(mark, t.cfg.down(t.cfg.Interval)+5*time.Second, fresh)
	if s == nil {
		return never, nil
	}
	return s.at.Sub(begin), nil
}

// asOwner judges the first adverts after two starts, with priority 200, whose
// master-down time is given, and as owner: what starting a process takes is in
// both. Then it shows the owner what it may yield to.
func (t *vrrpTester) asOwner(waited, owned, down time.Duration) {
	if waited == never || owned == never {
		t.skip("no advert of the new priority was heard: it may not be possible to configure it", "T-START", "O-START", "O-LOWER", "O-BELOW", "O-ABOVE")
		return
	}
	seen := fmt.Sprintf("first advert after %s with priority 200, whose master-down time is %s, and after %s with 255", ms(waited), ms(down), ms(owned))
	if waited-owned > down/2 {
		t.row("T-START", "waits", "%s", seen)
		t.row("O-START", "at once", "%s", seen)
	} else {
		t.row("T-START", "no longer than an owner", "%s", seen)
		t.row("O-START", "as late as others", "%s", seen)
	}
	from := func(src netip.Addr, priority uint8) func(*sighting) [][]byte {
		return func(*sighting) [][]byte { return [][]byte{t.advert(src, priority).frame()} }
	}
	t.asMaster("O-LOWER", from(t.peer, 254))
	t.asMaster("O-BELOW", from(t.below, 255))
	t.asMaster("O-ABOVE", from(t.above, 255))
}
