package conform

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// vrrpTester is one run with a speaker of VRRP. It belongs to one goroutine, but
// for log and wire.
type vrrpTester struct {
	bench
	cfg VRRPConfig

	speaker netip.Addr       // source of its adverts
	mac     net.HardwareAddr // of the interface that has this address; nil if it does not answer
	peer    netip.Addr       // the tester's usual source
	above   netip.Addr       // the addresses next to the speaker's
	below   netip.Addr

	backup bool      // it is known to be BACKUP
	quiet  int       // mark: no advert was heard after it, while it was BACKUP
	said   time.Time // when the last good advert was sent to it
}

func newVRRPTester(ctx context.Context, c VRRPConfig, w *wire) *vrrpTester {
	six := c.Addresses[0].Is6()
	t := &vrrpTester{bench: newBench(ctx, w, vrrpRules(c.Version, six), AsRFC, c.Progress), cfg: c}
	t.log = &record{addrs: c.Addresses, vhid: c.VRID, tester: w.mac, vrrp: true, more: make(chan struct{})}
	return t
}

// six reports whether the virtual router is one of IPv6.
func (t *vrrpTester) six() bool { return t.cfg.Addresses[0].Is6() }

// best is a priority that is higher than the speaker's.
func (t *vrrpTester) best() uint8 {
	if t.cfg.Priority >= 254 {
		return 255
	}
	return 254
}

// react bounds what is waited for an answer that needs no timer.
func (t *vrrpTester) react() time.Duration {
	return min(max(t.cfg.Interval/2, 30*time.Millisecond), 200*time.Millisecond)
}

// find waits for the speaker and learns who it is.
func (t *vrrpTester) find() error {
	limit := now().Add(t.cfg.down(t.cfg.Interval) + t.cfg.Interval + 5*time.Second)
	same := func(s *sighting) bool { return s.kind == advert && s.src.Is6() == t.six() }
	s := t.log.await(t.ctx, 0, limit, same)
	switch {
	case t.ctx.Err() != nil:
		return fmt.Errorf("conform: %w", context.Cause(t.ctx))
	case s == nil:
		return fmt.Errorf("%w: vrid %d on %s, for %v: is the speaker running, and on this segment?", ErrSilent,
			t.cfg.VRID, t.cfg.Interface, t.cfg.down(t.cfg.Interval))
	}
	t.speaker = s.src
	t.above, t.below = s.src.Next(), s.src.Prev()
	t.peer = t.wire.own
	if t.six() {
		if t.peer = t.wire.own6; !t.peer.IsValid() {
			return errors.New("conform: the interface has no link-local IPv6 address: adverts cannot be sent")
		}
	}
	if !t.peer.IsValid() || t.peer == t.speaker {
		t.peer = t.above
	}
	return nil
}

// ours reports whether a sighting is an advert of the speaker.
func (t *vrrpTester) ours(s *sighting) bool { return s.kind == advert && s.src == t.speaker }

// acts reports whether a sighting shows that the speaker takes the role: an advert
// or an announcement. FRR over IPv6 announces an interval before its first advert.
func (t *vrrpTester) acts(s *sighting) bool {
	return t.ours(s) || s.kind == announced && !t.six() || s.kind == neighbour && t.six()
}

// say sends a good advert and returns when.
func (t *vrrpTester) say(src netip.Addr, priority uint8) time.Time {
	return t.transmit(t.advert(src, priority).frame())
}

// until waits for an instant.
func (t *vrrpTester) until(at time.Time) { t.pause(time.Until(at)) }

// makeBackup sees to it that the speaker is BACKUP, follows the tester's usual
// source, and has just heard it. It reports false if the speaker goes on to
// advertise.
func (t *vrrpTester) makeBackup() bool {
	if t.backup && len(t.log.since(t.quiet, t.acts)) == 0 {
		t.said = t.say(t.peer, t.best())
		t.pause(breath)
		return true
	}
	t.backup = false
	for range 5 {
		t.say(t.peer, t.best())
		t.pause(t.react())
		mark := t.log.len()
		t.said = t.say(t.peer, t.best())
		t.pause(t.react())
		if len(t.log.since(mark, t.acts)) == 0 && t.ctx.Err() == nil {
			t.backup, t.quiet = true, mark
			t.said = t.say(t.peer, t.best())
			t.pause(breath)
			return true
		}
	}
	return false
}

