package conform

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/google/gopacket/layers"
)

// Outcomes of VRRP's rows only.
const (
	nothingChanges = "changes nothing"
	holdsBack      = "holds it back"
	staysBackup    = "stays backup"
	onTime         = "on time"

	wholeCentiseconds = "early by less than a centisecond"
)

// leftOut is why a row is not tested.
const leftOut = "left out of a quick run"

// run tries everything, in an order that needs few changes of role. An error is
// that of Restart or Stop.
func (t *vrrpTester) run() error {
	t.opening()
	if t.firstYield() {
		t.takeover()
		if t.zero() {
			t.refusals()
			t.acceptances()
		}
		t.timers()
		t.company()
		t.contests()
		t.mismatches()
	}
	t.junk()
	if t.ctx.Err() != nil {
		return nil
	}
	priorities := distinct(t.log.since(0, t.ours), func(s *sighting) string { return fmt.Sprint(s.vrrp.priority) })
	outcome := priorities
	if outcome == fmt.Sprint(t.cfg.Priority) {
		outcome = "as configured"
	}
	t.row("A-PRIORITY", outcome, "%s", priorities)
	return t.restarts()
}

// opening watches the speaker before anything is said to it.
func (t *vrrpTester) opening() {
	t.log.await(t.ctx, 0, now().Add(5*t.cfg.Interval+t.react()), func(*sighting) bool { return len(t.log.since(0, t.ours)) >= 5 })
	t.mac, _ = t.whoHas(t.speaker)
	addr := t.cfg.Addresses[0]
	mac, ok := t.whoHas(addr)
	if !ok {
		t.row("N-MASTER", "no answer", "nobody answers for %v", addr)
		t.skip("nobody answers", "N-MAC")
		return
	}
	t.row("N-MASTER", "it answers", "%v is at %v", addr, mac)
	t.row("N-MAC", t.owner(mac), "%v; that of %v is %v", mac, t.speaker, t.mac)
}

// owner says whose a MAC is.
func (t *vrrpTester) owner(mac []byte) string {
	switch {
	case bytes.Equal(mac, vrrpMAC(t.cfg.VRID, t.six())):
		return "virtual"
	case t.mac != nil && bytes.Equal(mac, t.mac):
		return "own"
	}
	return fmt.Sprintf("% x", mac)
}

// firstYield makes the speaker yield and watches how.
func (t *vrrpTester) firstYield() bool {
	if _, ok := t.makeMaster(); !ok {
		t.skip(noMaster, "M-HIGHER")
		return false
	}
	mark, addr := t.log.len(), t.cfg.Addresses[0]
	sent := t.say(t.peer, t.best())
	outcome := t.hears(mark, sent)
	t.row("M-HIGHER", outcome, "%s", t.next(outcome, mark, sent))
	if outcome != yields {
		t.skip("the speaker does not yield to a higher priority", "M-FAREWELL", "N-BACKUP")
		return false
	}
	after := t.log.since(mark, func(s *sighting) bool { return t.ours(s) && s.at.After(sent) })
	arps := t.log.since(mark, func(s *sighting) bool { return (s.kind == announced || s.kind == neighbour) && s.at.After(sent) })
	switch {
	case len(after) > 0:
		t.row("M-FAREWELL", "advert", "%d, the first %s later, of priority %d", len(after), ms(after[0].at.Sub(sent)), after[0].vrrp.priority)
	case len(arps) > 0:
		t.row("M-FAREWELL", "announcement", "%d announcements, no advert", len(arps))
	default:
		t.row("M-FAREWELL", nothing, "neither advert nor announcement")
	}
	if !t.makeBackup() {
		t.skip(noBackup, "N-BACKUP")
		return true
	}
	if mac, ok := t.whoHasOnce(addr); ok {
		t.row("N-BACKUP", "it answers", "%v is at %v", addr, mac)
	} else {
		t.row("N-BACKUP", "no answer", "none")
	}
	return true
}

// whoHasOnce asks a backup, which must not hear silence for longer.
func (t *vrrpTester) whoHasOnce(addr netip.Addr) (net.HardwareAddr, bool) {
	mark := t.log.len()
	t.transmit(t.query(addr))
	s := t.await(mark, t.react(), func(s *sighting) bool { return s.kind == answered && s.addr == addr })
	if s == nil {
		return nil, false
	}
	return s.answer(), true
}

// next says when the advert came by which a master was seen to stay.
func (t *vrrpTester) next(outcome string, mark int, sent time.Time) string {
	if outcome == yields {
		return "no more adverts within " + ms(now().Sub(sent))
	}
	all := t.log.since(mark, t.ours)
	return "its next regular advert came " + ms(all[len(all)-1].at.Sub(sent)) + " later"
}

