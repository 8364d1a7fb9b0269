package vip_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/test/lab"
	"github.com/carpd/carpd/vip"
	"github.com/carpd/carpd/vip/viptest"
)

var (
	virtual9  = carp.MAC{0, 0, 0x5e, 0, 1, 9}
	virtual69 = carp.MAC{0, 0, 0x5e, 0, 2, 9}
)

// virtual returns what a Set with a virtual MAC is made of.
func virtual(prefixes ...string) vip.Config {
	return vip.Config{VHID: 9, VirtualMAC: virtual9, Device: "carp9", Addresses: prefixesOf(prefixes...)}
}

// on reports whether the interface is there and up.
func (n *node) on(name string) bool {
	l, err := n.k.Link(name)
	return err == nil && l.Up
}

// quiet reports whether eth0 keeps silent about addresses on other interfaces.
func (n *node) quiet() bool {
	n.Helper()
	l, err := n.k.Link("eth0")
	if err != nil {
		n.Fatal(err)
	}
	return l.Quiet
}

func (n *node) awaitDevice(name string) {
	n.Helper()
	lab.Eventually(n, 5*time.Second, "the device "+name, func() bool { _, err := n.k.Link(name); return err == nil })
}

// speaks returns a condition: the frame says that addr is at a MAC that is not want.
func speaks(addr netip.Addr, want carp.MAC) func(lab.Frame) bool {
	a := addr.AsSlice()
	return func(f lab.Frame) bool {
		switch {
		case len(f.Data) >= 42 && f.Data[12] == 0x08 && f.Data[13] == 0x06:
			return bytes.Equal(f.Data[28:32], a) && (!bytes.Equal(f.Data[22:28], want[:]) || !bytes.Equal(f.Data[6:12], want[:]))
		case len(f.Data) >= 78 && f.Data[12] == 0x86 && f.Data[20] == 58 && f.Data[54] == 136: // NA
			return bytes.Equal(f.Data[62:78], a) && !bytes.Equal(f.Data[6:12], want[:])
		case len(f.Data) >= 78 && f.Data[12] == 0x86 && f.Data[20] == 58 && f.Data[54] == 135: // NS
			return bytes.Equal(f.Data[22:38], a) && !bytes.Equal(f.Data[6:12], want[:])
		}
		return false
	}
}

// TestLabVirtualMACIsReached: from a client and from the backup, which has the same
// device down, from the node itself, and whatever caches have forgotten.
func TestLabVirtualMACIsReached(t *testing.T) {
	lan := lab.New(t)
	a := lan.Host("a", "192.0.2.1/24", "2001:db8::1/64")
	b := lan.Host("b", "192.0.2.2/24", "2001:db8::2/64")
	client := lan.Host("client", "192.0.2.3/24", "2001:db8::3/64")
	for _, h := range []*lab.Host{a, b} { // as distributions have it
		h.Sysctl("ipv4/conf/all/rp_filter", "1")
		h.Sysctl("ipv4/conf/default/rp_filter", "1")
	}
	c := lan.Capture()
	na, nb := newNode(t, a, virtual("192.0.2.9/24", "2001:db8::9/64")), newNode(t, b, virtual("192.0.2.9/24", "2001:db8::9/64"))
	nb.awaitDevice("carp9")
	na.up(time.Minute)
	mark := time.Now()
	var probers []*lab.Prober
	for _, v := range []string{"192.0.2.9", "2001:db8::9"} {
		for _, h := range []*lab.Host{client, b, a} {
			probers = append(probers, h.ProbeEvery(netip.MustParseAddr(v), 20*time.Millisecond))
		}
	}
	answered := func() {
		t.Helper()
		for i, p := range probers {
			lab.Eventually(t, 5*time.Second, fmt.Sprintf("an answer to prober %d", i), func() bool { return p.Answering(mark) })
		}
	}
	answered()
	// The node must ask for the way of its replies, and must not do it in the name of
	// the address with the MAC of eth0.
	a.Run("ip", "neigh", "flush", "dev", "eth0")
	client.Run("ip", "neigh", "flush", "dev", "eth0")
	mark = time.Now()
	answered()
	for _, v := range []string{"192.0.2.9", "2001:db8::9"} {
		if out := client.Run("ip", "neigh", "show", v); !strings.Contains(out, "00:00:5e:00:01:09") {
			t.Errorf("the client has %s at %q, want the virtual MAC", v, out)
		}
		for _, f := range c.Packets() {
			if f.Host == "a" && speaks(netip.MustParseAddr(v), virtual9)(f) {
				t.Fatalf("a says that %s is elsewhere: %x", v, f.Data)
			}
		}
	}
	if err := na.set.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	nb.up(time.Minute)
	mark = time.Now()
	answered()
}

