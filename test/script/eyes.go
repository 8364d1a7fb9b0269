package script

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/test/lab"
)

// watch follows one address in the kernels of all nodes. It is safe for concurrent
// use.
type watch struct {
	addr netip.Addr

	mu       sync.Mutex
	on       map[string]bool
	notes    []note // that were not taken yet
	together time.Time
	overlap  time.Duration
}

// note is one change: the address came or went.
type note struct {
	at   time.Time
	host string
	on   bool
}

func newWatch(addr netip.Addr) *watch { return &watch{addr: addr, on: map[string]bool{}} }

// follow listens to a host's kernel until the test ends.
func (w *watch) follow(h *lab.Host) {
	h.WatchAddrs(func(c lab.AddrChange) {
		if c.Addr == w.addr {
			w.put(note{c.At.Round(0), c.Host, c.On})
		}
	})
}

// put takes a note, unless it says nothing new: each renewal is one.
func (w *watch) put(n note) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.on[n.host] == n.on {
		return
	}
	if w.on[n.host] = n.on; !n.on {
		delete(w.on, n.host)
	}
	w.notes = append(w.notes, n)
	switch {
	case len(w.on) > 1 && w.together.IsZero():
		w.together = n.at
	case len(w.on) < 2 && !w.together.IsZero():
		w.overlap = max(w.overlap, n.at.Sub(w.together))
		w.together = time.Time{}
	}
}

// halt is the end of a machine: its kernel answers nobody.
func (w *watch) halt(h *lab.Host) { w.put(note{time.Now().Round(0), h.Name, false}) }

func (w *watch) take() []note {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := w.notes
	w.notes = nil
	return all
}

// stampLate is how much later than it happened a change may be stamped on a busy
// machine: the stamp is made when a thread of ours reads the kernel's note.
const stampLate = 20 * time.Millisecond

// Overlap implements Backend. What may be the lateness of a stamp is taken off.
func (k *onKernel) Overlap() time.Duration {
	w := k.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	longest := w.overlap
	if !w.together.IsZero() {
		longest = max(longest, time.Since(w.together))
	}
	return max(longest-stampLate, 0)
}

// Holders implements Backend.
func (k *onKernel) Holders() ([]string, error) {
	k.watch.mu.Lock()
	defer k.watch.mu.Unlock()
	var all []string
	for _, n := range k.f.Nodes {
		if k.watch.on[n.Name] {
			all = append(all, n.Name)
		}
	}
	return all, nil
}

// Outage implements Backend. It is the longest time without an answer; what a
// probe takes anyway is taken off.
func (k *onKernel) Outage(client string) (time.Duration, error) {
	gap, _ := k.clients[client].probe.Longest(k.clients[client].mark)
	return max(gap-probeEvery, 0), nil
}

// Mark implements Backend.
func (k *onKernel) Mark(client string) { k.clients[client].mark = time.Now() }

// lately is how old the last answer to a client may be.
const lately = 20 * probeEvery

// answering names the machine that answered the client last, and lately.
func (k *onKernel) answering(shared netip.Addr, client string) string {
	frames := k.wire.Packets()
	mac := k.hardware(client)
	for _, f := range slices.Backward(frames) {
		if time.Since(f.Time) > lately {
			break
		}
		if isEchoReply(f.Data, shared) && slices.Equal(f.Data[:6], mac[:]) {
			return f.Host
		}
	}
	return "nobody"
}

// hardware is the MAC of a client: the lab numbers hosts in the order of making.
func (k *onKernel) hardware(client string) carp.MAC {
	before := len(k.f.Nodes)
	if k.forger != nil {
		before++
	}
	return place(before + slices.Index(k.f.Clients, client)).MAC
}

// isEchoReply reports whether a frame holds an ICMP echo reply from an address.
func isEchoReply(frame []byte, from netip.Addr) bool {
	const ethernet = 14
	if len(frame) < ethernet+28 {
		return false
	}
	ip := frame[ethernet:]
	switch binary.BigEndian.Uint16(frame[12:]) {
	case unix.ETH_P_IP:
		head := int(ip[0]&15) * 4
		return ip[9] == unix.IPPROTO_ICMP && netip.AddrFrom4([4]byte(ip[12:])) == from && len(ip) > head && ip[head] == 0
	case unix.ETH_P_IPV6:
		return len(ip) > 40 && ip[6] == unix.IPPROTO_ICMPV6 && netip.AddrFrom16([16]byte(ip[8:])) == from && ip[40] == 129
	}
	return false
}

// sources lists the MACs that a node's adverts came from.
func (k *onKernel) sources(node string) string {
	var found []string
	advert := lab.IPProtocol(carp.IPProtocol)
	for _, f := range k.wire.Packets() {
		if f.Host != node || !advert(f) {
			continue
		}
		mac := fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", f.Data[6], f.Data[7], f.Data[8], f.Data[9], f.Data[10], f.Data[11])
		if !slices.Contains(found, mac) {
			found = append(found, mac)
		}
	}
	slices.Sort(found)
	if len(found) == 0 {
		return node + " sent nothing"
	}
	return node + " " + strings.Join(found, " ")
}
