package conform

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/google/gopacket/layers"
)

const twoFamilies = "the group has IPv6 addresses as well: a speaker may weigh the families together"

// foreign is an address of no network here (RFC 5737).
var foreign = netip.AddrFrom4([4]byte{198, 51, 100, 77})

// spread returns the least, middle and greatest.
func spread(all []time.Duration) (least, middle, most time.Duration) {
	slices.Sort(all)
	return all[0], all[len(all)/2], all[len(all)-1]
}

// backupRows are those that need a backup which takes over at 4/0.
func backupRows() (ids []string) {
	for _, r := range refusalRules() {
		ids = append(ids, r.id)
	}
	return append(ids, "B-BOWOUT", "B-BOWOUT-OTHER", "A-COUNTER-HEARD")
}

// refusals offers a backup the advert of a dying master, each time with
// something wrong or odd: that it takes over shows that it took the advert.
func (t *tester) refusals(taken []byte) {
	if t.cfg.has6() {
		t.skip(twoFamilies, slices.DeleteFunc(backupRows(), func(id string) bool { return id == "A-COUNTER-HEARD" })...)
		return
	}
	for _, v := range t.variants() {
		t.asBackup(v.id, accepts, func([]byte) []byte {
			p := t.advert(t.peer, 4, 0)
			v.change(p)
			return t.frame(p)
		})
	}
	t.asBackup("B-REPLAY", accepts, func([]byte) []byte { return taken })
	t.asBackup("B-REWRITE", accepts, func(heard []byte) []byte { return t.rewrite(heard, t.peer, 4, 0) })
	t.asBackup("B-COUNTER-BACK", accepts, func(heard []byte) []byte {
		p := t.advert(t.peer, 4, 0)
		p.carp.Counter = t.captured(heard).carp.Counter - 1000
		return t.frame(p)
	})
}

// variant is one thing that is wrong or odd.
type variant struct {
	id     string
	change func(*packet)
}

func (t *tester) variants() []variant {
	sign := func(p *packet, key []byte, addrs ...netip.Addr) {
		p.carp.Digest, p.frozen = p.carp.Sign(key, addrs), true
	}
	all := []variant{
		{"R-TTL", func(p *packet) { p.ip.TTL = 254 }},
		{"R-CHECKSUM", func(p *packet) { p.spoil = flip(offCARPSum) }},
		{"R-IPSUM", func(p *packet) { p.spoil = flip(offIPSum) }},
		{"R-HMAC", func(p *packet) { sign(p, t.cfg.Key, t.cfg.Addresses...); p.carp.Digest[19] ^= 1 }},
		{"R-VERSION", func(p *packet) { p.carp.Version = 3 }},
		{"R-VERSION1", func(p *packet) { p.carp.Version = 1 }},
		{"R-VHID", func(p *packet) { p.carp.VHID ^= 0x80 }},
		{"R-VHID0", func(p *packet) { p.carp.VHID = 0 }},
		{"R-SHORT", func(p *packet) { p.edit = func(b []byte) []byte { return b[:len(b)-1] } }},
		{"R-ADDRESS", func(p *packet) { sign(p, t.cfg.Key, foreign) }},
		{"R-KEY", func(p *packet) { sign(p, []byte("another key"), t.cfg.Addresses...) }},
		{"R-TYPE", func(p *packet) { p.carp.Type = 2 }},
		{"R-AUTHLEN", func(p *packet) { p.carp.AuthLen = 0 }},
		{"R-PAD", func(p *packet) { p.carp.Pad = 0xff }},
		{"R-TRAILING", func(p *packet) { p.edit = func(b []byte) []byte { return append(slices.Clone(b), make([]byte, 8)...) } }},
		{"R-OPTIONS", func(p *packet) {
			p.ip.Options = []layers.IPv4Option{{OptionType: 148, OptionLength: 4, OptionData: []byte{0, 0}}}
		}},
		{"R-TOS", func(p *packet) { p.ip.TOS = 0 }},
		{"R-DF", func(p *packet) { p.ip.Flags = 0 }},
		{"R-OTHERGROUP", func(p *packet) {
			p.ip.DstIP, p.eth.DstMAC = net.IP{224, 0, 0, 1}, net.HardwareAddr{0x01, 0x00, 0x5e, 0, 0, 1}
		}},
		{"R-BROADCAST", func(p *packet) { p.eth.DstMAC = broadcast }},
		{"R-MAC", func(p *packet) { p.eth.SrcMAC = t.wire.mac }},
	}
	if t.mac == nil {
		t.skip(fmt.Sprintf("%v does not answer ARP", t.speaker), "R-UNICAST")
		return all
	}
	return append(all, variant{"R-UNICAST", func(p *packet) { p.ip.DstIP, p.eth.DstMAC = t.speaker.AsSlice(), t.mac }})
}

// asBackup offers a packet to a backup, which has just heard a good advert, and
// writes down whether it takes over, under the row's name for that.
func (t *tester) asBackup(id, taken string, build func(heard []byte) []byte) {
	outcome, seen := t.offer(taken, build)
	if outcome != "" && !t.foretold(id, outcome) {
		usual := t.reaction
		t.reaction = reactionLimit
		outcome, seen = t.offer(taken, build)
		t.reaction = usual
		seen += " (second trial)"
	}
	t.row(id, outcome, "%s", seen)
}

func (t *tester) offer(taken string, build func(heard []byte) []byte) (outcome, seen string) {
	heard, ok := t.makeBackup()
	if !ok {
		return "", noBackup
	}
	mark := t.log.len()
	sent := t.transmit(build(heard))
	s := t.await(mark, t.reaction, t.ours)
	if s == nil {
		return refuses, "nothing happens within " + ms(t.reaction)
	}
	t.backup = false
	return taken, "takes over after " + ms(s.at.Sub(sent))
}

// rewrite changes what the HMAC leaves open in a captured advert.
func (t *tester) rewrite(frame []byte, src netip.Addr, base, skew uint8) []byte {
	p, c := t.advert(src, base, skew), t.captured(frame)
	p.carp.Counter, p.carp.Digest, p.frozen = c.carp.Counter, c.carp.Digest, true
	return t.frame(p)
}

// captured reads a frame that was captured, or sent here, and is authentic.
func (t *tester) captured(frame []byte) *sighting { return t.log.read(frame) }

// slower shows a master one that is slower.
func (t *tester) slower() {
	s, ok := t.makeMaster()
	if !ok {
		t.skip(noMaster, "M-SLOWER", "M-SLOWER-SENDS")
		return
	}
	mark := t.log.len()
	_, sent := t.say(t.peer, 2, 0)
	outcome := t.hears(mark, sent, t.peer)
	t.row("M-SLOWER", outcome, "%s", t.next(outcome, mark, sent))
	arps := t.log.since(mark, func(s *sighting) bool { return s.kind == announced && s.at.After(sent) })
	early := t.log.since(mark, func(a *sighting) bool {
		return t.ours(a) && a.at.After(sent) && a.at.Sub(s.at) < t.interval-200*time.Millisecond
	})
	sends := nothing
	switch {
	case len(arps) > 0:
		sends = "gratuitous ARP"
	case len(early) > 0:
		sends = "advert"
	}
	t.row("M-SLOWER-SENDS", sends, "%d gratuitous ARP and %d early adverts within %s", len(arps), len(early), ms(now().Sub(sent)))
}

// next says when the advert came by which a master was seen to stay.
func (t *tester) next(outcome string, mark int, sent time.Time) string {
	if outcome == yields {
		return "no more adverts within " + ms(now().Sub(sent))
	}
	all := t.log.since(mark, t.ours)
	return "its next regular advert came " + ms(all[len(all)-1].at.Sub(sent)) + " later"
}

// contests shows a master what it may yield to. yielded is an advert that it
// yielded to before.
func (t *tester) contests(yielded []byte) {
	from := func(src netip.Addr, base, skew uint8) func(*sighting) []byte {
		return func(*sighting) []byte { return t.frame(t.advert(src, base, skew)) }
	}
	equal := func(src netip.Addr) func(*sighting) []byte {
		return func(s *sighting) []byte { return t.frame(t.advert(src, s.carp.AdvBase, s.carp.AdvSkew)) }
	}
	vip := t.cfg.first4()
	t.asMaster("M-BOWOUT", t.peer, from(t.peer, 255, 255))
	t.asMaster("M-ECHO", t.speaker, func(s *sighting) []byte { return s.frame })
	t.asMaster("M-REWRITE", t.peer, func(s *sighting) []byte { return t.rewrite(s.frame, t.peer, 0, 0) })
	t.asMaster("M-TIE-HIGHER", t.above, equal(t.above))
	t.asMaster("M-TIE-LOWER", t.below, equal(t.below))
	t.asMaster("M-ZERO", t.peer, from(t.peer, 0, 0))
	t.asMaster("M-REPLAY", t.peer, func(*sighting) []byte { return yielded })
	if t.cfg.Quick {
		t.skip("left out of a quick run", "M-OWNSOURCE", "M-FOREIGN", "M-NOSOURCE", "M-VIPSOURCE")
		return
	}
	t.asMaster("M-OWNSOURCE", t.speaker, from(t.speaker, 1, 0))
	t.asMaster("M-FOREIGN", foreign, from(foreign, 1, 0))
	t.asMaster("M-NOSOURCE", netip.IPv4Unspecified(), from(netip.IPv4Unspecified(), 1, 0))
	t.asMaster("M-VIPSOURCE", vip, from(vip, 1, 0))
}

