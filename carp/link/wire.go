package link

import (
	"encoding/binary"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/carp"
)

// receiveBuffer is the socket's, in bytes; the kernel counts more than 700 for a
// packet and doubles what it is asked for.
const receiveBuffer = 1 << 20

// wire is the AF_PACKET socket of an interface. What is read from it is read by one
// goroutine at a time; send may be called by any.
type wire struct {
	file *os.File // owns the descriptor
	raw  syscall.RawConn
	fd   int

	filter []bpf.RawInstruction // the last that pass set

	turn  sync.Mutex // held from the read of a batch until its frames are handed on
	shut  bool       // guarded by turn: nothing is read any more
	batch *batch     // guarded by turn
	// handle gets each frame, with the index of its interface and its arrival. The
	// frame is valid during the call. It is called under turn.
	handle func(index int, frame []byte, at carp.Instant)
	full   func() // told of each batch that was full; called under turn

	mu     sync.Mutex // guards what follows
	closed bool
	to     unix.SockaddrLinklayer
	frame  []byte // scratch
}

// openWire makes the socket: filter first, and a protocol only by bind, so that
// no frame from another interface or of another protocol is ever in its queue. The
// runtime's poller looks after it only if polled is set.
func openWire(polled bool) (*wire, error) {
	kind := unix.SOCK_RAW | unix.SOCK_CLOEXEC
	if polled {
		kind |= unix.SOCK_NONBLOCK
	}
	fd, err := unix.Socket(unix.AF_PACKET, kind, 0)
	if err != nil {
		return nil, err
	}
	if err := attachFilter(fd, dropAll()); err != nil {
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

// bind takes frames of the interface with that index from now on. It and pass are
// called under Interface.mu, before close, and keep no send waiting.
func (w *wire) bind(index int) error {
	return unix.Bind(w.fd, &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL), Ifindex: index})
}

// pass takes only what a program passes from now on.
func (w *wire) pass(program []bpf.RawInstruction) error {
	if slices.Equal(program, w.filter) {
		return nil
	}
	if err := attachFilter(w.fd, program); err != nil {
		return err
	}
	w.filter = program
	return nil
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

// close ends a receive that waits. Nothing is handed on after it. Twice is harmless.
func (w *wire) close() {
	w.turn.Lock()
	w.shut = true
	w.turn.Unlock() // receive may be about to take its turn, and Close waits for it
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.closed {
		w.closed = true
		w.file.Close()
	}
}

// receive hands on each frame until close, waiting in the runtime's poller.
//
// It stays within one Read of the poller, which ends by an error or by close: the
// poller remembers what arrives between the last frame and the wait, so that no
// call is spent on being told that nothing waits.
func (w *wire) receive() {
	read := func(uintptr) bool {
		for {
			w.turn.Lock()
			n, err := w.readBatch()
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

// take hands on what waits in the socket, up to a number of batches, unless another
// goroutine is doing just that. It never waits. It returns how many frames that
// were, and whether more may be there.
func (w *wire) take(batches int) (got int, more bool, err error) {
	if !w.turn.TryLock() {
		return 0, false, nil
	}
	defer w.turn.Unlock()
	for range batches {
		n, err := w.readBatch()
		got += n
		switch {
		case err == unix.EAGAIN:
			return got, false, nil
		case err != nil || n < batchSize:
			return got, false, err
		}
	}
	return got, true, nil
}

// readBatch reads once and hands on what came. The caller holds turn.
func (w *wire) readBatch() (int, error) {
	if w.shut {
		return 0, unix.EAGAIN
	}
	n, err := w.batch.read(w.fd)
	if err != nil {
		return 0, err
	}
	now, wall := Now(), time.Now().UnixNano()
	for i := range n {
		frame, index, stamp := w.batch.frame(i)
		w.handle(index, frame, arrival(now, wall, stamp))
	}
	if n == batchSize {
		w.full()
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
