package bench

import (
	"net/netip"
	"sync"
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
func (w *holders) follow(n int, h *lab.Host) {
	h.WatchAddrs(func(c lab.AddrChange) {
		if c.Addr == w.addr {
			w.put(holding{c.At.UnixNano(), n, c.On})
		}
	})
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
		link, err := lab.LinkIndex("eth0")
		a.to = unix.SockaddrLinklayer{Protocol: unix.ETH_P_ARP&0xff<<8 | unix.ETH_P_ARP>>8, Ifindex: link, Halen: 6, Addr: [8]byte{255, 255, 255, 255, 255, 255}}
		return err
	})
	if err != nil {
		t.Fatalf("bench: open a socket for ARP on %s: %v", h.Name, err)
	}
	t.Cleanup(func() { _ = unix.Close(a.fd) })
	return a
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
