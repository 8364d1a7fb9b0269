package lab

import (
	"time"
)

// Stats count frames on a link since it was made. A frame that is sent to all is
// offered once to the link of each receiver.
//
// Offered + Duplicated = Delivered + Cut + Lost + Overflow + Refused + those that
// are under way or held.
type Stats struct {
	Offered    uint64 // by the sender
	Delivered  uint64 // taken by the receiver's interface, corrupted ones too
	Cut        uint64 // dropped by a cut, a partition or an isolation
	Lost       uint64 // dropped by chance
	Corrupted  uint64
	Duplicated uint64
	Reordered  uint64 // delayed so that they may be overtaken
	Overflow   uint64 // dropped because too many were under way or held
	Refused    uint64 // dropped because the receiver's interface is gone, down or full
}

func (s Stats) plus(o Stats) Stats {
	s.Offered += o.Offered
	s.Delivered += o.Delivered
	s.Cut += o.Cut
	s.Lost += o.Lost
	s.Corrupted += o.Corrupted
	s.Duplicated += o.Duplicated
	s.Reordered += o.Reordered
	s.Overflow += o.Overflow
	s.Refused += o.Refused
	return s
}

// Link is one or more one-way links between hosts of a Switched LAN. What is set
// concerns frames that are sent from then on; what is under way arrives. All
// methods but Stats return the Link, so that they can be chained.
//
// What chance does to the nth frame of a one-way link depends on the seed, the
// names of both hosts and n (and on the settings and the frame's length), not on
// time, on other links, or on what chance did before: the same sequence of frames
// meets the same fate in each run. A link counts what the switch sends along it,
// all but the rest after Only, dropped frames too.
type Link struct {
	lan   *LAN
	paths []*path
}

// Link returns the link that carries what one host sends to another. From a host
// to itself there is one too, for Echo. It ends the test if the LAN is not Switched.
func (l *LAN) Link(from, to *Host) *Link {
	l.t.Helper()
	return l.links(func(p *path) bool { return p.from.name == from.Name && p.to.name == to.Name })
}

// Between returns the links of two hosts, in both directions.
func (l *LAN) Between(a, b *Host) *Link {
	l.t.Helper()
	return l.links(func(p *path) bool {
		return p.from.name == a.Name && p.to.name == b.Name || p.from.name == b.Name && p.to.name == a.Name
	})
}

// All returns the links between all hosts that were made so far.
func (l *LAN) All() *Link {
	l.t.Helper()
	return l.links(func(p *path) bool { return p.from != p.to })
}

func (l *LAN) links(want func(*path) bool) *Link {
	l.t.Helper()
	if l.sw == nil {
		l.t.Fatalf("lab: links can be changed one by one on a Switched LAN only: lab.New(t, lab.Switched(seed))")
	}
	k := &Link{lan: l}
	l.sw.do(func(f *fabric, _ time.Duration) {
		for _, p := range f.ports {
			for _, path := range p.paths {
				if want(path) {
					k.paths = append(k.paths, path)
				}
			}
		}
	})
	return k
}

func (k *Link) set(change func(*path)) *Link {
	k.lan.sw.do(func(*fabric, time.Duration) {
		for _, p := range k.paths {
			change(p)
		}
	})
	return k
}

// checked ends the test if a probability is none.
func (k *Link) checked(what string, p float64) float64 {
	k.lan.t.Helper()
	if !(p >= 0 && p <= 1) {
		k.lan.t.Fatalf("lab: %s %v: want a probability from 0 to 1", what, p)
	}
	return p
}

// Delay makes each frame arrive d later, and up to jitter later than that. Frames
// keep their order.
func (k *Link) Delay(d, jitter time.Duration) *Link {
	return k.set(func(p *path) { p.faults.delay, p.faults.jitter = max(d, 0), max(jitter, 0) })
}

// Loss drops frames with this probability.
func (k *Link) Loss(chance float64) *Link {
	k.lan.t.Helper()
	chance = k.checked("loss", chance)
	return k.set(func(p *path) { p.faults.lose = chance })
}

// Corrupt changes one byte, after the Ethernet header, of frames with this
// probability. Every Internet checksum over that byte notices.
func (k *Link) Corrupt(chance float64) *Link {
	k.lan.t.Helper()
	chance = k.checked("corruption", chance)
	return k.set(func(p *path) { p.faults.corrupt = chance })
}

// Duplicate makes frames arrive twice with this probability, the second time up
// to later after the first.
func (k *Link) Duplicate(chance float64, later time.Duration) *Link {
	k.lan.t.Helper()
	chance = k.checked("duplication", chance)
	return k.set(func(p *path) { p.faults.duplicate, p.faults.duplicateLater = chance, later })
}

// Reorder delays frames, with this probability, by up to later more than the
// delay, and lets others overtake them.
func (k *Link) Reorder(chance float64, later time.Duration) *Link {
	k.lan.t.Helper()
	chance = k.checked("reordering", chance)
	return k.set(func(p *path) { p.faults.reorder, p.faults.reorderLater = chance, later })
}

// Echo gives a host its own multicast frames back with this probability, as a
// loop in the network does: it works on Link(a, a), and nothing else but Cut and
// Delay does there.
func (k *Link) Echo(chance float64) *Link {
	k.lan.t.Helper()
	chance = k.checked("echo", chance)
	return k.set(func(p *path) { p.faults.echo = chance })
}

// Only restricts chance (loss, corruption, duplication, reordering, jitter) to
// frames that fulfil cond, and counts these only, so that what else the kernel may
// send moves nothing; nil ends that. cond must be a pure function of the frame,
// is called by the switch, and must not call the lab.
func (k *Link) Only(cond func(Frame) bool) *Link {
	return k.set(func(p *path) { p.faults.only = cond })
}

// Limit bounds the frames that are under way or held; what comes then is dropped.
// It is 1000 at first, about the queue of an interface.
func (k *Link) Limit(frames int) *Link {
	return k.set(func(p *path) { p.faults.limit = max(frames, 0) })
}

// Cut lets nothing pass, until Join or Heal.
func (k *Link) Cut() *Link { return k.set(func(p *path) { p.cut = true }) }

// Join ends Cut.
func (k *Link) Join() *Link { return k.set(func(p *path) { p.cut = false }) }

// Clog holds back what is sent, without loss up to the limit, until Unclog or Heal.
func (k *Link) Clog() *Link { return k.set(func(p *path) { p.clogged = true }) }

// Unclog ends Clog: what was held arrives at once, in order.
func (k *Link) Unclog() *Link {
	k.lan.sw.do(func(f *fabric, now time.Duration) {
		for _, p := range k.paths {
			f.unclog(p, now)
		}
	})
	return k
}

// Heal ends every fault of the link: Cut, Clog, and all chances. Delay, Only and
// Limit stay, and so do partitions and isolations, which are the LAN's.
func (k *Link) Heal() *Link {
	k.set(func(p *path) {
		f := &p.faults
		p.cut, f.lose, f.corrupt, f.duplicate, f.reorder, f.echo = false, 0, 0, 0, 0, 0
	})
	return k.Unclog()
}

// Stats returns the counts, added up if there is more than one link.
func (k *Link) Stats() (sum Stats) {
	k.set(func(p *path) { sum = sum.plus(p.stats) })
	return sum
}

// Split divides the switch: hosts of different groups neither hear nor are heard
// by each other. A host that is in no group is cut off from nobody. It replaces an
// earlier Split or Partition; Heal ends it. It needs a Switched LAN.
func (l *LAN) Split(groups ...[]*Host) {
	l.t.Helper()
	side := map[string]int{}
	for i, g := range groups {
		for _, h := range g {
			side[h.Name] = i + 1
		}
	}
	l.All().set(func(p *path) {
		a, b := side[p.from.name], side[p.to.name]
		p.apart = a != b && a != 0 && b != 0
	})
}

// Overruns returns how many frames the kernel has dropped because the switch did
// not read them in time. They were not counted by any link: unless it is 0, two
// runs cannot be compared frame by frame. With Tap the kernel counts them as
// tx_dropped of eth0 instead.
func (l *LAN) Overruns() uint64 {
	if l.sw == nil {
		return 0
	}
	return l.sw.overruns()
}

// IPProtocol returns a condition: the frame is an IPv4 or IPv6 packet of this
// protocol, e.g. 112 for CARP and VRRP, without extension headers or VLAN tag.
func IPProtocol(number uint8) func(Frame) bool {
	return func(f Frame) bool {
		const ip4, ip6 = "\x08\x00", "\x86\xdd"
		switch d := f.Data; {
		case len(d) < 24:
			return false
		case string(d[12:14]) == ip4:
			return d[23] == number
		case string(d[12:14]) == ip6:
			return d[20] == number
		}
		return false
	}
}