func TestLabVirtualMACIsAnnouncedAndSoIsTheLinkLocalAddress(t *testing.T) {
	lan := lab.New(t)
	a := lan.Host("a", "192.0.2.1/24", "2001:db8::1/64")
	client := lan.Host("client", "192.0.2.3/24", "2001:db8::3/64")
	c, p := lan.Capture(), newProber(t, lan, client, a)
	cfg := virtual("fe80::9/64", "2001:db8:7::9/64")
	cfg.VirtualMAC, cfg.Device = virtual69, "vrrp6-9"
	n6, n4 := newNode(t, a, cfg), newNode(t, a, virtual("192.0.2.9/24"))
	n6.up(time.Minute)
	n4.up(time.Minute)
	for _, want := range [][]byte{
		unhexed("ffffffffffff 00005e000109 0806 0001080006040001 00005e000109 c0000209 000000000000 c0000209 000000000000000000000000000000000000"),
		unhexed("333300000001 00005e000209 86dd 60000000 0020 3aff fe800000000000000000000000000009 ff020000000000000000000000000001 8800"),
		unhexed("333300000001 00005e000209 86dd 60000000 0020 3aff 20010db8000700000000000000000009 ff020000000000000000000000000001 8800"),
	} {
		if _, ok := c.WaitFor(2*time.Second, func(f lab.Frame) bool { return bytes.HasPrefix(f.Data, want) }); !ok {
			t.Errorf("not on the wire: %x", want)
		}
	}
	// The client's own link-local address, so that the answer has but one way.
	link := netip.Addr{}
	for _, x := range client.Addrs("eth0") {
		if x.Addr().IsLinkLocalUnicast() {
			link = x.Addr()
		}
	}
	q, is := p.question(link, netip.MustParseAddr("fe80::9"))
	if got := p.ask(q, 2*time.Second, false, is); !slices.Equal(got, []carp.MAC{virtual69}) {
		t.Errorf("who has fe80::9: %v, want the virtual MAC", got)
	}
	e, is := p.echo(virtual69, link, netip.MustParseAddr("fe80::9"))
	// The kernel installs the device's route to its links a little after it is up.
	var got []carp.MAC
	for try := 0; try < 10 && len(got) == 0; try++ {
		got = p.ask(e, 500*time.Millisecond, false, is)
	}
	if !slices.Equal(got, []carp.MAC{virtual69}) {
		t.Errorf("echo of fe80::9: %v, want it by the device", got)
	}
}

// A router between: what comes in is from afar, what goes out takes the default
// route, and a client outside of the subnet of the node's own address is no other.
func TestLabVirtualMACIsReachedFromBehindARouter(t *testing.T) {
	lan := lab.New(t)
	a := lan.Host("a", "192.0.2.1/24", "2001:db8::1/64")
	r := lan.Host("r", "192.0.2.254/24", "203.0.113.254/24", "2001:db8::fe/64", "2001:db8:5::fe/64")
	client := lan.Host("client", "203.0.113.3/24", "2001:db8:5::3/64")
	for key, value := range map[string]string{"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1", "ipv4/conf/all/send_redirects": "0", "ipv4/conf/eth0/send_redirects": "0"} {
		r.Sysctl(key, value)
	}
	a.Sysctl("ipv4/conf/all/rp_filter", "1")
	a.Run("ip", "route", "add", "default", "via", "192.0.2.254")
	a.Run("ip", "-6", "route", "add", "default", "via", "2001:db8::fe")
	client.Run("ip", "route", "add", "default", "via", "203.0.113.254")
	client.Run("ip", "-6", "route", "add", "default", "via", "2001:db8:5::fe")
	n := newNode(t, a, virtual("192.0.2.9/24", "2001:db8::9/64"))
	n.up(time.Minute)
	for _, v := range []string{"192.0.2.9", "2001:db8::9"} {
		p := client.ProbeEvery(netip.MustParseAddr(v), 20*time.Millisecond)
		mark := p.Mark()
		lab.Eventually(t, 5*time.Second, "an answer of "+v, func() bool { return p.Answering(mark) })
	}
}

