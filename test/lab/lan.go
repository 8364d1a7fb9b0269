package lab

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// LAN is one Ethernet segment: a switch and the hosts on it. It is made by New
// and taken down at the end of the test.
type LAN struct {
	t  testing.TB
	ns *namespace

	mu     sync.Mutex
	hosts  []*Host
	bridge netlink.Link
	closed bool
	stop   chan struct{}
}

// New makes an empty LAN for the test. SIGINT and SIGTERM take it down too,
// before they end the process.
func New(t testing.TB) *LAN {
	t.Helper()
	ns, err := newNamespace()
	if err != nil {
		const hint = "run as root, or allow user namespaces (sysctl kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0) and call lab.Main from TestMain"
		if os.Getenv("CARPD_LAB") == "required" {
			t.Fatalf("%v; %s", err, hint)
		}
		t.Skipf("%v; %s", err, hint)
	}
	l := &LAN{t: t, ns: ns, stop: make(chan struct{})}
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
		h.KillAll()
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
	l.ns.close()
}

// Partition makes the given hosts deaf to each other. All other hosts hear, and
// are heard by, every one of them. It replaces an earlier partition.
func (l *LAN) Partition(hosts ...*Host) {
	l.t.Helper()
	l.Heal()
	for _, h := range hosts {
		if err := h.setIsolated(true); err != nil {
			l.t.Fatal(err)
		}
	}
}

// Heal ends every Partition and Isolate.
func (l *LAN) Heal() {
	l.t.Helper()
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
func Eventually(t testing.TB, timeout time.Duration, what string, cond func() bool) {
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