// takeover lets the speaker take over by silence and watches how it announces
// itself, and its undisturbed adverts.
func (t *vrrpTester) takeover() {
	if !t.makeBackup() {
		t.skip(noBackup, "G-ORDER", "G-FORM", "G-MAC", "G-ALL", "G-ROUNDS", "G-NA", "G-HOP")
		return
	}
	// Until the announcements of an earlier takeover are over: keepalived's second
	// round comes in its time even if it was backup in between.
	for end := now().Add(t.window()); now().Before(end) && t.ctx.Err() == nil; {
		t.until(t.said.Add(t.cfg.Interval / 2))
		t.said = t.say(t.peer, t.best())
	}
	mark, own := t.log.len(), t.cfg.Interval
	s := t.await(mark, t.cfg.down(own)*3/2+t.react(), t.ours)
	if s == nil {
		t.skip("it does not take over", "G-ORDER", "G-FORM", "G-MAC", "G-ALL", "G-ROUNDS", "G-NA", "G-HOP")
		return
	}
	t.backup = false
	t.until(s.at.Add(t.window()))
	t.announcements(mark, s)
	t.spacing(mark)
}

// window is how long announcements are watched for: keepalived and ours repeat
// after 5 s.
func (t *vrrpTester) window() time.Duration {
	if t.cfg.Quick {
		return max(800*time.Millisecond, 3*t.cfg.Interval)
	}
	return window
}

// announcements evaluates what follows a takeover, whose first advert is given.
func (t *vrrpTester) announcements(mark int, first *sighting) {
	want := announced
	if t.six() {
		want = neighbour
	}
	all := t.log.since(mark, func(s *sighting) bool { return s.kind == want })
	if len(all) == 0 {
		t.row("G-ORDER", "advert only", "no announcement within %s", ms(t.window()))
		t.row("G-ALL", "none", "no announcement")
		t.skip("no announcement", "G-FORM", "G-MAC", "G-ROUNDS", "G-NA", "G-HOP")
		return
	}
	order := "advert"
	if all[0].at.Before(first.at) {
		order = "announcement"
	}
	t.row("G-ORDER", order, "the first announcement %+d µs from the advert", all[0].at.Sub(first.at).Microseconds())
	t.row("G-MAC", distinct(all, func(s *sighting) string { return t.owner(s.answer()) }), "%s, sent from %s",
		distinct(all, func(s *sighting) string { return s.answer().String() }), distinct(all, func(s *sighting) string { return s.from.String() }))
	var missing []string
	for _, a := range t.cfg.Addresses {
		if !slices.ContainsFunc(all, func(s *sighting) bool { return s.addr == a }) {
			missing = append(missing, a.String())
		}
	}
	if len(missing) > 0 {
		t.row("G-ALL", "some", "no word of %s", strings.Join(missing, " "))
	} else {
		t.row("G-ALL", "all", "%d announcements of %d addresses within %s", len(all), len(t.cfg.Addresses), ms(t.window()))
	}
	if n, at := rounds(all, first.at); t.cfg.Quick {
		t.skip(leftOut, "G-ROUNDS")
	} else {
		t.row("G-ROUNDS", fmt.Sprint(n), "%d packets; rounds after%s", len(all), at)
	}
	if t.six() {
		t.row("G-NA", distinct(all, flags), "%s, from %s", distinct(all, flags), distinct(all, func(s *sighting) string { return s.src.String() }))
		t.row("G-HOP", distinct(all, func(s *sighting) string { return fmt.Sprint(s.ttl) }), "%s in %d", distinct(all, func(s *sighting) string { return fmt.Sprint(s.ttl) }), len(all))
		return
	}
	kind := distinct(all, func(s *sighting) string {
		if s.arp.Operation == layers.ARPReply {
			return "reply"
		}
		return "request"
	})
	t.row("G-FORM", kind, "%s, to %s", distinct(all, form), distinct(all, func(s *sighting) string { return s.to.String() }))
}

// flags says where an unsolicited neighbour advertisement goes, and its flags.
func flags(s *sighting) string {
	all := "to " + s.dst.String()
	for _, f := range []struct {
		set  bool
		name string
	}{{s.na.Router(), ", router"}, {s.na.Solicited(), ", solicited"}, {s.na.Override(), ", override"}} {
		if f.set {
			all += f.name
		}
	}
	return all
}

// spacing evaluates the adverts of a master that nobody disturbed.
func (t *vrrpTester) spacing(mark int) {
	all := gaps(t.log.since(mark, t.ours))
	if len(all) == 0 {
		t.row("A-SPACING", "none", "no second advert")
		return
	}
	own := t.cfg.Interval
	least, middle, most := spread(all)
	outcome := "another"
	if (middle - own).Abs() < own/20+2*time.Millisecond {
		outcome = "the interval"
	}
	t.row("A-SPACING", outcome, "min %s, median %s, max %s of %d", fine(least), fine(middle), fine(most), len(all))
}

// fine is a duration in milliseconds with a tenth.
func fine(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }
