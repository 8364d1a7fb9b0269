package vip

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/carpd/carpd/carp"
)

const (
	// ClaimRate is how many claims a second a Kernel reads at most, half of it for
	// each family, so that a storm of ARP costs little.
	ClaimRate = 1000
	// MaxConflicts is how many addresses a Set remembers claims of; those of others
	// are counted.
	MaxConflicts = 64
	// DefendEvery is the least time between two defences of a Set (RFC 5227, 2.4 (b):
	// DEFEND_INTERVAL).
	DefendEvery = 10 * time.Second

	conflictApart  = time.Second      // between the first claim and the last, at least: one alone may be late or a mistake
	conflictWindow = 10 * time.Second // between two that belong together, at most
	conflictOver   = 30 * time.Second // after the last one
)

// Claim is a frame that came in, in which somebody says where an address is.
type Claim struct {
	Addr    netip.Addr // the sender of an ARP packet, the target of a neighbour advertisement
	MAC     carp.MAC   // where it is said to be
	From    carp.MAC   // who sent the frame
	Skipped uint64     // frames that were not looked at since the last claim, of any interface
}

// Conflict is somebody else who answers for an address of a Set.
type Conflict struct {
	Addr        netip.Addr
	MAC         carp.MAC // the last one that was seen
	First, Last carp.Instant
	Count       uint64 // claims since First
}

// ParseClaim reads an Ethernet frame: ARP of IPv4, whatever the operation, as all of
// them teach the sender's address (RFC 826); or a neighbour advertisement. A probe
// has no sender (RFC 5227, 2.1.1) and claims nothing.
func ParseClaim(f []byte) (Claim, bool) {
	if len(f) < 42 {
		return Claim{}, false
	}
	c := Claim{From: carp.MAC(f[6:12])}
	switch binary.BigEndian.Uint16(f[12:]) {
	case 0x0806:
		if binary.BigEndian.Uint16(f[14:]) != 1 || binary.BigEndian.Uint16(f[16:]) != 0x0800 || f[18] != 6 || f[19] != 4 {
			return Claim{}, false
		}
		c.MAC, c.Addr = carp.MAC(f[22:28]), netip.AddrFrom4([4]byte(f[28:32]))
	case 0x86dd:
		// Hop limit 255: nobody beyond a router has sent it (RFC 4861, 7.1.2).
		if len(f) < 78 || f[20] != 58 || f[21] != 255 || f[54] != 136 || f[55] != 0 {
			return Claim{}, false
		}
		c.Addr, c.MAC = netip.AddrFrom16([16]byte(f[62:78])), targetMAC(f[78:], c.From)
	}
	return c, c.MAC != carp.MAC{} && c.Addr.IsValid() && !c.Addr.IsUnspecified()
}

// targetMAC returns the target link-layer address among the options of a neighbour
// advertisement, or the sender of the frame.
func targetMAC(options []byte, from carp.MAC) carp.MAC {
	for len(options) >= 8 && options[1] > 0 {
		if options[0] == 2 && options[1] == 1 {
			return carp.MAC(options[2:8])
		}
		options = options[min(len(options), 8*int(options[1])):]
	}
	return from
}

// claims is what a Set remembers of those who claim its addresses. The zero value is
// empty. Time comes in, nothing else does: it is a table.
type claims struct {
	seen     map[netip.Addr]*claimed // MaxConflicts at most
	missed   uint64
	defended carp.Instant // last defence
}

type claimed struct {
	Conflict
	stands bool
}

// see takes in that somebody else has claimed an address.
func (t *claims) see(now carp.Instant, addr netip.Addr, mac carp.MAC) {
	c := t.seen[addr]
	switch {
	case c == nil && len(t.seen) >= MaxConflicts:
		t.missed++
		return
	case c == nil:
		if t.seen == nil {
			t.seen = make(map[netip.Addr]*claimed)
		}
		c = &claimed{Conflict: Conflict{Addr: addr, First: now}}
		t.seen[addr] = c
	case !c.stands && now.Sub(c.Last) > conflictWindow:
		c.First, c.Count = now, 0
	}
	c.MAC, c.Last, c.Count = mac, now, c.Count+1
}

// judge returns the conflicts that stand, in the order of their addresses. What was
// seen up to since was a takeover or a contest, and counts no more. A conflict begins
// calm after its first claim at the earliest: another master that can be heard was
// heard by then.
func (t *claims) judge(now, since carp.Instant, calm time.Duration) []Conflict {
	var all []Conflict
	for addr, c := range t.seen {
		if c.First <= since {
			c.First, c.Count, c.stands = c.Last, 1, false
		}
		idle := now.Sub(c.Last)
		if c.Last <= since || idle > conflictOver || !c.stands && idle > max(conflictWindow, calm) {
			delete(t.seen, addr)
			continue
		}
		c.stands = c.stands || c.Last.Sub(c.First) > conflictApart && now.Sub(c.First) >= calm
		if c.stands {
			all = append(all, c.Conflict)
		}
	}
	slices.SortFunc(all, func(a, b Conflict) int { return a.Addr.Compare(b.Addr) })
	return all
}

// defend returns those of found that were claimed since the last defence, if there
// may be one now, and notes it.
func (t *claims) defend(now carp.Instant, found []Conflict) []netip.Prefix {
	if t.defended != 0 && now.Sub(t.defended) < DefendEvery {
		return nil
	}
	var addrs []netip.Prefix
	for _, c := range found {
		if c.Last > t.defended {
			addrs = append(addrs, netip.PrefixFrom(c.Addr, c.Addr.BitLen()))
		}
	}
	if len(addrs) > 0 {
		t.defended = now
	}
	return addrs
}

// forget begins anew; the time of the last defence stays.
func (t *claims) forget() {
	maps.DeleteFunc(t.seen, func(netip.Addr, *claimed) bool { return true })
	t.missed = 0
}
