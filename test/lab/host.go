package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// linkName is what every host calls its interface; those by Join have other names.
const linkName = "eth0"

// Host is a machine on a LAN: a network namespace with lo and eth0.
type Host struct {
	Name string // as given to LAN.Host; frames and logs use it

	lan      *LAN
	ns       *namespace
	owner    *Host  // whose namespace it is, if it came by Join
	link     string // its interface: eth0, unless it came by Join
	port     string // the switch's end of that
	mac      net.HardwareAddr
	prefixes []netip.Prefix

	mu    sync.Mutex
	procs []*Proc
}

// Host adds a host with these addresses ("192.0.2.1/24", "2001:db8::1/64") on
// eth0, and returns when it can use them. Names are unique in a LAN and at most
// 11 bytes long; the MAC of the nth host, of 255 at most, is 02:00:00:00:00:n.
func (l *LAN) Host(name string, prefixes ...string) *Host {
	l.t.Helper()
	h := &Host{Name: name, lan: l, link: linkName, port: "lab-" + name}
	for _, p := range prefixes {
		prefix, err := netip.ParsePrefix(p)
		if err != nil {
			l.t.Fatalf("lab: host %s: %v", name, err)
		}
		h.prefixes = append(h.prefixes, prefix)
	}
	ns, err := newNamespace()
	if err != nil {
		l.t.Fatal(err)
	}
	h.ns = ns
	l.mu.Lock()
	l.hosts = append(l.hosts, h)
	h.mac = net.HardwareAddr{2, 0, 0, 0, 0, byte(len(l.hosts))}
	l.mu.Unlock()
	if err := h.build(); err != nil {
		l.t.Fatal(err)
	}
	return h
}

// Join puts a host of another LAN on this one too, by a second interface of that
// name with these addresses. The Host it returns is the same machine: Link, Unplug,
// SetLink and the like of it concern this LAN and that interface. The MAC is
// 02:00:00:00:01:n for the nth host of this LAN.
func (l *LAN) Join(h *Host, link string, prefixes ...string) *Host {
	l.t.Helper()
	joined := &Host{Name: h.Name, lan: l, ns: h.ns, owner: h, link: link, port: "lab-" + h.Name}
	for _, p := range prefixes {
		prefix, err := netip.ParsePrefix(p)
		if err != nil {
			l.t.Fatalf("lab: join %s: %v", h.Name, err)
		}
		joined.prefixes = append(joined.prefixes, prefix)
	}
	l.mu.Lock()
	l.hosts = append(l.hosts, joined)
	joined.mac = net.HardwareAddr{2, 0, 0, 0, 1, byte(len(l.hosts))}
	l.mu.Unlock()
	if err := joined.addLink(); err != nil {
		l.t.Fatal(err)
	}
	return joined
}

func (h *Host) build() error {
	for key, value := range map[string]string{
		"ipv6/conf/default/accept_dad":           "0",
		"ipv6/conf/all/accept_dad":               "0",
		"ipv4/conf/all/promote_secondaries":      "1",
		"ipv4/ping_group_range":                  "0 0",
		"ipv6/conf/default/router_solicitations": "0",
	} {
		if err := h.ns.sysctl(key, value); err != nil {
			return err
		}
	}
	lo, err := h.ns.nl.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("lab: host %s: find lo: %w", h.Name, err)
	}
	if err := h.ns.nl.LinkSetUp(lo); err != nil {
		return fmt.Errorf("lab: host %s: set lo up: %w", h.Name, err)
	}
	return h.addLink()
}

