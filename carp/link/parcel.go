package link

import (
	"errors"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/carp"
)

// Parcel is an advert made ready to be sent later by somebody else, who needs
// neither the port nor what it knows of the interface: see Packer and Outlet. It is
// good as long as the interface keeps its index and its addresses.
type Parcel struct {
	Index int // of the interface
	// Dst is a unicast peer, and Data then what follows the IP header, sent from Src
	// (the zero Addr leaves the choice to the kernel) with TOS. The zero Dst: Data is
	// a whole Ethernet frame.
	Src, Dst netip.Addr
	TOS      uint8
	Data     []byte
}

// Packer is implemented by what Attach returns. Pack makes a parcel of what Send
// would send now, and fails as Send does. Any goroutine may call it; the parcel is
// the caller's.
type Packer interface {
	Pack(carp.Frame) (Parcel, error)
}

// Pack implements Packer.
func (p *port) Pack(f carp.Frame) (Parcel, error) {
	s := p.i.state.Load()
	err := error(nil)
	switch {
	case !s.up:
		err = ErrDown
	case f.Dst.IsMulticast():
		out := Parcel{Index: s.index, Data: carp.AppendFrame(nil, p.sourceMAC(s), s.local, f, carp.IPHeader{TOS: p.config.TOS})}
		if len(out.Data) > 0 {
			return out, nil
		}
		err = unix.EMSGSIZE
	default:
		f.Payload = slices.Clone(f.Payload)
		var source netip.Addr
		if source, err = s.unicastSource(&f); err == nil {
			return Parcel{Index: s.index, Src: source, Dst: f.Dst.Unmap(), TOS: p.config.TOS, Data: f.Payload}, nil
		}
	}
	return Parcel{}, &OpError{Op: "pack", Object: p.object(), Err: err, Hint: sendHint(err)}
}

// unicastSource chooses the source of a frame to a peer, and finishes the frame
// where its checksum covers that.
func (s *state) unicastSource(f *carp.Frame) (netip.Addr, error) {
	peer := f.Dst.Unmap()
	source := sourceFor(s.own, peer)
	if f.Pseudo {
		if source = s.sureSource(source, peer); !source.IsValid() {
			return source, errNoSource
		}
		f.Finish(source)
	}
	return source, nil
}

// Outlet sends parcels by sockets of its own, which are open beforehand. One
// goroutine uses it. OpenOutlet makes one; Close releases it.
type Outlet struct {
	packet int
	raw    unicast
}

// errNoRaw is what a parcel to a peer gets in a family that the node does not have.
var errNoRaw = errors.New("this node does not have the family of the peer")

// OpenOutlet opens the sockets. Without CAP_NET_RAW errors.Is(err,
// os.ErrPermission) holds.
func OpenOutlet() (*Outlet, error) {
	fail := func(err error) (*Outlet, error) {
		return nil, &OpError{Op: "open", Object: "an outlet", Err: err, Hint: rawHint(err)}
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0) // it receives nothing
	if err != nil {
		return fail(err)
	}
	o := &Outlet{packet: fd, raw: unicast{-1, -1}}
	for _, family := range []carp.Family{carp.IPv4, carp.IPv6} {
		o.raw[family], err = openRaw(family, 0)
		if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
			o.Close()
			return fail(err)
		}
	}
	return o, nil
}

// Send sends one parcel, or fails at once.
func (o *Outlet) Send(p Parcel) error {
	if !p.Dst.IsValid() {
		to := unix.SockaddrLinklayer{Ifindex: p.Index, Protocol: networkOrder(unix.ETH_P_IP)}
		if len(p.Data) < 14 {
			return unix.EINVAL
		}
		to.Protocol = networkOrder(uint16(p.Data[12])<<8 | uint16(p.Data[13]))
		to.Halen = uint8(copy(to.Addr[:6], p.Data))
		return unix.Sendto(o.packet, p.Data, unix.MSG_DONTWAIT, &to)
	}
	family := carp.FamilyOf(p.Dst)
	fd := o.raw[family]
	if fd < 0 {
		return errNoRaw
	}
	level, option := unix.IPPROTO_IP, unix.IP_TOS
	if family == carp.IPv6 {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_TCLASS
	}
	if err := unix.SetsockoptInt(fd, level, option, int(p.TOS)); err != nil {
		return err
	}
	return sendUnicast(fd, p.Index, p.Src, p.Dst, p.Data)
}

// Close closes the sockets.
func (o *Outlet) Close() {
	unix.Close(o.packet)
	o.raw.close()
}
