package bench

import (
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/test/lab"
)

// holding is a change: a node has the address from now on, or has it no more.
type holding struct {
	at   int64 // nanoseconds since 1970
	node int
	has  bool
}

// holders notes by netlink which node has one address configured. It is safe for
// concurrent use.
type holders struct {
	addr netip.Addr

	mu      sync.Mutex
	now     [nodes]bool
	changes []holding
}

func newHolders(addr netip.Addr) *holders { return &holders{addr: addr} }

// follow listens to a host's kernel until the test ends.
func (w *holders) follow(t lab.TB, n int, h *lab.Host) {
	t.Helper()
	fd := -1
	err := h.DoErr(func() (err error) {
		if fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_IPV4_IFADDR})
	})
	if err == nil { // how late the end may be noticed
		err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000})
	}
	if err != nil {
		t.Fatalf("bench: watch the addresses of %s: %v", h.Name, err)
	}
	stop := make(chan struct{})
	var ended sync.WaitGroup
	ended.Go(func() { w.listen(n, fd, stop) })
	t.Cleanup(func() {
		close(stop)
		ended.Wait()
		_ = unix.Close(fd)
	})
}

func (w *holders) listen(n, fd int, stop <-chan struct{}) {
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	// Before all others, where that is allowed, so that the stamps are good. It
	// sleeps but for a few messages a run.
	_ = unix.SchedSetAttr(0, &unix.SchedAttr{
		Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1, Flags: unix.SCHED_FLAG_RESET_ON_FORK,
	}, 0)
	buf := make([]byte, 64<<10)
	for {
		size, _, err := unix.Recvfrom(fd, buf, 0)
		at := stamp()
		select {
		case <-stop:
			return
		default:
		}
		if err != nil {
			continue // nothing came, or it was interrupted
		}
		messages, err := syscall.ParseNetlinkMessage(buf[:size])
		if err != nil {
			continue
		}
		for i := range messages {
			if addr, has, ok := addressOf(&messages[i]); ok && addr == w.addr {
				w.put(holding{at, n, has})
			}
		}
	}
}

// addressOf reads a message about an address.
func addressOf(m *syscall.NetlinkMessage) (addr netip.Addr, has, ok bool) {
	if m.Header.Type != unix.RTM_NEWADDR && m.Header.Type != unix.RTM_DELADDR {
		return addr, false, false
	}
	attrs, err := syscall.ParseNetlinkRouteAttr(m)
	if err != nil {
		return addr, false, false
	}
	for _, a := range attrs {
		if a.Attr.Type == unix.IFA_LOCAL {
			addr, ok = netip.AddrFromSlice(a.Value)
		}
	}
	return addr, m.Header.Type == unix.RTM_NEWADDR, ok
}

// put takes a change; a renewal is none.
func (w *holders) put(c holding) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.now[c.node] != c.has {
		w.now[c.node] = c.has
		w.changes = append(w.changes, c)
	}
}

// take returns the changes since the last call.
func (w *holders) take() []holding {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := w.changes
	w.changes = nil
	return all
}

// together adds up for how long both nodes had the address between two stamps, and
// says whether they still did at the end. Node 0 counts no more from gone on.
func together(changes []holding, from, to, gone int64) (sum time.Duration, still bool) {
	changes = append(changes[:len(changes):len(changes)], holding{at: to, node: 1})
	var has [nodes]bool
	at := from
	for _, c := range changes {
		end := min(c.at, to)
		if has[0] && has[1] {
			sum += time.Duration(max(min(end, gone)-at, 0))
			still = end == to && gone >= to
		}
		has[c.node], at = c.has, max(end, from)
	}
	return sum, still
}

// askEvery is how often the observer asks who has the address.
const askEvery = 20 * time.Millisecond

// asker asks by ARP.
type asker struct {
	fd int
	to unix.SockaddrLinklayer
}

func newAsker(t lab.TB, h *lab.Host) *asker {
	t.Helper()
	a := &asker{fd: -1}
	err := h.DoErr(func() (err error) {
		if a.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		link, err := index(a.fd, "eth0")
		a.to = unix.SockaddrLinklayer{Protocol: unix.ETH_P_ARP&0xff<<8 | unix.ETH_P_ARP>>8, Ifindex: link, Halen: 6, Addr: [8]byte{255, 255, 255, 255, 255, 255}}
		return err
	})
	if err != nil {
		t.Fatalf("bench: open a socket for ARP on %s: %v", h.Name, err)
	}
	t.Cleanup(func() { _ = unix.Close(a.fd) })
	return a
}

// index is the number of an interface.
func index(fd int, name string) (int, error) {
	req, err := unix.NewIfreq(name)
	if err == nil {
		err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, req)
	}
	if err != nil {
		return 0, fmt.Errorf("find %s: %w", name, err)
	}
	return int(req.Uint32()), nil
}

// ask asks from now on; the function that it returns ends that.
func (a *asker) ask(addr netip.Addr) (end func()) {
	stop := make(chan struct{})
	var ended sync.WaitGroup
	packet := append([]byte{0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, nodes + 2, 10, 9, 0, 201, 0, 0, 0, 0, 0, 0}, addr.AsSlice()...)
	ended.Go(func() {
		tick := time.NewTicker(askEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				_ = unix.Sendto(a.fd, packet, unix.MSG_DONTWAIT, &a.to) // no answer will come
			case <-stop:
				return
			}
		}
	})
	return sync.OnceFunc(func() { close(stop); ended.Wait() })
}

// bothAnswered adds up for how long both nodes answered for an address: questions
// that got an answer of each, times what is between questions.
func bothAnswered(sounds []sound, addr netip.Addr, from int64) (sum time.Duration) {
	var last [nodes]int64
	for _, s := range sounds {
		if s.kind != answer || s.from != addr.As4() || s.at < from {
			continue
		}
		for n := range nodes {
			if s.mac != nodeMAC(n) {
				continue
			}
			last[n] = s.at
			if other := last[1-n]; other != 0 && s.at-other < int64(askEvery/2) {
				sum += askEvery
				last = [nodes]int64{}
			}
		}
	}
	return sum
}
