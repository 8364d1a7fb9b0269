package link

import (
	"encoding/binary"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/carp"
)

// receiveBuffer is the socket's, in bytes; the kernel counts more than 700 for a
// packet and doubles what it is asked for.
const receiveBuffer = 1 << 20

// wire is the AF_PACKET socket of an interface. One goroutine receives; send may
// be called by any.
type wire struct {
	file *os.File // owns the descriptor and waits in the runtime's poller
	raw  syscall.RawConn

	turn   sync.Mutex // held from the read of a batch until its frames are handed on
	batch  *batch     // guarded by turn
	mu     sync.Mutex // guards what follows
	fd     int
	closed bool
	to     unix.SockaddrLinklayer
	frame  []byte // scratch
}

// openWire makes the socket: filter first, and a protocol only by bind, so that
// no frame from another interface or of another protocol is ever in its queue.
func openWire() (*wire, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if err := attachFilter(fd, advertFilter); err != nil {
		unix.Close(fd)
		return nil, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1); err != nil {
		unix.Close(fd)
		return nil, err
	}
	// Room for the adverts of some tenths of a second; without CAP_NET_ADMIN as much
	// of it as net.core.rmem_max allows.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
	}
	// Saves running the filter on what is sent from here, which it drops anyway:
	// kernels before 4.20 do not know the option.
	_ = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)

	file := os.NewFile(uintptr(fd), "packet")
	raw, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil, err
	}
	return &wire{file: file, raw: raw, fd: fd, batch: newBatch(), frame: make([]byte, 0, 256)}, nil
}

// bind takes frames of the interface with that index from now on.
func (w *wire) bind(index int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return ErrClosed
	}
	return unix.Bind(w.fd, &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL), Ifindex: index})
}

// send sends one advert to a group, or fails at once.
func (w *wire) send(s *state, srcMAC carp.MAC, f carp.Frame, tos uint8) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return ErrClosed
	}
	w.frame = carp.AppendFrame(w.frame[:0], srcMAC, s.local, f, carp.IPHeader{TOS: tos})
	if len(w.frame) == 0 {
		return unix.EMSGSIZE
	}
	w.to.Ifindex, w.to.Protocol = s.index, networkOrder(unix.ETH_P_IP)
	if f.Dst.Is6() && !f.Dst.Is4In6() {
		w.to.Protocol = networkOrder(unix.ETH_P_IPV6)
	}
	w.to.Halen = uint8(copy(w.to.Addr[:6], w.frame))
	return unix.Sendto(w.fd, w.frame, unix.MSG_DONTWAIT, &w.to)
}

// dropped returns and resets the kernel's count of frames that found the socket
// full.
func (w *wire) dropped() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return 0
	}
	stats, err := unix.GetsockoptTpacketStats(w.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return 0
	}
	return uint64(stats.Drops)
}

// close ends a receive that waits. Twice is harmless.
func (w *wire) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.closed {
		w.closed = true
		w.file.Close()
	}
}

// receive gives each frame to handle, with the index of its interface and its
// arrival, until close. The frame is valid during the call.
//
// It stays within one Read of the poller, which ends by an error or by close: the
// poller remembers what arrives between the last frame and the wait, so that no
// call is spent on being told that nothing waits.
func (w *wire) receive(handle func(index int, frame []byte, at carp.Instant)) {
	read := func(fd uintptr) bool {
		for {
			w.turn.Lock()
			n, err := w.readBatch(int(fd), handle)
			w.turn.Unlock()
			if err != nil {
				return err != unix.EAGAIN // ENETDOWN, once each time that the interface goes down
			}
			if n < batchSize {
				return false
			}
		}
	}
	for w.raw.Read(read) == nil {
	}
}

// pollMost bounds the batches of one poll: more than the socket holds.
const pollMost = 64

// poll hands on what waits in the socket, unless receive is doing just that. It
// never waits.
func (w *wire) poll(handle func(index int, frame []byte, at carp.Instant)) {
	if !w.turn.TryLock() {
		return
	}
	defer w.turn.Unlock()
	_ = w.raw.Control(func(fd uintptr) { // it fails after close only
		for range pollMost {
			if n, err := w.readBatch(int(fd), handle); err != nil || n < batchSize {
				return
			}
		}
	})
}

// readBatch reads once and hands on what came. The caller holds turn.
func (w *wire) readBatch(fd int, handle func(index int, frame []byte, at carp.Instant)) (int, error) {
	n, err := w.batch.read(fd)
	if err != nil {
		return 0, err
	}
	now, wall := Now(), time.Now().UnixNano()
	for i := range n {
		frame, index, stamp := w.batch.frame(i)
		handle(index, frame, arrival(now, wall, stamp))
	}
	return n, nil
}

// networkOrder converts a protocol number for sockaddr_ll.
func networkOrder(protocol uint16) uint16 {
	return binary.NativeEndian.Uint16([]byte{byte(protocol >> 8), byte(protocol)})
}

// counters of an interface; any goroutine may count.
type counters struct {
	received, unknownVHID, badFrames, foreign, lost, kernelDropped atomic.Uint64
}

// delivery is one allocation for a packet and its payload.
type delivery struct {
	packet  carp.Packet
	payload [64]byte
}

// newPacket copies p and its payload, which is in the receive buffer.
func newPacket(p *carp.Packet) *carp.Packet {
	if len(p.Payload) > len(delivery{}.payload) {
		own := *p
		own.Payload = append([]byte(nil), p.Payload...)
		return &own
	}
	d := &delivery{packet: *p}
	n := copy(d.payload[:], p.Payload)
	d.packet.Payload = d.payload[:n:n]
	return &d.packet
}

// forUs reports whether a packet is addressed to this node: to a group, or to an
// address of the interface. A frame to our MAC may hold a packet that is to be
// forwarded.
func (s *state) forUs(dst netip.Addr) bool { return dst.IsMulticast() || s.has(dst) }
