package conform

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/google/gopacket/layers"
)

// run tries everything, in an order that needs few changes of role.
func (t *tester) run() {
	fresh := t.opening()
	yielded, ok := t.firstYield()
	if !ok {
		t.skip("the speaker does not yield to 1/0", "N-BACKUP", "M-FAREWELL", "M-REPLAY")
		t.spacing(t.log.len(), fresh)
		t.slower()
		t.flood()
		return
	}
	if taken, ok := t.dead(); ok {
		t.refusals(taken)
		t.bowOuts()
	}
	t.silence(fresh)
	t.slower()
	t.flood()
	t.contests(yielded)
}

// opening watches the speaker before anything is said to it.
func (t *tester) opening() []time.Duration {
	t.log.await(t.ctx, 0, now().Add(4*t.cfg.interval()), func(*sighting) bool { return t.count(0) >= 4 })
	all := t.log.since(0, t.ours)
	t.row("A-COUNTER-FRESH", counters(all), "%s: %s", counters(all), distinct(all, func(s *sighting) string { return fmt.Sprintf("%016x", s.carp.Counter) }))
	t.mac, _ = t.whoHas(t.speaker)
	addr := t.cfg.first4()
	mac, ok := t.whoHas(addr)
	if !ok {
		t.row("N-MASTER", "no answer", "nobody answers for %v", addr)
		t.skip("nobody answers", "N-MAC")
	} else {
		t.row("N-MASTER", "it answers", "%v is at %v", addr, mac)
		t.row("N-MAC", t.owner(mac), "%v; that of %v is %v", mac, t.speaker, t.mac)
	}
	found := gaps(all)
	if len(found) > 0 {
		t.measured(found[len(found)/2])
	}
	return found
}

// measured takes over what the speaker's interval turned out to be, within what
// the waiting times here can bear.
func (t *tester) measured(interval time.Duration) {
	t.interval = min(max(interval, 500*time.Millisecond), 5*time.Second)
}

// count returns how many adverts the speaker sent after a mark. It may be called
// from within an await.
func (t *tester) count(mark int) int { return len(t.log.since(mark, t.ours)) }

// whoHas asks by ARP, twice if need be.
func (t *tester) whoHas(addr netip.Addr) (net.HardwareAddr, bool) {
	for range 2 {
		mark := t.log.len()
		t.transmit(t.question(addr))
		if s := t.await(mark, 300*time.Millisecond, func(s *sighting) bool { return s.kind == answered && s.addr == addr }); s != nil {
			return s.arp.SourceHwAddress, true
		}
	}
	return nil, false
}

// firstYield makes the speaker yield and watches how. It returns the advert that
// did it.
func (t *tester) firstYield() ([]byte, bool) {
	if _, ok := t.makeMaster(); !ok {
		t.skip(noMaster, "M-YIELD")
		return nil, false
	}
	mark, addr := t.log.len(), t.cfg.first4()
	frame, sent := t.say(t.peer, 1, 0)
	t.last = t.peer
	regular := func(s *sighting) bool { return t.ours(s) && s.at.Sub(sent) > t.threshold() }
	for until := sent.Add(t.interval + 600*time.Millisecond); now().Before(until) && t.ctx.Err() == nil; {
		t.transmit(t.question(addr))
		t.pause(50 * time.Millisecond)
	}
	if n := len(t.log.since(mark, regular)); n > 0 {
		t.row("M-YIELD", stays, "its next advert came %s after that", ms(t.log.since(mark, regular)[0].at.Sub(sent)))
		return nil, false
	}
	t.row("M-YIELD", yields, "no more adverts within %s", ms(now().Sub(sent)))
	t.backup, t.quiet = true, t.log.len()
	t.farewell(mark, sent)

	answers := t.log.since(mark, func(s *sighting) bool { return s.kind == answered && s.addr == addr && s.at.After(sent) })
	switch n := len(answers); {
	case n == 0:
		t.row("N-BACKUP", "no answer", "none, from the first question on")
	case now().Sub(answers[n-1].at) < 300*time.Millisecond:
		t.row("N-BACKUP", "it answers", "still, %s after the advert", ms(answers[n-1].at.Sub(sent)))
	default:
		t.row("N-BACKUP", "no answer", "none; the last was %s after the advert", ms(answers[n-1].at.Sub(sent)))
	}
	return frame, true
}

// farewell says what the speaker sent when it yielded.
func (t *tester) farewell(mark int, sent time.Time) {
	adverts := t.log.since(mark, func(s *sighting) bool { return t.ours(s) && s.at.After(sent) })
	arps := t.log.since(mark, func(s *sighting) bool { return s.kind == announced && s.at.After(sent) })
	switch {
	case len(adverts) > 0:
		s := adverts[0]
		t.row("M-FAREWELL", "advert", "%d advert(s), the first %s later, with %d/%d; %d gratuitous ARP", len(adverts), ms(s.at.Sub(sent)), s.carp.AdvBase, s.carp.AdvSkew, len(arps))
	case len(arps) > 0:
		t.row("M-FAREWELL", "gratuitous ARP", "%d gratuitous ARP, no advert", len(arps))
	default:
		t.row("M-FAREWELL", nothing, "neither advert nor gratuitous ARP")
	}
}