// asMaster shows a packet to a master, right after an advert of it, and writes
// down whether it yields.
func (t *tester) asMaster(id string, src netip.Addr, build func(last *sighting) []byte) {
	outcome, seen := t.show(src, build)
	if outcome != "" && !t.foretold(id, outcome) {
		outcome, seen = t.show(src, build)
		seen += " (second trial)"
	}
	t.row(id, outcome, "%s", seen)
}

func (t *tester) show(src netip.Addr, build func(last *sighting) []byte) (outcome, seen string) {
	s, ok := t.makeMaster()
	if !ok {
		return "", noMaster
	}
	mark := t.log.len()
	sent := t.transmit(build(s))
	outcome = t.hears(mark, sent, src)
	return outcome, t.next(outcome, mark, sent)
}

// The flood: how many frames a tick, and how long.
const (
	floodTick  = 5 * time.Millisecond
	floodBurst = 10
	floodTime  = 3 * time.Second
	floodQuick = time.Second
)

// flood sends malformed packets to a master and watches its adverts, a second
// time if they were disturbed.
func (t *tester) flood() {
	for trial := range 2 {
		outcome, seen := t.deluge()
		if outcome == "undisturbed" || trial == 1 {
			t.row("F-FLOOD", outcome, "%s", seen)
			return
		}
	}
}

func (t *tester) deluge() (outcome, seen string) {
	first, ok := t.makeMaster()
	if !ok {
		return "", noMaster
	}
	lasts := floodTime
	if t.cfg.Quick {
		lasts = floodQuick
	}
	junk := t.junk()
	mark, sent := t.log.len(), 0
	tick := time.NewTicker(floodTick)
	defer tick.Stop()
	for begin := now(); now().Sub(begin) < lasts && t.ctx.Err() == nil; sent += floodBurst {
		<-tick.C
		for i := range floodBurst {
			t.transmit(junk[(sent+i)%len(junk)])
		}
	}
	t.await(t.log.len(), t.interval+reactionLimit, t.ours)
	all := gaps(append([]*sighting{first}, t.log.since(mark, t.ours)...))
	if len(all) == 0 {
		return "disturbed", fmt.Sprintf("%d packets in %s; no more adverts", sent, ms(lasts))
	}
	outcome = "disturbed"
	_, _, most := spread(all)
	if most < t.interval+300*time.Millisecond {
		outcome = "undisturbed"
	}
	return outcome, fmt.Sprintf("%d packets in %s; %d adverts, at most %s apart (else %s)", sent, ms(lasts), len(all), ms(most), ms(t.interval))
}

// junk makes packets of protocol 112 that nobody may take: none is authentic.
func (t *tester) junk() (frames [][]byte) {
	for i := range 64 {
		p := t.advert(t.peer, 0, 0)
		p.frozen = true
		for j := range p.carp.Digest {
			p.carp.Digest[j] = byte(t.rand.Uint32())
		}
		switch i % 8 {
		case 0:
			p.edit = func(b []byte) []byte { return b[:i/2] }
		case 1:
			p.spoil = flip(offCARPSum)
		case 2:
			p.carp.Version = uint8(i) & 15
		case 3:
			p.carp.VHID ^= uint8(i)
		case 4: // a header length that reaches into the advert
			p.spoil = func(f []byte) { f[14] = 0x40 | byte(i)&15 }
		case 5: // more than the frame holds
			p.spoil = func(f []byte) { f[16], f[17] = 0xff, byte(i) }
		case 6: // a fragment
			p.ip.Flags, p.ip.FragOffset = layers.IPv4MoreFragments, uint16(i)
		case 7: // noise
			p.edit = func([]byte) []byte {
				b := make([]byte, t.rand.IntN(1200))
				for j := range b {
					b[j] = byte(t.rand.Uint32())
				}
				return b
			}
		}
		frames = append(frames, t.frame(p))
	}
	return frames
}
