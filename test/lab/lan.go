package lab

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
)

// LAN is one Ethernet segment: a switch and the hosts on it. It is made by New
// and taken down at the end of the test.
type LAN struct {
	t    TB
	ns   *namespace
	opts options
	sw   *softSwitch // nil: a bridge of the kernel

	mu     sync.Mutex
	hosts  []*Host
	bridge netlink.Link
	closed bool
	stop   chan struct{}
}

// Option changes what New makes.
type Option func(*options)

type options struct {
	switched bool
	seed     uint64
	tap      bool
}

// Switched makes the switch of the LAN a part of this process instead of a bridge
// of the kernel: links between hosts can be cut, clogged and made bad one by one
// (see Link), and what they drop depends on seed.
func Switched(seed uint64) Option {
	return func(o *options) { o.switched, o.seed = true, seed }
}

// Tap gives the hosts of a Switched LAN tap interfaces in place of veths. Frames
// flow faster; the carrier follows Unplug as with a veth. It needs a /dev/net/tun
// that may be opened, which a user namespace most often has not.
func Tap() Option { return func(o *options) { o.tap = true } }

// New makes an empty LAN for the test. SIGINT and SIGTERM take it down too,
// before they end the process.
func New(t TB, opts ...Option) *LAN {
	t.Helper()
	var o options
	for _, set := range opts {
		set(&o)
	}
	if o.tap && !o.switched {
		t.Fatalf("lab: Tap needs Switched: a bridge of the kernel has veths")
	}
	ns, err := newNamespace()
	if err != nil {
		const hint = "run as root, or allow user namespaces (sysctl kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0) and call lab.Main from TestMain"
		if os.Getenv("CARPD_LAB") == "required" {
			t.Fatalf("%v; %s", err, hint)
		}
		t.Skipf("%v; %s", err, hint)
	}
	l := &LAN{t: t, ns: ns, opts: o, stop: make(chan struct{})}
	t.Cleanup(l.close)
	if err := l.build(); err != nil {
		t.Fatal(err)
	}
	go l.watchSignals()
	return l
}

// build makes the switch. Without spanning tree a port forwards as soon as it
// is up, whatever the forward delay says (br_make_forwarding).
func (l *LAN) build() error {
	// The switch has no voice of its own: no router solicitations, no MLD.
	if err := l.ns.sysctl("ipv6/conf/default/disable_ipv6", "1"); err != nil {
		return err
	}
	if l.opts.switched {
		var err error
		l.sw, err = newSwitch(l.opts.seed)
		return err
	}
	snooping := false
	br := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs(), MulticastSnooping: &snooping}
	br.Name = "br0"
	if err := l.ns.nl.LinkAdd(br); err != nil {
		return fmt.Errorf("lab: add bridge: %w", err)
	}
	if err := l.ns.nl.LinkSetUp(br); err != nil {
		return fmt.Errorf("lab: set bridge up: %w", err)
	}
	l.bridge = br
	return nil
}

// watchSignals takes the LAN down at SIGINT or SIGTERM and signals once more.
// The last LAN to do so has restored the default action by then.
func (l *LAN) watchSignals() {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(c)
	select {
	case <-l.stop:
	case s := <-c:
		l.killHosts()
		signal.Stop(c)
		_ = syscall.Kill(os.Getpid(), s.(syscall.Signal))
	}
}

func (l *LAN) killHosts() {
	l.mu.Lock()
	hosts := append([]*Host(nil), l.hosts...)
	l.mu.Unlock()
	for _, h := range hosts {
		if h.owner == nil {
			h.KillAll()
		}
	}
}

func (l *LAN) close() {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return
	}
	l.closed = true
	l.mu.Unlock()
	close(l.stop)
	l.killHosts()
	for _, h := range l.hosts {
		h.close()
	}
	if l.sw != nil {
		if n := l.sw.overruns(); n > 0 && l.t.Failed() {
			l.t.Logf("lab: the switch was too slow for %d frames: what it dropped by chance may differ in another run", n)
		}
		l.sw.close()
	}
	l.ns.close()
}

// Partition makes the given hosts deaf to each other. All other hosts hear, and
// are heard by, every one of them. It replaces an earlier partition.
func (l *LAN) Partition(hosts ...*Host) {
	l.t.Helper()
	if l.sw != nil {
		groups := make([][]*Host, len(hosts))
		for i, h := range hosts {
			groups[i] = []*Host{h}
		}
		l.Split(groups...)
		return
	}
	l.Heal()
	for _, h := range hosts {
		if err := h.setIsolated(true); err != nil {
			l.t.Fatal(err)
		}
	}
}

// Heal ends every Partition and Isolate; on a Switched LAN also every Split and, as
// Link.Heal does, the faults of all links.
func (l *LAN) Heal() {
	l.t.Helper()
	if l.sw != nil {
		l.Split()
		l.sw.do(func(f *fabric, _ time.Duration) {
			for _, p := range f.ports {
				p.isolated = false
			}
		})
		l.links(func(*path) bool { return true }).Heal()
		return
	}
	l.mu.Lock()
	hosts := append([]*Host(nil), l.hosts...)
	l.mu.Unlock()
	for _, h := range hosts {
		if err := errors.Join(h.setIsolated(false), h.setAttached(true)); err != nil {
			l.t.Fatal(err)
		}
	}
}

// Eventually waits until cond is true, looking every 5 ms, and ends the test if
// it is not within timeout. What completes the sentence "timed out waiting for".
func Eventually(t TB, timeout time.Duration, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(timeout)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("timed out after %v waiting for %s", timeout, what)
		}
		<-tick.C
	}
}
