package track

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/carp"
)

// Side is an interface as a probe needs it.
type Side struct {
	Index     int // 0: there is none
	Up        bool
	MAC       carp.MAC
	Addresses []netip.Addr // its own, without those that are shared
}

// The defaults of Config.
const (
	DefaultInterval = 200 * time.Millisecond
	DefaultFall     = 3
	DefaultRise     = 2
)

// Config says which host is asked, and how. Address and Side are required.
type Config struct {
	Address  netip.Addr    // of the host; without a zone
	Interval time.Duration // between rounds; 0: DefaultInterval
	Deadline time.Duration // for the answer, at most Interval; 0: Interval
	Fall     int           // misses in a row until it failed; 0: DefaultFall
	Rise     int           // answers in a row until it is good; 0: DefaultRise
	// Side returns the interface as it is now. It is called once a round, by the
	// goroutine of Run.
	Side func() Side
}

func (c Config) withDefaults() Config {
	or := func(n *int, value int) {
		if *n <= 0 {
			*n = value
		}
	}
	if c.Interval <= 0 {
		c.Interval = DefaultInterval
	}
	if c.Deadline <= 0 || c.Deadline > c.Interval {
		c.Deadline = c.Interval
	}
	or(&c.Fall, DefaultFall)
	or(&c.Rise, DefaultRise)
	return c
}

// Status is how a probe stands.
type Status struct {
	Address  netip.Addr
	Verdict  Verdict
	Since    time.Time     // of the verdict; zero while Unknown
	Answered time.Time     // the last answer; zero if there was none
	RTT      time.Duration // of that
	Rounds   uint64
	Missed   uint64
	Trouble  string // why nothing could be asked in the last round; empty if it was
}

// Gateway asks one host. Open makes one, Run runs it, Close ends it. Status may be
// called by any goroutine.
type Gateway struct {
	config Config
	file   *os.File
	raw    syscall.RawConn

	// Used by Run only.
	judge Judge
	bound int      // the index that the socket is bound to
	mac   carp.MAC // of the host, from its last answer
	frame []byte
	read  []byte

	mu     sync.Mutex
	status Status // guarded by mu
}

// errDown is why nothing is asked over an interface that is down.
var errDown = errors.New("the interface is down or absent")

// Open makes the socket. Without CAP_NET_RAW errors.Is(err, os.ErrPermission)
// holds.
func Open(config Config) (*Gateway, error) {
	config.Address = config.Address.Unmap().WithZone("")
	if !config.Address.IsValid() || config.Address.IsMulticast() || config.Address.IsUnspecified() || config.Side == nil {
		return nil, fmt.Errorf("track: open %v: not the address of a host", config.Address)
	}
	fd, err := openSocket()
	if err != nil {
		return nil, fmt.Errorf("track: open %v: %w (CAP_NET_RAW is needed, as for adverts)", config.Address, err)
	}
	g := &Gateway{config: config.withDefaults(), file: os.NewFile(uintptr(fd), "probe"), read: make([]byte, 256)}
	g.judge = Judge{Fall: g.config.Fall, Rise: g.config.Rise}
	g.status.Address = config.Address
	if g.raw, err = g.file.SyscallConn(); err != nil {
		return nil, errors.Join(fmt.Errorf("track: open %v: %w", config.Address, err), g.file.Close())
	}
	return g, nil
}

// openSocket makes the socket with its filter, and a protocol only by bind: no other
// frame is ever in its queue.
func openSocket() (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	code, err := bpf.Assemble(answerFilter())
	if err == nil {
		filter := make([]unix.SockFilter, len(code))
		for i, c := range code {
			filter[i] = unix.SockFilter{Code: c.Op, Jt: c.Jt, Jf: c.Jf, K: c.K}
		}
		err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// answerFilter passes ARP replies and neighbour advertisements to this host.
func answerFilter() []bpf.Instruction {
	return []bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtType},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.PACKET_HOST, SkipTrue: 9}, // drop
		bpf.LoadAbsolute{Off: 12, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: etherIPv6, SkipTrue: 3},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: etherARP, SkipTrue: 6}, // drop
		bpf.LoadAbsolute{Off: offARPOperator, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: arpReply, SkipTrue: 5, SkipFalse: 4}, // pass, drop
		bpf.LoadAbsolute{Off: offIPv6Next, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: nextICMP, SkipTrue: 2}, // drop
		bpf.LoadAbsolute{Off: offICMPv6Type, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: advertisement, SkipTrue: 1}, // pass
		bpf.RetConstant{Val: 0},
		bpf.RetConstant{Val: 256},
	}
}