// neighbour asks for both addresses and returns who answers. Each is asked for by
// ARP or NS, and by an echo request straight to the MAC.
func (p prober) neighbour(within time.Duration, mac carp.MAC) (from []carp.MAC) {
	for _, x := range [][2]string{{"192.0.2.3", "192.0.2.9"}, {"2001:db8::3", "2001:db8::9"}} {
		src, v := netip.MustParseAddr(x[0]), netip.MustParseAddr(x[1])
		frame, is := p.question(src, v)
		from = append(from, p.ask(frame, within, true, is)...)
		frame, is = p.echo(mac, src, v)
		from = append(from, p.ask(frame, within, true, is)...)
	}
	return from
}

// awaitNeighbour waits for ARP and echo, NS and echo to be answered.
func (p prober) awaitNeighbour(mac carp.MAC) {
	p.Helper()
	lab.Eventually(p, 5*time.Second, "four answers", func() bool { return len(p.neighbour(100*time.Millisecond, mac)) == 4 })
}

func TestLabDeviceThatIsDownAnswersNothing(t *testing.T) {
	lan := lab.New(t)
	a := lan.Host("a", viptest.Own()...)
	p := newProber(t, lan, lan.Host("client", "192.0.2.3/24", "2001:db8::3/64"), a)
	n := newNode(t, a, virtual("192.0.2.9/24", "2001:db8::9/64"))
	n.awaitDevice("carp9")
	if got := p.neighbour(200*time.Millisecond, virtual9); len(got) != 0 || n.on("carp9") {
		t.Errorf("before Up: answers from %v, up %v", got, n.on("carp9"))
	}
	n.up(time.Minute)
	p.awaitNeighbour(virtual9)
	if err := n.set.Down(t.Context()); err != nil {
		t.Errorf("Down: %v", err)
	}
	lab.Eventually(t, time.Second, "the device to be down", func() bool { return !n.on("carp9") })
	if got := p.neighbour(200*time.Millisecond, virtual9); len(got) != 0 || n.on("carp9") {
		t.Errorf("after Down: answers from %v, up %v", got, n.on("carp9"))
	}
	if l, err := n.k.Link("carp9"); err != nil || l.MAC != virtual9 {
		t.Errorf("after Down: %+v, %v, want the device to be seen", l, err)
	}
}

// The kernel takes the addresses off and leaves the device up: nobody is there to
// set it down. It must be mute all the same.
func TestLabDeviceThatADeadDaemonLeftUpAnswersNothing(t *testing.T) {
	lan := lab.New(t)
	a := lan.Host("a", viptest.Own()...)
	p := newProber(t, lan, lan.Host("client", "192.0.2.3/24", "2001:db8::3/64"), a)
	dead := openOn(t, a)
	cfg := virtual("192.0.2.9/24", "2001:db8::9/64")
	cfg.Interface, cfg.Lease = "eth0", vip.Lease{Valid: 2 * time.Second, Renew: time.Second}
	n := &node{TB: t, host: a, k: dead, set: vip.New(dead, cfg)} // no worker
	n.up(time.Minute)
	p.awaitNeighbour(virtual9)
	lab.Eventually(t, 6*time.Second, "the lease to end", func() bool { return len(a.Addrs("carp9")) == 0 })
	if got := p.neighbour(200*time.Millisecond, virtual9); len(got) != 0 || !n.on("carp9") {
		t.Errorf("answers from %v, up %v", got, n.on("carp9"))
	}
}

