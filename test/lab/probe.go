package lab

import (
	"encoding/binary"
	"fmt"
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

// Prober is a client that asks an address again and again by ICMP echo, through
// its host's ordinary ARP or neighbour cache, and remembers when answers came.
type Prober struct {
	host  *Host
	dst   netip.Addr
	every time.Duration
	file  *os.File
	id    uint16
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
	p := &Prober{host: h, dst: dst, every: interval, stop: make(chan struct{})}
	err := h.ns.do(func() error {
		family, proto := unix.AF_INET, unix.IPPROTO_ICMP
		if dst.Is6() {
			family, proto = unix.AF_INET6, unix.IPPROTO_ICMPV6
		}
		fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
		if err != nil {
			return fmt.Errorf("lab: host %s: open ICMP socket: %w", h.Name, err)
		}
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1<<20) // the default will do
		p.file, p.id = os.NewFile(uintptr(fd), "icmp"), uint16(fd)
		return nil
	})
	if err != nil {
		h.lan.t.Fatal(err)
	}
	p.ended.Add(2)
	go p.send()
	go p.receive()
	h.lan.t.Cleanup(p.Stop)
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
	to := sockaddr(p.dst)
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // cannot fail
	for seq := range maxProbes {
		select {
		case <-p.stop:
			return
		default:
		}
		msg := echoRequest(p.dst, p.id, uint16(seq))
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
		if answers(p.dst, p.id, buf[:n]) {
			p.mu.Lock()
			p.answers = append(p.answers, at)
			p.mu.Unlock()
		}
	}
}

func sockaddr(a netip.Addr) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Addr: a.As4()}
	}
	return &unix.SockaddrInet6{Addr: a.As16()}
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