// Run asks until ctx ends. report is called when the verdict changes, and must not
// block.
func (g *Gateway) Run(ctx context.Context, report func(Verdict)) {
	tick := time.NewTicker(g.config.Interval)
	defer tick.Stop()
	for {
		rtt, answered, err := g.ask()
		if before, now := g.judge.Verdict(), g.note(rtt, answered, err); now != before {
			report(now)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Status returns a copy of how the probe stands.
func (g *Gateway) Status() Status {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.status
}

// Close releases the socket. Calling it twice is harmless.
func (g *Gateway) Close() error {
	if err := g.file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("track: close %v: %w", g.config.Address, err)
	}
	return nil
}

// note takes a round down, and judges it unless the interface is down: that is not
// for a probe to say.
func (g *Gateway) note(rtt time.Duration, answered bool, err error) Verdict {
	before, verdict, now := g.judge.Verdict(), g.judge.Verdict(), time.Now()
	if !errors.Is(err, errDown) {
		verdict = g.judge.Round(answered)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	s := &g.status
	s.Rounds++
	s.Trouble = ""
	if err != nil {
		s.Trouble = err.Error()
	}
	if answered {
		s.Answered, s.RTT = now, rtt
	} else {
		s.Missed++
	}
	if verdict != before {
		s.Verdict, s.Since = verdict, now
	}
	return verdict
}

// ask sends one request and waits for the answer.
func (g *Gateway) ask() (rtt time.Duration, answered bool, err error) {
	side := g.config.Side()
	if !side.Up || side.Index == 0 {
		return 0, false, errDown
	}
	source := sourceFor(side.Addresses, g.config.Address)
	if !source.IsValid() && g.config.Address.Is6() {
		return 0, false, errors.New("the interface has no IPv6 address of its own to ask from")
	}
	if side.Index != g.bound {
		if err := g.bind(side.Index); err != nil {
			return 0, false, err
		}
	}
	g.receive(side.MAC) // answers that came too late are of an earlier round
	start := time.Now()
	if err := g.send(side, source); err != nil {
		return 0, false, fmt.Errorf("ask: %w", err)
	}
	answered, err = g.await(side.MAC, start.Add(g.config.Deadline))
	if !answered {
		g.mac = carp.MAC{} // another host may have the address by now
	}
	return time.Since(start), answered, err
}

func (g *Gateway) bind(index int) error {
	var err error
	to := unix.SockaddrLinklayer{Protocol: networkOrder(g.etherType()), Ifindex: index}
	if control := g.raw.Control(func(fd uintptr) { err = unix.Bind(int(fd), &to) }); control != nil {
		return control
	}
	if err != nil {
		g.bound = 0
		return fmt.Errorf("bind: %w", err)
	}
	g.bound = index
	return nil
}

func (g *Gateway) etherType() uint16 {
	if g.config.Address.Is4() {
		return etherARP
	}
	return etherIPv6
}

func (g *Gateway) send(side Side, source netip.Addr) error {
	g.frame = appendRequest(g.frame[:0], side.MAC, g.mac, source, g.config.Address)
	to := unix.SockaddrLinklayer{Ifindex: side.Index, Protocol: networkOrder(g.etherType()), Halen: 6}
	copy(to.Addr[:6], g.frame)
	var err error
	if control := g.raw.Control(func(fd uintptr) { err = unix.Sendto(int(fd), g.frame, unix.MSG_DONTWAIT, &to) }); control != nil {
		return control
	}
	return err
}

// await returns when an answer is there or the deadline is over. What waits in the
// socket then still counts, however late this goroutine is.
func (g *Gateway) await(mac carp.MAC, until time.Time) (answered bool, err error) {
	if err := g.file.SetReadDeadline(until); err != nil {
		return false, err
	}
	err = g.raw.Read(func(fd uintptr) bool {
		answered = g.drain(int(fd), mac)
		return answered
	})
	if !answered {
		answered = g.receive(mac)
	}
	if answered || errors.Is(err, os.ErrDeadlineExceeded) {
		err = nil
	}
	return answered, err
}

// receive looks at what waits in the socket.
func (g *Gateway) receive(mac carp.MAC) (answered bool) {
	_ = g.raw.Control(func(fd uintptr) { answered = g.drain(int(fd), mac) }) // it fails after Close only
	return answered
}

// maxDrain bounds the frames that one look takes: more than a host sends to answer.
const maxDrain = 256

func (g *Gateway) drain(fd int, mac carp.MAC) (answered bool) {
	for range maxDrain {
		n, _, err := unix.Recvfrom(fd, g.read, unix.MSG_DONTWAIT)
		if err == unix.ENETDOWN {
			continue // once each time that the interface goes down
		}
		if err != nil {
			break
		}
		if from, ok := answers(g.read[:n], mac, g.config.Address); ok {
			g.mac, answered = from, true
		}
	}
	return answered
}

// sourceFor picks the own address that has most in common with target: a host may
// answer only who is in its subnet. The zero Addr if there is none of the family.
func sourceFor(own []netip.Addr, target netip.Addr) (best netip.Addr) {
	most := -1
	for _, a := range own {
		if a.Is4() != target.Is4() || target.Is6() && a.IsLinkLocalUnicast() != target.IsLinkLocalUnicast() && best.IsValid() {
			continue
		}
		x, y, n := a.As16(), target.As16(), 0
		for i := range x {
			d := bits.LeadingZeros8(x[i] ^ y[i])
			if n += d; d < 8 {
				break
			}
		}
		if n > most {
			most, best = n, a
		}
	}
	return best
}

// networkOrder converts a protocol number for sockaddr_ll.
func networkOrder(protocol uint16) uint16 {
	return binary.NativeEndian.Uint16([]byte{byte(protocol >> 8), byte(protocol)})
}