// breath is a pause between packets: of several that wait, keepalived reads one
// and forgets the others.
const breath = 10 * time.Millisecond

// oneByOne sends frames with a breath between them and returns when the first was
// sent.
func (t *vrrpTester) oneByOne(frames [][]byte) time.Time {
	at := now()
	for i, f := range frames {
		if i > 0 {
			t.pause(breath)
		}
		t.transmit(f)
	}
	return at
}

// makeMaster sees to it that the speaker is MASTER and returns its last advert,
// which was sent a moment ago.
func (t *vrrpTester) makeMaster() (*sighting, bool) {
	own := t.cfg.Interval
	for range 3 {
		mark := t.log.len()
		if t.backup {
			t.say(t.peer, t.best()) // it may have learned an interval
			t.pause(breath)
			t.say(t.peer, 0)
		}
		if t.await(mark, t.cfg.skew(own)+own+t.react(), t.ours) != nil {
			t.backup = false
			break
		}
		if !t.backup && t.await(mark, t.cfg.down(own)+own+t.react(), t.ours) != nil {
			break
		}
		t.backup = true // so it must be
	}
	// Not the first one: after a takeover things may be under way.
	s := t.await(t.log.len(), own+own/2+t.react(), t.ours)
	t.backup = t.backup && s == nil
	return s, s != nil
}

// hears reports what a master does about a packet that was sent right after an
// advert of it: whether it goes on to advertise.
func (t *vrrpTester) hears(mark int, sent time.Time) string {
	own := t.cfg.Interval
	regular := func(s *sighting) bool { return t.ours(s) && s.at.Sub(sent) > own/2 }
	if t.log.await(t.ctx, mark, sent.Add(own+own/2+t.react()), regular) != nil {
		return stays
	}
	t.backup, t.quiet = true, t.log.len()
	return yields
}

// twice writes down what trial says, after a second trial if the first one's
// outcome is foretold by nobody, and a third if the two do not agree: so that a
// moment's standstill of a loaded machine is seldom taken for the speaker's doing.
func (t *vrrpTester) twice(id string, trial func() (outcome, seen string)) {
	outcome, seen := trial()
	for _, again := range []string{" (second trial)", " (third trial)"} {
		if outcome == "" || t.foretold(id, outcome) || t.ctx.Err() != nil {
			break
		}
		before := outcome
		outcome, seen = trial()
		seen += again
		if outcome == before {
			break
		}
	}
	t.row(id, outcome, "%s", seen)
}

// whoHas asks who has an address, twice if need be.
func (t *vrrpTester) whoHas(addr netip.Addr) (net.HardwareAddr, bool) {
	for range 2 {
		mark := t.log.len()
		t.transmit(t.query(addr))
		if s := t.await(mark, 300*time.Millisecond, func(s *sighting) bool { return s.kind == answered && s.addr == addr }); s != nil {
			return s.answer(), true
		}
	}
	return nil, false
}

// answer is the MAC of an ARP reply or neighbour advertisement.
func (s *sighting) answer() net.HardwareAddr {
	if s.arp != nil {
		return s.arp.SourceHwAddress
	}
	if s.na != nil && len(s.na.Options) > 0 {
		return s.na.Options[0].Data
	}
	return s.from
}

// finish evaluates all adverts and makes the report.
func (t *vrrpTester) finish(begin time.Time) Report {
	t.adverts()
	foreign := t.log.since(0, func(s *sighting) bool { return s.kind == advert && s.src.Is6() == t.six() && s.src != t.speaker })
	if len(foreign) > 0 {
		t.note(fmt.Sprintf("%d adverts of the vrid came from another source (%v): rows may be wrong", len(foreign), foreign[0].src))
	}
	if t.log.lost > 0 {
		t.note(fmt.Sprintf("%d packets were not remembered: rows may be wrong", t.log.lost))
	}
	r := Report{
		Interface: t.cfg.Interface, Protocol: fmt.Sprintf("vrrp%d", t.cfg.Version), VHID: t.cfg.VRID, Priority: t.cfg.Priority,
		Interval: t.cfg.Interval, Speaker: t.speaker.String(), Took: time.Since(begin), Notes: t.notes, Rows: t.results(),
	}
	if t.mac != nil {
		r.MAC = t.mac.String()
	}
	for _, a := range t.cfg.Addresses {
		r.Addresses = append(r.Addresses, a.String())
	}
	return r
}