// addLink makes eth0, plugs it in, configures it and waits until it works.
func (h *Host) addLink() error {
	add := h.addVeth
	if h.lan.opts.tap {
		add = h.addTap
	}
	if err := add(); err != nil {
		return err
	}
	if err := h.setPort(true); err != nil {
		return err
	}
	if err := h.ns.do(func() error { return disableTXChecksum(h.link) }); err != nil {
		return err
	}
	if err := h.setLink(true); err != nil {
		return err
	}
	link, err := h.ns.nl.LinkByName(h.link)
	if err != nil {
		return fmt.Errorf("lab: host %s: find eth0: %w", h.Name, err)
	}
	for _, p := range h.prefixes {
		addr, err := netlink.ParseAddr(p.String())
		if err != nil {
			return fmt.Errorf("lab: host %s: address %v: %w", h.Name, p, err)
		}
		if p.Addr().Is6() {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := h.ns.nl.AddrReplace(link, addr); err != nil {
			return fmt.Errorf("lab: host %s: add %v: %w", h.Name, p, err)
		}
	}
	return h.waitUsable()
}

// addVeth makes eth0 as one end of a veth and plugs the other end in.
func (h *Host) addVeth() error {
	veth := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: h.link, PeerNamespace: netlink.NsFd(h.ns.fd())}
	veth.Name = h.port
	veth.PeerHardwareAddr = h.mac
	if err := h.lan.ns.nl.LinkAdd(veth); err != nil {
		return fmt.Errorf("lab: host %s: add link: %w", h.Name, err)
	}
	if h.lan.sw == nil {
		return h.setAttached(true)
	}
	link, err := h.lan.ns.nl.LinkByName(h.port)
	if err != nil {
		return fmt.Errorf("lab: host %s: find port: %w", h.Name, err)
	}
	return h.plugIn(h.lan.ns, func() (*cable, error) { return openVeth(link.Attrs().Index) })
}

// addTap makes eth0 as a tap that the switch holds.
func (h *Host) addTap() error {
	if err := h.plugIn(h.ns, func() (*cable, error) { return openTun(h.link) }); err != nil {
		return err
	}
	link, err := h.ns.nl.LinkByName(h.link)
	if err == nil {
		err = h.ns.nl.LinkSetHardwareAddr(link, h.mac)
	}
	if err != nil {
		return fmt.Errorf("lab: host %s: set MAC: %w", h.Name, err)
	}
	return nil
}

// plugIn opens the switch's end in a namespace and gives it to the switch.
func (h *Host) plugIn(ns *namespace, open func() (*cable, error)) error {
	return ns.do(func() error {
		c, err := open()
		if err != nil {
			return fmt.Errorf("lab: host %s: %w", h.Name, err)
		}
		h.lan.sw.attach(h.Name, c)
		return nil
	})
}

// waitUsable waits for the carrier to have been noticed on both ends: routes
// and link-local addresses come after it.
func (h *Host) waitUsable() error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(5 * time.Second)
	for {
		here, err := h.usable(h.ns, h.link)
		there := true
		if err == nil && !h.lan.opts.tap {
			there, err = h.usable(h.lan.ns, h.port)
		}
		if err != nil {
			return fmt.Errorf("lab: host %s: find link: %w", h.Name, err)
		}
		if here && there {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("lab: host %s: eth0 has no carrier after 5 s", h.Name)
		}
		<-tick.C
	}
}

// usable reports whether a link has its carrier. A tap's state may stay unknown.
func (h *Host) usable(ns *namespace, name string) (bool, error) {
	link, err := ns.nl.LinkByName(name)
	if err != nil {
		return false, err
	}
	a := link.Attrs()
	return a.OperState == netlink.OperUp || h.lan.opts.tap && a.OperState == netlink.OperUnknown && a.RawFlags&unix.IFF_LOWER_UP != 0, nil
}

// Do runs f with the calling thread in the host's namespace: sockets that it
// opens stay the host's. Goroutines that it starts are not in the namespace. It
// may call t.Fatal, and Do of another host.
func (h *Host) Do(f func()) {
	h.lan.t.Helper()
	if err := h.ns.do(func() error { f(); return nil }); err != nil {
		h.lan.t.Fatal(err)
	}
}

// DoErr is Do for a function that can fail, and returns its error.
func (h *Host) DoErr(f func() error) error { return h.ns.do(f) }

// Addrs lists the addresses of one of the host's interfaces; none if there is
// no such interface.
func (h *Host) Addrs(link string) []netip.Prefix {
	h.lan.t.Helper()
	var found []netip.Prefix
	l, err := h.ns.nl.LinkByName(link)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	var addrs []netlink.Addr
	if err == nil {
		addrs, err = retryDump(func() ([]netlink.Addr, error) { return h.ns.nl.AddrList(l, netlink.FAMILY_ALL) })
	}
	if errors.Is(err, syscall.ENODEV) {
		return nil
	}
	if err != nil {
		h.lan.t.Fatalf("lab: host %s: list addresses of %s: %v", h.Name, link, err)
	}
	for _, a := range addrs {
		if ip, ok := netip.AddrFromSlice(a.IP); ok {
			bits, _ := a.Mask.Size()
			found = append(found, netip.PrefixFrom(ip.Unmap(), bits))
		}
	}
	return found
}