func TestLabDeviceHasNoAddressOfItsOwn(t *testing.T) {
	lan := lab.New(t)
	a := lan.Host("a", viptest.Own()...)
	r := lan.Host("r", "2001:db8::fe/64")
	a.Sysctl("ipv6/conf/default/accept_ra", "2")
	n := newNode(t, a, virtual("192.0.2.9/24", "2001:db8::9/64"))
	n.up(time.Minute)
	// A router advertisement with a prefix for all to use.
	k := openOn(t, r)
	l, err := k.Link("eth0")
	if err != nil {
		t.Fatal(err)
	}
	lladdr := netip.Addr{}
	for _, x := range r.Addrs("eth0") {
		if x.Addr().IsLinkLocalUnicast() {
			lladdr = x.Addr()
		}
	}
	body := unhexed("8600 0000 40 00 0708 00000000 00000000 0304 40c0 00015180 00003840 00000000 20010db8000900000000000000000000")
	frame := ipv6(append(unhexed("333300000001"), l.MAC[:]...), lladdr.As16(), netip.MustParseAddr("ff02::1").As16(), body)
	if err := k.Send(t.Context(), l.Index, [][]byte{frame}, nil); err != nil {
		t.Fatal(err)
	}
	a.Run("ip", "route") // the interface below learns from it: it has arrived
	lab.Eventually(t, 5*time.Second, "eth0 to use the prefix", func() bool {
		return slices.ContainsFunc(a.Addrs("eth0"), func(p netip.Prefix) bool {
			return netip.MustParsePrefix("2001:db8:9::/64").Contains(p.Addr())
		})
	})
	if got := a.Addrs("carp9"); len(got) != 2 {
		t.Errorf("the device has %v, want its two addresses only", got)
	}
	if out := a.Run("ip", "-6", "route", "show", "dev", "carp9"); strings.Contains(out, "default") {
		t.Errorf("routes by the device: %s", out)
	}
}

func TestLabDeviceTakenByHandIsBackWithin100ms(t *testing.T) {
	h := lab.New(t).Host("a", viptest.Own()...)
	n := newNode(t, h, virtual("192.0.2.9/24", "2001:db8::9/64"))
	n.up(time.Minute)
	has := func() bool {
		got := h.Addrs("carp9")
		return n.on("carp9") && slices.Contains(got, netip.MustParsePrefix("192.0.2.9/32")) && slices.Contains(got, netip.MustParsePrefix("2001:db8::9/128"))
	}
	for _, command := range []string{"link set carp9 down", "link del carp9"} {
		var away []time.Duration
		for range 4 {
			h.Run(append([]string{"ip"}, strings.Fields(command)...)...)
			gone := time.Now()
			lab.Eventually(t, 2*time.Second, "the device to come back after "+command, has)
			away = append(away, time.Since(gone))
		}
		slices.Sort(away)
		if away[1] > 100*time.Millisecond {
			t.Errorf("%s: away for %v, want a median of 100 ms at most", command, away)
		}
		t.Logf("%s: away for %v", command, away)
	}
	lab.Eventually(t, time.Second, "the event", func() bool { return n.heard(vip.EventRestored) })
}

func TestLabDeviceComesBackWithItsInterface(t *testing.T) {
	h := lab.New(t).Host("a", viptest.Own()...)
	n := newNode(t, h, virtual("192.0.2.9/24", "2001:db8::9/64"))
	n.up(time.Minute)
	h.DeleteLink()
	lab.Eventually(t, 2*time.Second, "the event", func() bool { return n.heard(vip.EventLinkGone) })
	h.RecreateLink()
	lab.Eventually(t, 2*time.Second, "the addresses", func() bool { return n.on("carp9") && len(h.Addrs("carp9")) == 2 })
	if !n.quiet() {
		t.Error("the new interface below answers for the addresses")
	}
	if err := n.set.Down(t.Context()); err != nil {
		t.Errorf("Down: %v", err)
	}
}

func TestLabDeviceGoesWithRunAndTheInterfaceBelowIsAsBefore(t *testing.T) {
	for name, byHand := range map[string]bool{"removed by Run": false, "deleted by hand before": true} {
		t.Run(name, func(t *testing.T) {
			h := lab.New(t).Host("a", viptest.Own()...)
			h.Sysctl("ipv4/conf/eth0/arp_announce", "1")
			cfg := virtual("192.0.2.9/24")
			cfg.Interface = "eth0"
			n := &node{TB: t, host: h, k: openOn(t, h)}
			n.set = vip.New(n.k, cfg)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- n.set.Run(ctx) }()
			n.awaitDevice("carp9")
			lab.Eventually(t, time.Second, "eth0 to be quiet", n.quiet)
			n.up(time.Minute)
			if byHand {
				if err := n.set.Down(t.Context()); err != nil {
					t.Fatal(err)
				}
				h.Run("ip", "link", "del", "carp9")
			}
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Run: %v", err)
			}
			if _, err := n.k.Link("carp9"); !errors.Is(err, vip.ErrNoLink) {
				t.Errorf("the device is left: %v", err)
			}
			if got := settings(h); got != "0 1" {
				t.Errorf("arp_ignore and arp_announce of eth0 are %s, want 0 1 as before", got)
			}
		})
	}
}

