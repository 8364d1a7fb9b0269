package link

import (
	"errors"
	"net"
	"net/netip"
	"os"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/carp"
)

// groups are the memberships of an interface. The sockets are UDP sockets bound
// to no port: nothing is ever read from them, they only make the kernel report
// the membership and let the frames through the NIC. The owner's lock guards
// them.
type groups struct {
	conn   [2]net.PacketConn                   // by carp.Family; nil where the kernel lacks the family
	member [2]func(*net.Interface, bool) error // joins or leaves
	joined [2]int                              // the interface's index, 0 if not a member
	missed [2]error                            // why a family has no socket
}

// groupAddr is the group of CARP and VRRP in the form that x/net takes.
func groupAddr(f carp.Family) *net.UDPAddr {
	return net.UDPAddrFromAddrPort(netip.AddrPortFrom(carp.Group(f), 0))
}

func openGroups() *groups {
	g := &groups{}
	g.conn[carp.IPv4], g.missed[carp.IPv4] = unboundUDP(unix.AF_INET)
	if conn := g.conn[carp.IPv4]; conn != nil {
		p := ipv4.NewPacketConn(conn)
		g.member[carp.IPv4] = func(i *net.Interface, join bool) error {
			if join {
				return p.JoinGroup(i, groupAddr(carp.IPv4))
			}
			return p.LeaveGroup(i, groupAddr(carp.IPv4))
		}
	}
	g.conn[carp.IPv6], g.missed[carp.IPv6] = unboundUDP(unix.AF_INET6)
	if conn := g.conn[carp.IPv6]; conn != nil {
		p := ipv6.NewPacketConn(conn)
		g.member[carp.IPv6] = func(i *net.Interface, join bool) error {
			if join {
				return p.JoinGroup(i, groupAddr(carp.IPv6))
			}
			return p.LeaveGroup(i, groupAddr(carp.IPv6))
		}
	}
	return g
}

func unboundUDP(family int) (net.PacketConn, error) {
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "group")
	defer f.Close()
	return net.FilePacketConn(f) // duplicates the descriptor, close-on-exec
}

// set makes the membership of family what it should be: of the interface with
// that index, or of none if index is 0. With again it is renewed, so that a
// switch that forgot it while the carrier was gone is told.
func (g *groups) set(family carp.Family, index int, again bool) error {
	member, joined := g.member[family], g.joined[family]
	if joined == index && !again {
		return nil
	}
	if member == nil {
		if index == 0 || errors.Is(g.missed[family], unix.EAFNOSUPPORT) {
			return nil // in a kernel without the family (ipv6.disable=1) there is nothing to join
		}
		return g.missed[family]
	}
	if joined != 0 {
		// It fails if the interface is gone, and the socket forgets it all the same.
		_ = member(&net.Interface{Index: joined}, false)
		g.joined[family] = 0
	}
	if index == 0 {
		return nil
	}
	if err := member(&net.Interface{Index: index}, true); err != nil && !errors.Is(err, unix.EADDRINUSE) {
		return err
	}
	g.joined[family] = index
	return nil
}

func (g *groups) close() {
	for _, conn := range g.conn {
		if conn != nil {
			conn.Close()
		}
	}
}
