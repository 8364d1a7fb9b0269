package vip

import (
	"errors"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	claimSlot   = 100 * time.Millisecond
	claimBudget = ClaimRate / 2 * int(claimSlot) / int(time.Second) // of a socket in a slot
	claimBuffer = 64 << 10                                          // bytes that wait, with what the kernel adds
	claimBytes  = 128                                               // of a frame: a neighbour advertisement with its option has 86

	// claimLinks is how many interfaces the filter tells apart; with more it lets
	// those of all pass. A jump in it goes 255 instructions far at most.
	claimLinks = 64
)

// neighbours hears what others say about addresses: a packet socket for ARP and one
// for IPv6, each of one protocol only, so that other traffic never comes to it, nor
// what this host sends. Both are of all interfaces, as a socket can be opened in the
// namespace of the kernel only while that is opened; their filter picks the interfaces.
type neighbours struct {
	mu       sync.Mutex // guards what follows
	sockets  []*claimSocket
	err      error // why there are none
	bound    bool
	watchers map[*claimWatcher]struct{}
	hearing  sync.WaitGroup
	done     chan struct{}
}

type claimSocket struct {
	file     *os.File
	fd       int // of file, for what is set while nobody reads
	protocol uint16
	skipped  uint64 // used by its reader alone
}

type claimWatcher struct {
	index int
	mu    sync.Mutex // held while f runs, so that stop can promise that it is over
	f     func(Claim)
}

func (n *neighbours) open() error {
	n.watchers, n.done = make(map[*claimWatcher]struct{}), make(chan struct{})
	for _, protocol := range []uint16{unix.ETH_P_ARP, unix.ETH_P_IPV6} {
		s, err := openClaims(protocol)
		if err != nil {
			n.err = err
			return err
		}
		n.sockets = append(n.sockets, s)
	}
	return nil
}

// openClaims opens a socket that hears nothing yet: it has no protocol.
func openClaims(protocol uint16) (*claimSocket, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, claimBuffer/2); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &claimSocket{os.NewFile(uintptr(fd), "neighbours"), fd, protocol, 0}, nil
}

func (n *neighbours) close() {
	n.mu.Lock()
	if n.done != nil && n.err != os.ErrClosed {
		close(n.done)
	}
	n.err = os.ErrClosed
	sockets := n.sockets
	n.sockets = nil
	n.mu.Unlock()
	for _, s := range sockets {
		s.file.Close() // waits for the reader, which may want the lock
	}
	n.hearing.Wait()
}

// WatchNeighbours implements Kernel.
func (k *kernel) WatchNeighbours(index int, f func(Claim)) (stop func(), err error) {
	info, err := k.linkOf(index, "")
	if errors.Is(err, unix.ENODEV) || index <= 0 {
		err = ErrNoLink
	}
	if err != nil {
		return nil, &OpError{Op: "watch neighbours", Link: info.Name, Err: err}
	}
	n, w := &k.neighbours, &claimWatcher{index: index, f: f}
	if err := n.add(w); err != nil {
		return nil, &OpError{Op: "watch neighbours", Link: info.Name, Err: err}
	}
	return func() {
		n.remove(w)
		w.mu.Lock() // a call under way ends first, and none follows
		w.f = nil
		w.mu.Unlock()
	}, nil
}

func (n *neighbours) add(w *claimWatcher) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.err != nil {
		return n.err
	}
	n.watchers[w] = struct{}{}
	err := n.filter()
	if err == nil && !n.bound {
		err = n.bind()
	}
	if err != nil {
		delete(n.watchers, w)
	}
	return err
}

func (n *neighbours) remove(w *claimWatcher) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.watchers, w)
	_ = n.filter() // one that lets too much pass does no harm
}

// bind begins to hear, for good: what nobody watches the filter drops. n.mu is held.
func (n *neighbours) bind() error {
	for _, s := range n.sockets {
		if err := unix.Bind(s.fd, &unix.SockaddrLinklayer{Protocol: s.protocol<<8 | s.protocol>>8}); err != nil {
			return err
		}
	}
	n.bound = true
	for _, s := range n.sockets {
		n.hearing.Go(func() { n.hear(s) })
	}
	return nil
}

