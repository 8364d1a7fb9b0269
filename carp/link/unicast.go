package link

import (
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/carp"
)

// errNoPeer is what a frame to a family without unicast peers gets.
var errNoPeer = errors.New("no unicast peer of that family was given to Attach")

// errNoSource is what a frame gets whose checksum needs a source address when the
// interface has none.
var errNoSource = errors.New("the interface has no address to send from")

// unicast are the raw sockets of a port, by carp.Family; -1 where it has no peer.
// They only send: what peers send arrives by the interface's packet socket. The
// interface is named with each packet, so that a recreated one needs nothing.
type unicast [2]int

// openUnicast makes a socket for each family that occurs among the peers.
func openUnicast(peers []netip.Addr, tos uint8) (unicast, error) {
	u := unicast{-1, -1}
	for _, peer := range peers {
		family := carp.FamilyOf(peer)
		if u[family] >= 0 {
			continue
		}
		fd, err := openRaw(family, tos)
		if err != nil {
			u.close()
			return u, err
		}
		u[family] = fd
	}
	return u, nil
}

func openRaw(family carp.Family, tos uint8) (int, error) {
	domain, level := unix.AF_INET, unix.IPPROTO_IP
	// PMTUDISC_PROBE sets DF and does not let a forged "too big" stop adverts.
	options := [][2]int{
		{unix.IP_TTL, 255}, {unix.IP_TOS, int(tos)}, {unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE},
	}
	if family == carp.IPv6 {
		domain, level = unix.AF_INET6, unix.IPPROTO_IPV6
		options = [][2]int{
			{unix.IPV6_UNICAST_HOPS, 255}, {unix.IPV6_TCLASS, int(tos)}, {unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE},
		}
	}
	fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 112)
	if err != nil {
		return -1, err
	}
	if err = attachFilter(fd, dropAll()); err == nil {
		for _, o := range options {
			if err = unix.SetsockoptInt(fd, level, o[0], o[1]); err != nil {
				break
			}
		}
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// send sends one advert to a peer, or fails at once.
func (u unicast) send(s *state, f carp.Frame) error {
	peer := f.Dst.Unmap()
	fd := u[carp.FamilyOf(peer)]
	if fd < 0 {
		return errNoPeer
	}
	source, err := s.unicastSource(&f)
	if err != nil {
		return err
	}
	return sendUnicast(fd, s.index, source, peer, f.Payload)
}

// sendUnicast sends what follows the IP header to a peer over one interface; the
// zero source leaves the choice to the kernel.
func sendUnicast(fd, index int, source, peer netip.Addr, payload []byte) error {
	if peer.Is4() {
		info := unix.Inet4Pktinfo{Ifindex: int32(index)}
		if source.IsValid() {
			info.Spec_dst = source.As4()
		}
		to := unix.SockaddrInet4{Addr: peer.As4()}
		return unix.Sendmsg(fd, payload, unix.PktInfo4(&info), &to, unix.MSG_DONTWAIT)
	}
	info := unix.Inet6Pktinfo{Ifindex: uint32(index)}
	if source.IsValid() {
		info.Addr = source.As16()
	}
	to := unix.SockaddrInet6{Addr: peer.As16()}
	if peer.IsLinkLocalUnicast() {
		to.ZoneId = uint32(index)
	}
	return unix.Sendmsg(fd, payload, unix.PktInfo6(&info), &to, unix.MSG_DONTWAIT)
}

func (u unicast) close() {
	for _, fd := range u {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}
