package lab

import (
	"encoding/binary"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A prober sends at most maxProbes probes: ten minutes' worth at probeInterval.
const (
	probeInterval = time.Millisecond
	maxProbes     = 600_000
)

// Prober is a client that asks an address again and again, by ICMP echo, UDP or TCP,
// through its host's ordinary ARP or neighbour cache, and remembers when answers came.
type Prober struct {
	host  *Host
	dst   netip.Addr
	port  uint16 // UDP
	every time.Duration
	file  *os.File
	ask   func(seq uint16) []byte
	heard func(packet []byte) bool
	stop  chan struct{}
	once  sync.Once
	ended sync.WaitGroup

	mu      sync.Mutex
	sent    int
	answers []time.Time // when each answer came, ascending
}

// Probe starts to ask dst each millisecond, for ten minutes at most. It stops
// with the test.
func (h *Host) Probe(dst netip.Addr) *Prober {
	h.lan.t.Helper()
	return h.ProbeEvery(dst, probeInterval)
}

// ProbeEvery is Probe at another interval: a long test, or many at once, need
// not load the machine and fill the capture with a thousand probes a second.
func (h *Host) ProbeEvery(dst netip.Addr, interval time.Duration) *Prober {
	h.lan.t.Helper()
	proto := unix.IPPROTO_ICMP
	if dst.Is6() {
		proto = unix.IPPROTO_ICMPV6
	}
	fd := h.rawSocket(dst, unix.SOCK_RAW, proto)
	p, id := &Prober{host: h, dst: dst, every: interval}, uint16(fd)
	p.ask = func(seq uint16) []byte { return echoRequest(dst, id, seq) }
	p.heard = func(b []byte) bool { return answers(dst, id, b) }
	return p.begin(fd)
}

// rawSocket opens a socket on the host for a prober.
func (h *Host) rawSocket(dst netip.Addr, kind, proto int) (fd int) {
	h.lan.t.Helper()
	family := unix.AF_INET
	if dst.Is6() {
		family = unix.AF_INET6
	}
	err := h.ns.do(func() (err error) {
		fd, err = unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
		return err
	})
	if err != nil {
		h.lan.t.Fatalf("lab: host %s: open a socket for probes: %v", h.Name, err)
	}
	enlarge(fd)
	return fd
}

// enlarge makes room for what comes while a busy machine leaves the reader waiting: a
// lost answer would look like an outage. Where that is not allowed the default must do.
func enlarge(fd int) {
	const room = 8 << 20
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, room) != nil { // in a user namespace
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, room)
	}
}

// begin starts to ask; the prober owns fd.
func (p *Prober) begin(fd int) *Prober {
	p.file, p.stop = os.NewFile(uintptr(fd), "probe"), make(chan struct{})
	p.ended.Add(2)
	go p.send()
	go p.receive()
	p.host.lan.t.Cleanup(p.Stop)
	return p
}

// send runs on a locked thread: Go's timers are up to a millisecond late.
func (p *Prober) send() {
	defer p.ended.Done()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	conn, err := p.file.SyscallConn()
	if err != nil {
		return
	}
	to := sockaddr(p.dst, p.port)
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // cannot fail
	for seq := range maxProbes {
		select {
		case <-p.stop:
			return
		default:
		}
		msg := p.ask(uint16(seq))
		// A failure is an outage: the missing answer tells of it.
		if conn.Control(func(fd uintptr) { _ = unix.Sendto(int(fd), msg, unix.MSG_DONTWAIT, to) }) != nil {
			return
		}
		p.mu.Lock()
		p.sent++
		p.mu.Unlock()
		now = unix.NsecToTimespec(now.Nano() + int64(p.every))
		for unix.ClockNanosleep(unix.CLOCK_MONOTONIC, unix.TIMER_ABSTIME, &now, nil) == unix.EINTR {
		}
	}
}

func (p *Prober) receive() {
	defer p.ended.Done()
	buf := make([]byte, 2048)
	for {
		n, err := p.file.Read(buf)
		at := time.Now()
		if err != nil {
			select {
			case <-p.stop:
				return
			default:
				continue // an ICMP error was queued on the socket
			}
		}
		if p.heard(buf[:n]) {
			p.mu.Lock()
			p.answers = append(p.answers, at)
			p.mu.Unlock()
		}
	}
}

func sockaddr(a netip.Addr, port uint16) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Addr: a.As4(), Port: int(port)}
	}
	return &unix.SockaddrInet6{Addr: a.As16(), Port: int(port)}
}

// echoRequest builds an ICMP echo request; the kernel adds ICMPv6's checksum.
func echoRequest(dst netip.Addr, id, seq uint16) []byte {
	msg := make([]byte, 16)
	msg[0] = 8
	if dst.Is6() {
		msg[0] = 128
	}
	binary.BigEndian.PutUint16(msg[4:], id)
	binary.BigEndian.PutUint16(msg[6:], seq)
	if dst.Is4() {
		binary.BigEndian.PutUint16(msg[2:], checksum(msg))
	}
	return msg
}

// answers reports whether a raw ICMP message is an echo reply from dst to us.
func answers(dst netip.Addr, id uint16, b []byte) bool {
	want := byte(129)
	if dst.Is4() {
		want = 0
		if len(b) < 20 || netip.AddrFrom4([4]byte(b[12:])) != dst || len(b) < int(b[0]&15)*4 {
			return false
		}
		b = b[int(b[0]&15)*4:]
	}
	return len(b) >= 8 && b[0] == want && binary.BigEndian.Uint16(b[4:]) == id
}

// checksum is the Internet checksum (RFC 1071) of an even number of bytes.
func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// Stop ends the probing; what was measured stays. Calling it twice is harmless.
func (p *Prober) Stop() {
	p.once.Do(func() {
		close(p.stop)
		_ = p.file.Close()
		p.ended.Wait()
	})
}

// Counts returns how many probes were sent and how many were answered.
func (p *Prober) Counts() (sent, answered int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sent, len(p.answers)
}

// Last returns when the last answer so far came; zero if there was none.
func (p *Prober) Last() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.answers) == 0 {
		return time.Time{}
	}
	return p.answers[len(p.answers)-1]
}

// Mark returns the present instant, to be given to Longest.
func (p *Prober) Mark() time.Time { return time.Now() }

// Answering reports whether an answer came after mark.
func (p *Prober) Answering(mark time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.answers) > 0 && p.answers[len(p.answers)-1].After(mark)
}

// Longest returns the longest time without an answer from mark until now, and
// when it began. It is little more than the interval when all is well.
func (p *Prober) Longest(mark time.Time) (outage time.Duration, began time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return longest(p.answers, mark, time.Now())
}

// longest returns the longest gap between answers within [from, to], both of
// which end a gap as an answer does.
func longest(answers []time.Time, from, to time.Time) (time.Duration, time.Time) {
	last, gap, began := from, time.Duration(0), from
	widen := func(at time.Time) {
		if d := at.Sub(last); d > gap {
			gap, began = d, last
		}
		last = at
	}
	for _, at := range answers {
		if at.After(from) && !at.After(to) {
			widen(at)
		}
	}
	widen(to)
	return gap, began
}
