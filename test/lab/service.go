package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ServicePort is where Serve listens.
const ServicePort = 7

// Serve answers for an address by UDP echo, and takes TCP connections, until the test
// ends. The host need not have the address: it serves whenever it has.
func (h *Host) Serve(addr netip.Addr) {
	t := h.lan.t
	t.Helper()
	free := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return errors.Join(c.Control(func(fd uintptr) {
			level, option := unix.SOL_IP, unix.IP_FREEBIND
			if addr.Is6() {
				level, option = unix.SOL_IPV6, unix.IPV6_FREEBIND
			}
			_ = unix.SetsockoptInt(int(fd), level, option, 1) // or bind says so
			enlarge(int(fd))
		}))
	}}
	at := netip.AddrPortFrom(addr, ServicePort).String()
	var udp net.PacketConn
	var tcp net.Listener
	err := h.DoErr(func() (err error) {
		if udp, err = free.ListenPacket(context.Background(), "udp", at); err != nil {
			return err
		}
		tcp, err = free.Listen(context.Background(), "tcp", at)
		return err
	})
	if err != nil {
		t.Fatalf("lab: serve %v on %s: %v", addr, h.Name, err)
	}
	var ended sync.WaitGroup
	ended.Go(func() { echo(udp) })
	ended.Go(func() { refuse(tcp) })
	t.Cleanup(func() {
		_ = udp.Close()
		_ = tcp.Close()
		ended.Wait()
	})
}

// echo sends back what comes, until the socket is closed.
func echo(c net.PacketConn) {
	buf := make([]byte, 2048)
	for {
		n, from, err := c.ReadFrom(buf)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err == nil:
			_, _ = c.WriteTo(buf[:n], from) // the address may just have gone
		}
	}
}

// refuse takes connections and ends them, until the socket is closed.
func refuse(l net.Listener) {
	for {
		c, err := l.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err == nil:
			_ = c.Close()
		}
	}
}

// ProbeUDP asks the service of dst by UDP, as Probe does by ICMP.
func (h *Host) ProbeUDP(dst netip.Addr) *Prober {
	h.lan.t.Helper()
	p := &Prober{host: h, dst: dst, port: ServicePort, every: probeInterval}
	p.ask = func(seq uint16) []byte { return binary.BigEndian.AppendUint16(make([]byte, 0, 2), seq) }
	p.heard = func(b []byte) bool { return len(b) == 2 }
	return p.begin(h.rawSocket(dst, unix.SOCK_DGRAM, 0))
}

// ProbeTCP asks the service of dst, over IPv4, for a connection: an answer is a
// SYN-ACK. No connection comes about, for the kernel of the host knows nothing of it
// and resets. src is the host's own address.
func (h *Host) ProbeTCP(src, dst netip.Addr) *Prober {
	h.lan.t.Helper()
	p := &Prober{host: h, dst: dst, every: probeInterval}
	p.ask = func(seq uint16) []byte { return syn(src, dst, seq) }
	p.heard = func(b []byte) bool {
		const header, flags, synAck = 20, 13, 0x12
		return len(b) >= 2*header && netip.AddrFrom4([4]byte(b[12:])) == dst && b[int(b[0]&15)*4+flags]&0x3f == synAck &&
			binary.BigEndian.Uint16(b[int(b[0]&15)*4:]) == ServicePort
	}
	return p.begin(h.rawSocket(dst, unix.SOCK_RAW, unix.IPPROTO_TCP))
}

// syn is a TCP segment that asks for a connection, from one of many ports.
func syn(src, dst netip.Addr, seq uint16) []byte {
	const header = 20
	b := make([]byte, header)
	binary.BigEndian.PutUint16(b, 20_000+seq%20_000)
	binary.BigEndian.PutUint16(b[2:], ServicePort)
	binary.BigEndian.PutUint16(b[4:], seq)
	b[12], b[13] = header/4<<4, 2
	binary.BigEndian.PutUint16(b[14:], 1024)
	pseudo := append(append(src.AsSlice(), dst.AsSlice()...), 0, unix.IPPROTO_TCP, 0, header)
	binary.BigEndian.PutUint16(b[16:], checksum(append(pseudo, b...)))
	return b
}

// stranger is a MAC that no host has.
var stranger = [6]byte{0x02, 0xca, 0, 0, 0, 0xfe}

// AskARP asks each millisecond, from now until the test ends or stop is called, who
// has an IPv4 address. It is a probe (RFC 5227, 2.1.1) of a station that is not there,
// so that no cache learns from question and answer; a Capture has the answers.
func (h *Host) AskARP(addr netip.Addr) (stop func()) {
	t := h.lan.t
	t.Helper()
	fd, index := -1, 0
	err := h.DoErr(func() error {
		link, err := h.ns.nl.LinkByName(linkName)
		if err != nil {
			return err
		}
		index = link.Attrs().Index
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		t.Fatalf("lab: host %s: open a socket for ARP: %v", h.Name, err)
	}
	frame := append([]byte{255, 255, 255, 255, 255, 255}, stranger[:]...)
	frame = append(frame, 0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1)
	frame = append(append(frame, stranger[:]...), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	frame = append(frame, addr.AsSlice()...)
	to := &unix.SockaddrLinklayer{Ifindex: index, Halen: 6, Addr: [8]byte{255, 255, 255, 255, 255, 255}}
	over := make(chan struct{})
	var ended sync.WaitGroup
	ended.Go(func() {
		tick := time.NewTicker(probeInterval)
		defer tick.Stop()
		for range maxProbes {
			select {
			case <-tick.C:
				_ = unix.Sendto(fd, frame, unix.MSG_DONTWAIT, to) // no answer will come
			case <-over:
				return
			}
		}
	})
	stop = sync.OnceFunc(func() {
		close(over)
		ended.Wait()
		_ = unix.Close(fd)
	})
	t.Cleanup(stop)
	return stop
}
