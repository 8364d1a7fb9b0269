package link

import (
	"math/bits"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/carp"
)

// address is one address of the interface, as the kernel lists it.
type address struct {
	addr  netip.Addr // without zone
	flags uint32     // IFA_F_*
}

// usable reports whether adverts can be sent from a: not while duplicate address
// detection runs, nor after it failed (RFC 4862, 5.4).
func (a address) usable() bool {
	if a.flags&unix.IFA_F_DADFAILED != 0 {
		return false
	}
	return a.flags&unix.IFA_F_TENTATIVE == 0 || a.flags&unix.IFA_F_OPTIMISTIC != 0
}

// chooseLocal picks the addresses that adverts are sent from. IPv4: the first
// that is not to be avoided, else the first (FreeBSD carp_best_ifa). IPv6: the
// same, but link-local addresses go before others, for adverts do not leave the
// link. A family without a usable address is left zero.
func chooseLocal(addresses []address, avoid func(netip.Addr) bool) (ipv4, ipv6 netip.Addr) {
	best4, best6 := 0, 0
	for _, a := range addresses {
		if !a.usable() {
			continue
		}
		rank := 1
		if !avoid(a.addr) {
			rank += 2
		}
		if a.addr.Is4() {
			if rank > best4 {
				best4, ipv4 = rank, a.addr
			}
			continue
		}
		if a.addr.IsLinkLocalUnicast() {
			rank++
		}
		if rank > best6 {
			best6, ipv6 = rank, a.addr
		}
	}
	return ipv4, ipv6
}

// state is what is known of the interface. It is never changed once it is
// published: each reading makes a new one.
type state struct {
	index     int // 0: there is no interface of that name
	up        bool
	mac       carp.MAC
	addresses []address             // in the kernel's order
	flags     map[netip.Addr]uint32 // the same, by address
	own       []netip.Addr          // the usable ones that are not to be avoided
	local     carp.Local
}

// choose sets own and local by what is to be avoided.
func (s *state) choose(avoided func(netip.Addr) bool) {
	s.own = nil
	for _, a := range s.addresses {
		if a.usable() && !avoided(a.addr) {
			s.own = append(s.own, a.addr)
		}
	}
	s.local = carp.Local{MAC: s.mac}
	s.local.IPv4, s.local.IPv6 = chooseLocal(s.addresses, avoided)
}

// has reports whether a is an address of the interface.
func (s *state) has(a netip.Addr) bool {
	_, ok := s.flags[a]
	return ok
}

// sureSource returns source, or if that is zero the address for peer among all
// the usable ones, those to be avoided too: where the checksum covers the source
// the choice cannot be left to the kernel.
func (s *state) sureSource(source, peer netip.Addr) netip.Addr {
	if source.IsValid() {
		return source
	}
	var usable []netip.Addr
	for _, a := range s.addresses {
		if a.usable() {
			usable = append(usable, a.addr)
		}
	}
	return sourceFor(usable, peer)
}

// sourceFor picks among own the address to talk to a unicast peer from: the one
// that has most in common with the peer's, since it is by its address that the
// peer knows this node. The zero Addr leaves the choice to the kernel.
func sourceFor(own []netip.Addr, peer netip.Addr) (best netip.Addr) {
	most := -1
	for _, a := range own {
		if a.Is4() != peer.Is4() || a.IsLinkLocalUnicast() != peer.IsLinkLocalUnicast() && peer.Is6() {
			continue
		}
		if n := commonBits(a, peer); n > most {
			most, best = n, a
		}
	}
	return best
}

// commonBits counts the leading bits that two addresses of one family share.
func commonBits(a, b netip.Addr) int {
	x, y := a.As16(), b.As16()
	for i := range x {
		if d := x[i] ^ y[i]; d != 0 {
			return 8*i + bits.LeadingZeros8(d)
		}
	}
	return 128
}