// filter tells the kernel what to keep. n.mu is held.
func (n *neighbours) filter() error {
	links := make(map[int]bool)
	for w := range n.watchers {
		links[w.index] = true
	}
	for _, s := range n.sockets {
		code := claimFilter(s.protocol, slices.Sorted(maps.Keys(links)))
		err := unix.SetsockoptSockFprog(s.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]})
		if err != nil {
			return err
		}
	}
	return nil
}

// claimFilter returns the program that keeps ARP of Ethernet and IPv4, or neighbour
// advertisements, on these interfaces.
func claimFilter(protocol uint16, links []int) []unix.SockFilter {
	const none, linkIndex = 0, 0xfffff000 + 8 // SKF_AD_OFF + SKF_AD_IFINDEX
	load := func(size uint16, at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | size | unix.BPF_ABS, K: at}
	}
	drop := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: none}
	var code []unix.SockFilter
	is := func(size uint16, at, want uint32) {
		code = append(code, load(size, at), unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: want, Jt: 1}, drop)
	}
	if protocol == unix.ETH_P_ARP {
		is(unix.BPF_W, 14, 0x00010800)
		is(unix.BPF_H, 18, 0x0604)
	} else {
		is(unix.BPF_B, 20, unix.IPPROTO_ICMPV6)
		is(unix.BPF_B, 54, 136)
	}
	if len(links) == 0 {
		return []unix.SockFilter{drop}
	}
	if len(links) <= claimLinks {
		code = append(code, load(unix.BPF_W, linkIndex))
		for i, index := range links {
			code = append(code, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(index), Jt: uint8(len(links) - i)})
		}
		code = append(code, drop)
	}
	return append(code, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: claimBytes})
}

// hear reads a socket until it is closed, so many frames in a slot of time. What
// comes faster finds the buffer full, and the kernel counts it.
func (n *neighbours) hear(s *claimSocket) {
	raw, err := s.file.SyscallConn()
	if err != nil {
		return // closed already
	}
	frame := make([]byte, claimBytes)
	slot, left := time.Now(), claimBudget
	_ = raw.Read(func(fd uintptr) bool {
		for {
			if now := time.Now(); now.Sub(slot) >= claimSlot {
				slot, left = now, claimBudget
			} else if left == 0 {
				if !n.rest(claimSlot - now.Sub(slot)) {
					return true
				}
				s.countSkipped(int(fd))
				continue
			}
			size, from, err := unix.Recvfrom(int(fd), frame, 0)
			switch {
			case err == unix.EAGAIN:
				return false // waits for more
			case err == unix.EBADF:
				return true
			case err != nil: // an interface went down, or a signal: once each
				left--
				continue
			}
			left--
			if to, ok := from.(*unix.SockaddrLinklayer); ok {
				n.tell(s, to.Ifindex, frame[:size])
			}
		}
	})
}

// rest waits for the next slot, and reports false if the kernel is closed first.
func (n *neighbours) rest(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-n.done:
		return false
	}
}

// countSkipped adds what found the buffer full since the last time.
func (s *claimSocket) countSkipped(fd int) {
	if stats, err := unix.GetsockoptTpacketStats(fd, unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
		s.skipped += uint64(stats.Drops)
	}
}

func (n *neighbours) tell(s *claimSocket, index int, frame []byte) {
	c, ok := ParseClaim(frame)
	if !ok {
		return
	}
	n.mu.Lock()
	var all []*claimWatcher
	for w := range n.watchers {
		if w.index == index {
			all = append(all, w)
		}
	}
	n.mu.Unlock()
	if len(all) == 0 {
		return
	}
	c.Skipped, s.skipped = s.skipped, 0
	for _, w := range all {
		w.mu.Lock()
		if w.f != nil {
			w.f(c)
		}
		w.mu.Unlock()
	}
}