// dead sends a backup the advert of a master that is slower than dead, three
// times: the later rows rest on it. It returns one that was taken.
func (t *tester) dead() (taken []byte, ok bool) {
	var delays []time.Duration
	for i := range 3 {
		if _, ok := t.makeBackup(); !ok {
			t.skip(noBackup, "B-DEAD")
			return nil, false
		}
		mark := t.log.len()
		frame, sent := t.say(t.peer, 4, 0)
		s := t.await(mark, reactionLimit+500*time.Millisecond, t.ours)
		if s == nil {
			t.row("B-DEAD", follows, "no advert within %s", ms(now().Sub(sent)))
			t.skip("the speaker does not take over at 4/0, by which acceptance is seen", backupRows()...)
			return nil, false
		}
		t.backup, taken = false, frame
		delays = append(delays, s.at.Sub(sent))
		if i == 0 {
			t.heard(frame, s)
		}
	}
	slowest := max(delays[0], delays[1], delays[2])
	t.row("B-DEAD", takesOver, "after %s, %s, %s", ms(delays[0]), ms(delays[1]), ms(delays[2]))
	// A reader that polls is known by its delay; a prompt one gets what a loaded
	// machine may cost.
	t.reaction = 1300 * time.Millisecond
	if slowest < 60*time.Millisecond {
		t.reaction = 300 * time.Millisecond
	}
	return taken, true
}

// heard compares the counter of the first advert after one that was heard.
func (t *tester) heard(frame []byte, s *sighting) {
	const counter = 14 + 20 + 8
	said := binary.BigEndian.Uint64(frame[counter:])
	outcome := "neither"
	switch {
	case s.carp.Counter == said+1:
		outcome = "the heard one plus 1"
	case sealed(s.carp):
		outcome = "group clock"
	}
	t.row("A-COUNTER-HEARD", outcome, "heard %016x, sent %016x", said, s.carp.Counter)
}

// bowOuts lets the master that is followed say that it leaves, and another.
func (t *tester) bowOuts() {
	if t.cfg.has6() {
		t.skip(twoFamilies, "B-BOWOUT", "B-BOWOUT-OTHER")
		return
	}
	t.asBackup("B-BOWOUT-OTHER", takesOver, func([]byte) []byte { return t.frame(t.advert(t.stranger(), 255, 255)) })
	t.asBackup("B-BOWOUT", takesOver, func([]byte) []byte { return t.frame(t.advert(t.peer, 255, 255)) })
}

// stranger is an address that is neither the speaker's nor the usual peer's.
func (t *tester) stranger() netip.Addr {
	if t.peer == t.above {
		return t.below
	}
	return t.above
}

// silence keeps the speaker a backup for a while, then falls silent, and watches
// it take over and announce itself.
func (t *tester) silence(fresh []time.Duration) {
	if _, ok := t.makeBackup(); !ok {
		t.skip(noBackup, "B-FOLLOW", "B-SLOWER", "B-RESTART", "B-SILENCE", "G-ORDER", "G-FORM", "G-MAC", "G-ROUNDS", "G-NA", "A-SPACING")
		return
	}
	mark := t.log.len()
	for range 3 {
		t.pause(time.Second)
		t.say(t.peer, 1, 0)
	}
	if n := t.count(mark); n > 0 {
		t.row("B-FOLLOW", "advertises", "%d adverts within 3 s", n)
	} else {
		t.row("B-FOLLOW", follows, "no advert within 3 s")
	}
	begin := t.outlast()
	mark = t.log.len()
	s := t.await(mark, t.cfg.down()+4*time.Second, t.ours)
	if s == nil {
		t.row("B-SILENCE", "never", "no advert within %s", ms(now().Sub(begin)))
		t.skip("it did not take over", "B-RESTART", "G-ORDER", "G-FORM", "G-MAC", "G-ROUNDS", "G-NA", "A-SPACING")
		return
	}
	t.backup = false
	took := s.at.Sub(begin)
	if took < t.cfg.down()-time.Second {
		t.row("B-RESTART", "does not", "took over %s after the last advert, %s after the one before", ms(took), ms(took+2*time.Second))
	} else {
		t.row("B-RESTART", "restarts", "2 s after one advert another; took over %s after the other", ms(took))
	}
	t.onTime(took)
	t.announcements(mark, s)
	t.spacing(mark, fresh)
}

// outlast sends an advert, and 2 s later a slower one that only just lives; to a
// speaker that preempts, the same as before. It returns when the last was sent.
func (t *tester) outlast() time.Time {
	t.pause(2 * time.Second)
	mark := t.log.len()
	_, sent := t.say(t.peer, 2, 0)
	s := t.await(mark, t.reaction, t.ours)
	if s == nil {
		t.row("B-SLOWER", follows, "no advert within %s: it does not preempt", ms(t.reaction))
		return sent
	}
	t.row("B-SLOWER", takesOver, "after %s: it preempts", ms(s.at.Sub(sent)))
	t.backup = false
	t.makeBackup()
	t.pause(2 * time.Second)
	_, sent = t.say(t.peer, 1, 0)
	return sent
}

