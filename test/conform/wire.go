package conform

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// maxFrame is as much of a frame as is read.
const maxFrame = 2048

// wire is the tester's packet socket. send and receive may run at once.
type wire struct {
	index int
	mac   net.HardwareAddr
	own   netip.Addr // the interface's first IPv4 address; the zero value if there is none
	own6  netip.Addr // its first link-local IPv6 address, likewise

	file  *os.File
	raw   syscall.RawConn
	group []int // UDP sockets that are members of 224.0.0.18 and ff02::12
	once  sync.Once
}

func open(name string) (*wire, error) {
	link, err := net.InterfaceByName(name)
	if err != nil {
		return nil, fmt.Errorf("conform: find interface %s: %w", name, err)
	}
	if len(link.HardwareAddr) != 6 {
		return nil, fmt.Errorf("conform: interface %s: not an Ethernet", name)
	}
	w := &wire{index: link.Index, mac: link.HardwareAddr}
	addrs, err := link.Addrs()
	if err != nil {
		return nil, fmt.Errorf("conform: list addresses of %s: %w", name, err)
	}
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		switch {
		case err != nil:
		case p.Addr().Is4() && !w.own.IsValid():
			w.own = p.Addr()
		case p.Addr().Is6() && p.Addr().IsLinkLocalUnicast() && !w.own6.IsValid():
			w.own6 = p.Addr().WithZone("")
		}
	}
	fd, err := w.socket()
	if err != nil {
		return nil, fmt.Errorf("conform: open packet socket on %s: %w", name, err)
	}
	w.file = os.NewFile(uintptr(fd), "packet")
	if w.raw, err = w.file.SyscallConn(); err != nil {
		_ = w.file.Close()
		return nil, fmt.Errorf("conform: open packet socket on %s: %w", name, err)
	}
	w.join()
	return w, nil
}

// socket opens the packet socket: the filter before the protocol, so that
// nothing else is ever in its queue.
func (w *wire) socket() (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1) // else the filter does it
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1<<20)          // the default will do
	err = errors.Join(
		filter(fd),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL), Ifindex: w.index}),
		unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP,
			&unix.PacketMreq{Ifindex: int32(w.index), Type: unix.PACKET_MR_ALLMULTI}),
	)
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// join makes switches that snoop forward the groups to this port. It may fail
// where there is no IPv4 or no IPv6 at all, and the test goes on.
func (w *wire) join() {
	if fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err == nil {
		_ = unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP,
			&unix.IPMreqn{Multiaddr: [4]byte{224, 0, 0, 18}, Ifindex: int32(w.index)})
		w.group = append(w.group, fd)
	}
	if fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err == nil {
		_ = unix.SetsockoptIPv6Mreq(fd, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP,
			&unix.IPv6Mreq{Multiaddr: [16]byte{0: 0xff, 1: 2, 15: 0x12}, Interface: uint32(w.index)})
		w.group = append(w.group, fd)
	}
}

// filter lets through what others send of ARP, of protocol 112, and of ICMPv6.
func filter(fd int) error {
	program, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtType},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.PACKET_OUTGOING, SkipTrue: 10},
		bpf.LoadAbsolute{Off: 12, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.ETH_P_ARP, SkipTrue: 7},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.ETH_P_IP, SkipTrue: 2},
		bpf.LoadAbsolute{Off: 14 + 9, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 112, SkipTrue: 4, SkipFalse: 5},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.ETH_P_IPV6, SkipTrue: 4},
		bpf.LoadAbsolute{Off: 14 + 6, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 112, SkipTrue: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_ICMPV6, SkipTrue: 1},
		bpf.RetConstant{Val: maxFrame},
		bpf.RetConstant{Val: 0},
	})
	if err != nil {
		return err
	}
	filters := make([]unix.SockFilter, len(program))
	for i, r := range program {
		filters[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(filters)), Filter: &filters[0]})
}

// send sends one frame; a full queue is waited for by the kernel's own time only.
func (w *wire) send(frame []byte) error {
	to := unix.SockaddrLinklayer{Ifindex: w.index, Protocol: binary.NativeEndian.Uint16(frame[12:]), Halen: 6}
	copy(to.Addr[:6], frame)
	var sent error
	err := w.raw.Write(func(fd uintptr) bool {
		sent = unix.Sendto(int(fd), frame, unix.MSG_DONTWAIT, &to)
		return true
	})
	return errors.Join(err, sent)
}

// listen receives in a goroutine until stop, which closes the wire and waits for the
// end.
func (w *wire) listen(handle func(at time.Time, frame []byte)) (stop func()) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.receive(handle)
	}()
	return func() {
		w.close()
		<-ended
	}
}

// receive gives each frame and the kernel's stamp to handle, until close. The
// frame is handle's to keep.
func (w *wire) receive(handle func(at time.Time, frame []byte)) {
	buf, oob := make([]byte, maxFrame), make([]byte, 128)
	for {
		var n, noob int
		var got error
		err := w.raw.Read(func(fd uintptr) bool {
			n, noob, _, _, got = unix.Recvmsg(int(fd), buf, oob, 0)
			return got != unix.EAGAIN
		})
		if err != nil {
			return // closed
		}
		if got == nil {
			handle(stamp(oob[:noob]), append([]byte(nil), buf[:n]...))
		}
	}
}

// stamp reads the kernel's time stamp: the wall clock, as all times here.
func stamp(oob []byte) time.Time {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err == nil {
		for _, m := range messages {
			if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SO_TIMESTAMPNS && len(m.Data) >= 16 {
				sec := binary.NativeEndian.Uint64(m.Data)
				return time.Unix(int64(sec), int64(binary.NativeEndian.Uint64(m.Data[8:])))
			}
		}
	}
	return now()
}

// now is the clock of the stamps.
func now() time.Time { return time.Now().Round(0) }

func (w *wire) close() {
	w.once.Do(func() {
		_ = w.file.Close()
		for _, fd := range w.group {
			_ = unix.Close(fd)
		}
	})
}

// networkOrder converts a protocol number for sockaddr_ll.
func networkOrder(protocol uint16) uint16 {
	return binary.NativeEndian.Uint16([]byte{byte(protocol >> 8), byte(protocol)})
}