// settings returns what devices change of eth0.
func settings(h *lab.Host) string {
	out := h.Run("cat", "/proc/sys/net/ipv4/conf/eth0/arp_ignore", "/proc/sys/net/ipv4/conf/eth0/arp_announce")
	return strings.Join(strings.Fields(out), " ")
}

func TestLabForeignDeviceIsLeftAlone(t *testing.T) {
	for name, tc := range map[string]struct{ make, hint string }{
		"same name":                   {"link add carp9 type veth peer name other0", "ip link del carp9"},
		"same name, macvlan":          {"link add carp9 link eth0 type macvlan mode private", "ip link del carp9"},
		"same MAC":                    {"link add other0 link eth0 address 00:00:5e:00:01:09 type macvlan mode bridge", "other0"},
		"the interface has it itself": {"link set eth0 address 00:00:5e:00:01:09", "eth0 itself"},
	} {
		t.Run(name, func(t *testing.T) {
			h := lab.New(t).Host("a", viptest.Own()...)
			h.Run(append([]string{"ip"}, strings.Fields(tc.make)...)...)
			before := h.Run("ip", "-d", "link")
			n := newNode(t, h, virtual("192.0.2.9/24"))
			lab.Eventually(t, time.Second, "the event", func() bool { return n.heard(vip.EventFailed) })
			n.set.Permit(carp.Permit{Epoch: 1, Until: bootTime().Add(time.Minute)})
			err := n.set.Up(t.Context(), 1)
			if !errors.Is(err, vip.ErrForeignDevice) || !strings.Contains(err.Error(), tc.hint) {
				t.Errorf("Up: %v, want ErrForeignDevice and a hint with %q", err, tc.hint)
			}
			if after := h.Run("ip", "-d", "link"); after != before {
				t.Errorf("interfaces were\n%sand are\n%s", before, after)
			}
			if got := settings(h); got != "0 0" {
				t.Errorf("arp_ignore and arp_announce of eth0 are %s, want 0 0 as before", got)
			}
		})
	}
}

func TestLabCleanupRemovesDevicesOfTheDead(t *testing.T) {
	h := lab.New(t).Host("a", viptest.Own()...)
	dead := openOn(t, h)
	for i, name := range []string{"carp9", "vrrp6-9", "carp10"} {
		cfg := virtual(fmt.Sprintf("192.0.2.%d/24", 20+i))
		cfg.Interface, cfg.Device, cfg.VirtualMAC = "eth0", name, carp.MAC{0, 0, 0x5e, 0, 1, byte(9 + i)}
		n := &node{TB: t, host: h, k: dead, set: vip.New(dead, cfg)}
		n.up(time.Minute)
	}
	if err := dead.Close(); err != nil {
		t.Fatal(err)
	}
	k := openOn(t, h)
	names := func() (out []string) {
		links, err := k.Links()
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range links {
			if l.Parent != 0 {
				out = append(out, l.Name)
			}
		}
		return out
	}
	// Others live here: what nobody holds is named.
	removed, err := vip.Cleanup(k, []string{"eth0"}, prefixesOf("192.0.2.21/24"), "carp9")
	if err != nil || len(removed) != 2 || !slices.Equal(names(), []string{"vrrp6-9", "carp10"}) || len(h.Addrs("vrrp6-9")) != 0 {
		t.Errorf("Cleanup of one device and an address: %v, %v; %v are left, with %v", removed, err, names(), h.Addrs("vrrp6-9"))
	}
	if got := settings(h); got != "1 2" {
		t.Errorf("arp_ignore and arp_announce are %s while devices are left, want 1 2", got)
	}
	if removed, err = vip.Cleanup(k, []string{"eth1"}, nil); err != nil || len(removed) != 0 {
		t.Errorf("Cleanup of another interface: %v, %v", removed, err)
	}
	if removed, err = vip.Cleanup(k, nil, nil); err != nil || len(removed) != 2 || len(names()) != 0 {
		t.Errorf("Cleanup: %v, %v, and %v are left", removed, err, names())
	}
	if got := settings(h); got != "0 0" {
		t.Errorf("arp_ignore and arp_announce are %s, want 0 0 as before", got)
	}
}
