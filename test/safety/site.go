package safety

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/carpd/carpd/test/lab"
)

// nodes is how many there are at most; node 0 is the best. A node's number plus one
// is in its name, address and MAC.
const nodes = 3

// The hosts of a site are made in this order, which gives their MACs.
const (
	clientHost = nodes + iota + 1
	_          // the observer
	attackerHost
)

// The group that all share.
const (
	groupID       = 1
	passphrase    = "safety"
	manyAddresses = 1000
	asked         = 8 // of many addresses
)

func nodeAddr(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 9, 0, byte(1 + n)}) }

// nodeOf is the node of an own address.
func nodeOf(addr [4]byte) (n int, ok bool) {
	n = int(addr[3]) - 1
	return n, addr[0] == 10 && addr[1] == 9 && addr[2] == 0 && n >= 0 && n < nodes
}

// hostMAC is the MAC of the nth host, from 1 on: the lab numbers them.
func hostMAC(n int) [6]byte { return [6]byte{2, 0, 0, 0, 0, byte(n)} }

func nodeOfMAC(mac [6]byte) (n int, ok bool) {
	for n = range nodes {
		if mac == hostMAC(1+n) {
			return n, true
		}
	}
	return 0, false
}

func clientAddr() netip.Addr { return netip.AddrFrom4([4]byte{10, 9, 0, 200}) }

func observerAddr() netip.Addr { return netip.AddrFrom4([4]byte{10, 9, 0, 201}) }

// askerMAC is the observer's MAC in questions of a number.
func askerMAC(number int) [6]byte { return [6]byte{2, 0x5a, 0, 0, 0, byte(number)} }

func numberOf(mac [6]byte) (number int, ok bool) {
	return int(mac[5]), mac == askerMAC(int(mac[5])) && mac[5] < numbers
}

// shared returns the first n addresses that the nodes share.
func shared(n int) []netip.Addr {
	all := []netip.Addr{netip.AddrFrom4([4]byte{10, 9, 16, 1})}
	for len(all) < n {
		all = append(all, all[len(all)-1].Next())
	}
	return all
}

// some returns those of the shared addresses that are asked for: the first, the last,
// and others evenly in between.
func some(addrs []netip.Addr) []netip.Addr {
	if len(addrs) <= asked {
		return addrs
	}
	var chosen []netip.Addr
	for i := range asked {
		chosen = append(chosen, addrs[i*(len(addrs)-1)/(asked-1)])
	}
	return chosen
}

// site is the LAN of one run.
type site struct {
	t        lab.TB
	ctx      context.Context
	lan      *lab.LAN
	hosts    []*lab.Host // the nodes that take part
	second   []*lab.Host // the same on the second LAN, if there is one
	watchers []*lab.Host // client, observer and the attacker's host
	attacker *attacker   // nil if the row has none
	observer *observer
	client   *client
	running  []Running
	setting  Setting
}

// newSite makes the LAN of a row, with a second one for paths, and starts what
// measures.
func newSite(ctx context.Context, t lab.TB, s Setting, row Row, paths bool, seed uint64) *site {
	var options []lab.Option
	if row.links {
		options = append(options, lab.Switched(seed))
	}
	lan := lab.New(t, options...)
	w := &site{t: t, ctx: ctx, lan: lan, setting: s, running: make([]Running, len(s.Skews))}
	var all []*lab.Host
	for n := range nodes {
		all = append(all, lan.Host(fmt.Sprintf("node%d", 1+n), nodeAddr(n).String()+"/16"))
	}
	for i, name := range []string{"client", "observer", "attacker"} {
		w.watchers = append(w.watchers, lan.Host(name, fmt.Sprintf("10.9.0.%d/16", 200+i)))
	}
	for _, n := range s.taking() {
		w.hosts = append(w.hosts, all[n])
		serve(t, all[n], n)
	}
	if paths {
		back := lab.New(t)
		for n, h := range w.hosts {
			w.second = append(w.second, back.Join(h, "eth1", fmt.Sprintf("10.8.0.%d/16", 1+n)))
		}
	}
	addrs := some(s.Addresses)
	if row.attack {
		w.attacker = newAttacker(t, w.watchers[2])
	}
	w.observer = newObserver(t, w.watchers[1], addrs, hostMAC(attackerHost))
	w.client = newClient(t, w.watchers[0], addrs[len(addrs)-1])
	return w
}

// patience bounds the wait for a daemon to be at rest, to which ten intervals are
// added.
const patience = 20 * time.Second

// settle starts the daemon on all nodes and waits until the first one is the only
// one that answers and advertises. It reports whether that came.
func (w *site) settle(d Daemon) (bool, error) {
	for i, h := range w.hosts {
		m := Member{Setting: w.setting, Host: h, Node: i, Address: nodeAddr(w.setting.taking()[i]), Dir: w.t.TempDir()}
		r, err := d.Start(w.ctx, w.t, m)
		if err != nil {
			return false, fmt.Errorf("safety: start %s on %s: %w", d.Name, h.Name, err)
		}
		w.running[i] = r
	}
	return w.rest(patience + 10*w.setting.Interval)
}

// rest waits until node 0 alone has answered and advertised for a while.
func (w *site) rest(limit time.Duration) (bool, error) {
	interval := w.setting.Interval
	quiet := int64(interval*11/10 + 100*time.Millisecond)
	return await(w.ctx, limit, func() bool {
		now := stamp()
		for _, n := range w.setting.taking()[1:] {
			if w.observer.lastAdvert(n) > now-quiet {
				return false
			}
		}
		if w.observer.lastAdvert(0) < now-quiet || !w.client.answered(now-int64(50*time.Millisecond)) {
			return false
		}
		node, alone := w.observer.since(now - quiet)
		return alone && node == 0
	})
}

// signal sends a signal to all processes of a node.
func (w *site) signal(n int, sig syscall.Signal) { w.hosts[n].SignalAll(sig) }

// kill ends all processes of a node as if at once. They are frozen first: one that
// sees another die would say goodbye in the microseconds that it has left. The group of
// the first one ends in one call: of one that has lost its leader the kernel would wake
// the others.
func (w *site) kill(n int) {
	w.hosts[n].SignalAll(syscall.SIGSTOP)
	_ = syscall.Kill(-w.running[n].Leader(), syscall.SIGKILL) // it may have gone
	w.hosts[n].KillAll()
}

// everybody is all hosts but the first node.
func (w *site) everybody() []*lab.Host { return slices.Concat(w.hosts[1:], w.watchers) }