// HasAddr reports whether any interface of the host has the address.
func (h *Host) HasAddr(want netip.Addr) bool {
	h.lan.t.Helper()
	addrs, err := retryDump(func() ([]netlink.Addr, error) { return h.ns.nl.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		h.lan.t.Fatalf("lab: host %s: list addresses: %v", h.Name, err)
	}
	for _, a := range addrs {
		if ip, ok := netip.AddrFromSlice(a.IP); ok && ip.Unmap() == want.Unmap() {
			return true
		}
	}
	return false
}

// retryDump repeats a dump that a change interrupted, a hundred times at most: while
// thousands of addresses go on, each is.
func retryDump[T any](dump func() (T, error)) (T, error) {
	var v T
	var err error
	for range 100 {
		if v, err = dump(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return v, err
}

// SetLink sets eth0 up or down on the host's side, as `ip link set` does. Going
// down, the kernel forgets IPv6 addresses; they do not come back by themselves.
func (h *Host) SetLink(up bool) {
	h.lan.t.Helper()
	if err := h.setLink(up); err != nil {
		h.lan.t.Fatal(err)
	}
}

func (h *Host) setLink(up bool) error { return setUp(h.ns.nl, h.link, up) }

// Unplug pulls the cable: eth0 loses its carrier.
func (h *Host) Unplug() {
	h.lan.t.Helper()
	if err := h.setPort(false); err != nil {
		h.lan.t.Fatal(err)
	}
}

// Plug puts the cable back and returns when eth0 has its carrier again (if it
// is set up).
func (h *Host) Plug() {
	h.lan.t.Helper()
	if err := h.setPort(true); err != nil {
		h.lan.t.Fatal(err)
	}
}

func (h *Host) setPort(up bool) error {
	if sw := h.lan.sw; sw != nil {
		if !up {
			sw.do(func(f *fabric, _ time.Duration) { f.forget(f.port(h.Name)) })
		}
		if c := sw.cable(h.Name); c != nil && c.tap {
			return c.setCarrier(up)
		}
	}
	return setUp(h.lan.ns.nl, h.port, up)
}

func setUp(nl *netlink.Handle, name string, up bool) error {
	link, err := nl.LinkByName(name)
	if err != nil {
		return fmt.Errorf("lab: find %s: %w", name, err)
	}
	set := nl.LinkSetDown
	if up {
		set = nl.LinkSetUp
	}
	if err := set(link); err != nil {
		return fmt.Errorf("lab: set %s up=%v: %w", name, up, err)
	}
	return nil
}

// Isolate makes the host hear nobody and be heard by nobody, with its carrier
// unchanged: a switch gone mad. Isolate(false) or LAN.Heal ends it.
func (h *Host) Isolate(on bool) {
	h.lan.t.Helper()
	if err := h.setAttached(!on); err != nil {
		h.lan.t.Fatal(err)
	}
}

func (h *Host) setAttached(on bool) error {
	if h.lan.sw != nil {
		h.lan.sw.do(func(f *fabric, _ time.Duration) { f.port(h.Name).isolated = !on })
		return nil
	}
	nl := h.lan.ns.nl
	port, err := nl.LinkByName(h.port)
	if errors.As(err, &netlink.LinkNotFoundError{}) && on {
		return nil // DeleteLink: RecreateLink will attach it
	}
	if err != nil {
		return fmt.Errorf("lab: host %s: find port: %w", h.Name, err)
	}
	if on {
		if port.Attrs().MasterIndex == h.lan.bridge.Attrs().Index {
			return nil
		}
		err = nl.LinkSetMaster(port, h.lan.bridge)
	} else {
		err = nl.LinkSetNoMaster(port)
	}
	if err != nil {
		return fmt.Errorf("lab: host %s: attach port (%v): %w", h.Name, on, err)
	}
	return nil
}

// setIsolated sets the port's flag: isolated ports do not hear each other.
func (h *Host) setIsolated(on bool) error {
	nl := h.lan.ns.nl
	port, err := nl.LinkByName(h.port)
	if errors.As(err, &netlink.LinkNotFoundError{}) && !on {
		return nil
	}
	if err == nil && !on && port.Attrs().MasterIndex == 0 {
		return nil // detached: the flag went with the switch
	}
	if err == nil {
		err = nl.LinkSetIsolated(port, on)
	}
	if err != nil {
		return fmt.Errorf("lab: host %s: isolate port (%v): %w", h.Name, on, err)
	}
	return nil
}

// DeleteLink deletes eth0, as a driver that is unloaded does.
func (h *Host) DeleteLink() {
	h.lan.t.Helper()
	if h.lan.sw != nil {
		h.lan.sw.detach(h.Name)
	}
	if h.lan.opts.tap {
		return // it went with its socket
	}
	link, err := h.lan.ns.nl.LinkByName(h.port)
	if err == nil {
		err = h.lan.ns.nl.LinkDel(link)
	}
	if err != nil {
		h.lan.t.Fatalf("lab: host %s: delete link: %v", h.Name, err)
	}
}

// RecreateLink makes eth0 again after DeleteLink, with the addresses that the
// host was made with and the same MAC.
func (h *Host) RecreateLink() {
	h.lan.t.Helper()
	if err := h.addLink(); err != nil {
		h.lan.t.Fatal(err)
	}
}

// Sysctl writes a value below /proc/sys/net of the host: key is as
// "ipv4/conf/eth0/arp_ignore".
func (h *Host) Sysctl(key, value string) {
	h.lan.t.Helper()
	if err := h.ns.sysctl(key, value); err != nil {
		h.lan.t.Fatal(err)
	}
}

// KillAll ends every process in the host's namespace by SIGKILL, also those
// that left their process group, and returns when they are gone. They are stopped
// first, so that none of them sees another one die. The test's own
// process is spared.
func (h *Host) KillAll() {
	for range 100 { // a process may fork while it is being killed
		pids := h.ns.pids()
		if len(pids) == 0 {
			break
		}
		for _, sig := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGKILL} {
			for _, pid := range pids {
				_ = syscall.Kill(pid, sig) // it may be gone already
			}
		}
		for _, pid := range pids {
			awaitGone(pid, time.Second)
		}
	}
	for _, p := range h.processes() {
		<-p.done
	}
}

// SignalAll sends a signal to every process in the host's namespace, as a
// freezer would with SIGSTOP and SIGCONT.
func (h *Host) SignalAll(sig syscall.Signal) {
	for _, pid := range h.ns.pids() {
		_ = syscall.Kill(pid, sig)
	}
}

// awaitGone waits until a process has left its namespace, which it does before
// it becomes a zombie.
func awaitGone(pid int, limit time.Duration) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); <-tick.C {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d/ns/net", pid)); err != nil {
			return
		}
	}
}

func (h *Host) processes() []*Proc {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]*Proc(nil), h.procs...)
}

func (h *Host) close() {
	if h.owner != nil {
		return // its own LAN closes it
	}
	for _, p := range h.processes() {
		p.report()
	}
	h.ns.close()
}

// disableTXChecksum makes the kernel compute checksums before a frame leaves:
// veth would leave them out, and captures and raw sockets see them wrong.
func disableTXChecksum(name string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("lab: open ethtool socket: %w", err)
	}
	defer unix.Close(fd)
	value := struct{ cmd, data uint32 }{unix.ETHTOOL_STXCSUM, 0}
	var req struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte // struct ifreq is 40 bytes long
	}
	copy(req.name[:], name)
	req.data = unsafe.Pointer(&value)
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req))); e != 0 {
		return fmt.Errorf("lab: switch off TX checksums of %s: %w", name, e)
	}
	return nil
}

// LinkIndex returns the number of an interface in the namespace of the calling thread.
// It leaves nothing behind, so it is for use within Host.Do.
func LinkIndex(name string) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq(name)
	if err == nil {
		err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, req)
	}
	if err != nil {
		return 0, fmt.Errorf("lab: find %s: %w", name, err)
	}
	return int(req.Uint32()), nil
}
