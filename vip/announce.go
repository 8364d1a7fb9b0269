package vip

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/carpd/carpd/carp"
)

// Announce says when a burst of gratuitous ARP and unsolicited NA is repeated.
// The zero value means at once, after 0.2 s, 1 s and 5 s: the second round is
// for a lost broadcast, the third for neighbours that refuse to change a young
// entry (Linux before 4.12: 1 s), the fourth for a switch port that was still
// learning (keepalived repeats after 5 s as well).
type Announce struct {
	Repeat []time.Duration // after the first round, ascending; nil = the default, empty = none
	// Refresh is how long after the last round another one follows, again and again
	// while the addresses are on: for clients whose caches somebody else has changed
	// whom this node did not hear. 0 = none.
	Refresh time.Duration
}

var defaultRepeat = [...]time.Duration{200 * time.Millisecond, time.Second, 5 * time.Second}

func (a Announce) repeat() []time.Duration {
	if a.Repeat == nil {
		return defaultRepeat[:]
	}
	return a.Repeat
}

// burstEvery is the least time between the beginnings of two bursts of a set.
const burstEvery = 100 * time.Millisecond

const (
	// FrameRate is how many announcement frames a second a Kernel sends on one
	// interface once the first FrameBurst are out.
	FrameRate = 20_000
	// FrameBurst is how many frames may go back to back: a thousand addresses are
	// announced without a pause, which is 0.7 ms of a gigabit wire. What a switch's
	// processor loses of that is repeated.
	FrameBurst = 1024
	// chunk is how many frames are handed to the kernel in one call of Send.
	chunk = 64
)

// announcement returns the frame that tells the segment that addr is at mac.
func announcement(mac carp.MAC, addr netip.Addr) []byte {
	if addr.Is4() {
		return gratuitousARP(mac, addr)
	}
	return unsolicitedNA(mac, addr)
}

// gratuitousARP returns an ARP announcement (RFC 5227 section 2.3): a broadcast
// request with sender and target IP the address itself and target MAC zero.
// There is no reply beside it: RFC 826 has the receiver merge the sender's
// mapping before it looks at the opcode, so a reply tells nobody more.
func gratuitousARP(mac carp.MAC, addr netip.Addr) []byte {
	ip := addr.As4()
	f := make([]byte, 0, 60)
	f = append(f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
	f = append(f, mac[:]...)
	f = append(f, 0x08, 0x06)          // ARP
	f = append(f, 0, 1, 0x08, 0, 6, 4) // Ethernet, IPv4, lengths
	f = append(f, 0, 1)                // request
	f = append(append(f, mac[:]...), ip[:]...)
	f = append(f, 0, 0, 0, 0, 0, 0)
	f = append(f, ip[:]...)
	return f[:60] // the least an Ethernet frame holds
}

// unsolicitedNA returns a neighbour advertisement to all nodes (RFC 4861
// sections 4.4 and 7.2.6) with the Override flag and the target link-layer
// option. The Router flag is off: the address is a host's as far as we know. The
// source is the address itself, which every node on the link may use.
func unsolicitedNA(mac carp.MAC, addr netip.Addr) []byte {
	src, dst := addr.As16(), netip.MustParseAddr("ff02::1").As16()
	f := make([]byte, 0, 14+40+32)
	f = append(f, 0x33, 0x33, 0, 0, 0, 1)
	f = append(f, mac[:]...)
	f = append(f, 0x86, 0xdd)
	f = append(f, 0x60, 0, 0, 0, 0, 32, 58, 255) // 32 bytes of ICMPv6, hop limit 255
	f = append(append(f, src[:]...), dst[:]...)
	f = append(f, 136, 0, 0, 0)  // neighbour advertisement, checksum below
	f = append(f, 0x20, 0, 0, 0) // Override
	f = append(f, src[:]...)     // target
	f = append(append(f, 2, 1), mac[:]...)
	binary.BigEndian.PutUint16(f[56:], checksum6(f[22:54], f[54:]))
	return f
}

// checksum6 returns the ICMPv6 checksum (RFC 4443 section 2.3) of body between
// the addresses, 32 bytes.
func checksum6(addresses, body []byte) uint16 {
	sum := uint32(len(body)) + 58
	for _, b := range [2][]byte{addresses, body} {
		for i := 0; i < len(b); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(b[i:]))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// pacer is a token bucket: FrameBurst at once, then FrameRate a second. The zero
// value is a full bucket. It is not safe for concurrent use.
type pacer struct {
	empty time.Time // when the bucket would have been empty and begun to fill
}

// reserve takes n frames out of the bucket and returns how long to wait before
// they may be sent.
func (p *pacer) reserve(now time.Time, n int) time.Duration {
	const whole = FrameBurst * time.Second / FrameRate
	if full := now.Add(-whole); p.empty.Before(full) {
		p.empty = full
	}
	p.empty = p.empty.Add(time.Duration(n) * time.Second / FrameRate)
	return max(0, p.empty.Sub(now))
}