func (t *tester) onTime(took time.Duration) {
	late, outcome := took-t.cfg.down(), "on time"
	switch {
	case late < -100*time.Millisecond:
		outcome = "early"
	case late > 2500*time.Millisecond:
		outcome = "too late"
	case late > 100*time.Millisecond:
		outcome = "late"
	}
	t.row("B-SILENCE", outcome, "after %s, that is %+d ms against %s", ms(took), late.Milliseconds(), ms(t.cfg.down()))
}

// window is how long announcements are watched for: ours repeat after 5 s.
const window = 5600 * time.Millisecond

// announcements evaluates what follows a takeover, whose first advert is given.
func (t *tester) announcements(mark int, first *sighting) {
	t.pause(time.Until(first.at.Add(window)))
	arps := t.log.since(mark, func(s *sighting) bool { return s.kind == announced })
	if t.cfg.has6() {
		t.neighbours(mark, first)
	} else {
		t.skip("the group has no IPv6 address", "G-NA")
	}
	if len(arps) == 0 {
		t.row("G-ORDER", "advert only", "no gratuitous ARP within %s", ms(window))
		t.row("G-FORM", "none", "no gratuitous ARP")
		t.row("G-ROUNDS", "0", "no gratuitous ARP")
		t.skip("no gratuitous ARP", "G-MAC")
		return
	}
	order := "advert"
	if arps[0].at.Before(first.at) {
		order = "gratuitous ARP"
	}
	t.row("G-ORDER", order, "gratuitous ARP %+d µs from the advert", arps[0].at.Sub(first.at).Microseconds())
	t.row("G-FORM", distinct(arps, form), "%s, to %s", distinct(arps, form), distinct(arps, func(s *sighting) string { return s.to.String() }))
	t.row("G-MAC", distinct(arps, func(s *sighting) string { return t.owner(s.arp.SourceHwAddress) }), "%s, sent from %s",
		distinct(arps, func(s *sighting) string { return net.HardwareAddr(s.arp.SourceHwAddress).String() }),
		distinct(arps, func(s *sighting) string { return s.from.String() }))
	n, at := rounds(arps, first.at)
	t.row("G-ROUNDS", fmt.Sprint(n), "%d within %s:%s", n, ms(window), at)
}

func form(s *sighting) string {
	kind, target := "request", "another"
	if s.arp.Operation == layers.ARPReply {
		kind = "reply"
	}
	switch {
	case bytes.Equal(s.arp.DstHwAddress, make([]byte, 6)):
		target = "zero"
	case bytes.Equal(s.arp.DstHwAddress, s.arp.SourceHwAddress):
		target = "the sender's"
	case bytes.Equal(s.arp.DstHwAddress, broadcast):
		target = "broadcast"
	}
	return kind + ", target MAC " + target
}

// rounds counts bursts: what is within 50 ms belongs together.
func rounds(arps []*sighting, from time.Time) (n int, at string) {
	last := time.Time{}
	for _, s := range arps {
		if s.at.Sub(last) > 50*time.Millisecond {
			n++
			at += " " + ms(s.at.Sub(from))
		}
		last = s.at
	}
	return n, at
}

func (t *tester) neighbours(mark int, first *sighting) {
	all := t.log.since(mark, func(s *sighting) bool { return s.kind == neighbour })
	if len(all) == 0 {
		t.row("G-NA", "none", "no neighbour advertisement within %s", ms(window))
		return
	}
	say := func(s *sighting) string {
		flags := ""
		for _, f := range []struct {
			set  bool
			name string
		}{{s.na.Router(), ", router"}, {s.na.Solicited(), ", solicited"}, {s.na.Override(), ", override"}} {
			if f.set {
				flags += f.name
			}
		}
		return "to " + s.dst.String() + flags
	}
	n, at := rounds(all, first.at)
	t.row("G-NA", distinct(all, say), "%s; %d rounds:%s", distinct(all, say), n, at)
}

// spacing evaluates the adverts of a master that nobody disturbed.
func (t *tester) spacing(mark int, fresh []time.Duration) {
	all := append(gaps(t.log.since(mark, t.ours)), fresh...)
	if len(all) == 0 {
		t.row("A-SPACING", "none", "no second advert within %s", ms(window))
		return
	}
	least, middle, most := spread(all)
	t.measured(middle)
	outcome := "another"
	switch near := func(d time.Duration) bool { return (middle - d).Abs() < 50*time.Millisecond }; {
	case near(t.cfg.interval()):
		outcome = "advbase + advskew/256"
	case near(time.Second):
		outcome = "advbase"
	}
	t.row("A-SPACING", outcome, "min %s, median %s, max %s of %d; advbase + advskew/256 is %s", ms(least), ms(middle), ms(most), len(all), ms(t.cfg.interval()))
}
