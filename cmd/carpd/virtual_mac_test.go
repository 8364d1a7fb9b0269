package main_test

import (
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/test/lab"
)

// virtual is one kind of instance with mac: virtual, vhid 9.
type virtual struct {
	device string
	mac    carp.MAC
	shared []netip.Addr
	text   func(rank int) string // the instance; the lower rank is the better one
}

func virtuals() map[string]virtual {
	four, six := carp.MAC{0, 0, 0x5e, 0, 1, 9}, carp.MAC{0, 0, 0x5e, 0, 2, 9}
	vrrp := func(addresses ...string) func(rank int) string {
		return func(rank int) string {
			return router{priority: 200 - rank, addresses: addresses, more: []string{"mac: virtual"}}.text()
		}
	}
	return map[string]virtual{
		"carp": {"carp9", four, []netip.Addr{shared4, shared6}, func(rank int) string {
			return fmt.Sprintf("  - vhid: 9\n    interface: eth0\n    mac: virtual\n    advskew: %d\n    addresses: [192.0.2.50/24, \"2001:db8::50/64\"]\n", rank)
		}},
		"vrrp over IPv4": {"vrrp4-9", four, []netip.Addr{shared4}, vrrp("192.0.2.50/24")},
		"vrrp over IPv6": {"vrrp6-9", six, []netip.Addr{shared6, netip.MustParseAddr("fe80::50")}, vrrp("2001:db8::50/64", "fe80::50/64")},
	}
}

// serve starts a daemon with one instance.
func (n *node) serve(text string) {
	n.t.Helper()
	n.write("instances:\n" + text)
	n.startWith(n.command("run", "--config", n.config()))
}

// serve starts a as master, and b as its backup.
func (p *pair) serve(v virtual) {
	p.a.t.Helper()
	p.a.serve(v.text(0))
	p.a.promote()
	p.b.serve(v.text(100))
	p.b.follows(p.a)
}

// link reports whether an interface is there, and whether it is set up.
func (n *node) link(name string) (there, up bool) {
	n.t.Helper()
	out, err := n.RunErr("ip", "-o", "link", "show", name)
	if err != nil {
		return false, false
	}
	_, flags, _ := strings.Cut(out, "<")
	flags, _, _ = strings.Cut(flags, ">")
	return true, strings.Contains(","+flags+",", ",UP,")
}

// neighbour returns the MAC that a host has for an address, "" if it knows none.
func neighbour(h *lab.Host, addr netip.Addr) string {
	_, mac, _ := strings.Cut(h.Run("ip", "neigh", "show", addr.String(), "dev", "eth0"), "lladdr ")
	mac, _, _ = strings.Cut(mac, " ")
	return mac
}

func TestClientsKeepTheirNeighbourWhenAVirtualMACMoves(t *testing.T) {
	for name, v := range virtuals() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			// What is announced moves the bridge's entry, and none of the client's.
			p.client.Sysctl("ipv4/conf/eth0/drop_gratuitous_arp", "1")
			p.client.Sysctl("ipv6/conf/eth0/drop_unsolicited_na", "1")
			p.serve(v)
			want := fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", v.mac[0], v.mac[1], v.mac[2], v.mac[3], v.mac[4], v.mac[5])
			var asking []*lab.Prober
			for _, addr := range v.shared {
				if !addr.IsLinkLocalUnicast() {
					asking = append(asking, p.client.ProbeEvery(addr, 10*time.Millisecond))
				}
			}
			reached := func(by string) {
				t.Helper()
				mark := time.Now()
				for i, prober := range asking {
					lab.Eventually(t, takeover, fmt.Sprintf("%v to be reached at %s", v.shared[i], by), func() bool { return prober.Answering(mark) })
					if got := neighbour(p.client, v.shared[i]); got != want {
						t.Errorf("at %s the client has %v at %q, want %s", by, v.shared[i], got, want)
					}
				}
			}
			reached("a")
			lab.Eventually(t, soon, "the device of the backup", func() bool { there, _ := p.b.link(v.device); return there })
			if _, up := p.b.link(v.device); up {
				t.Errorf("%s is up on the backup", v.device)
			}
			mark := p.wire.Len()
			p.a.stop()
			p.b.await("MASTER")
			reached("b")
			if _, up := p.b.link(v.device); !up {
				t.Errorf("%s is not up on the master", v.device)
			}
			if there, _ := p.a.link(v.device); there {
				t.Errorf("%s is still on the node that has stopped", v.device)
			}
			for _, f := range p.wire.Packets()[mark:] {
				for _, addr := range v.shared {
					if claims(f, addr) && carp.MAC(f.Data[6:12]) != v.mac {
						t.Errorf("%s says with the MAC %x that it has %v", f.Host, f.Data[6:12], addr)
					}
				}
			}
			p.oneHolder(v.shared...)
		})
	}
}

func TestTwoMastersWithOneVirtualMACHearEachOther(t *testing.T) {
	for name, v := range virtuals() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			p.serve(v)
			p.lan.Partition(p.a.Host, p.b.Host)
			p.b.await("MASTER")
			for _, n := range []*node{p.a, p.b} {
				if _, up := n.link(v.device); !up {
					t.Errorf("%s is not up on %s", v.device, n.Name)
				}
			}
			now := time.Now()
			p.lan.Heal()
			p.b.follows(p.a)
			p.a.await("MASTER")
			lab.Eventually(t, soon, "the device of b to be down", func() bool { _, up := p.b.link(v.device); return !up })
			heard := 0
			for _, f := range p.wire.Packets() {
				var packet carp.Packet
				if f.Time.After(now) && carp.DecodeFrame(f.Data, &packet) == carp.Accepted {
					heard++
					if packet.SrcMAC != v.mac {
						t.Errorf("an advert of %s comes from %x", f.Host, packet.SrcMAC)
					}
				}
			}
			if heard == 0 {
				t.Error("no adverts were captured")
			}
		})
	}
}

func TestDeadMasterOfAVirtualMACAnswersNoMore(t *testing.T) {
	t.Parallel()
	v := virtuals()["carp"]
	p := newPair(t)
	p.serve(v)
	mark, at := p.wire.Len(), time.Now()
	p.a.KillAll()
	taken, ok := p.wire.WaitAfter(mark, takeover, announces("b", shared4))
	if !ok {
		t.Fatal("b never took over")
	}
	for _, addr := range v.shared {
		if gone := p.a.addrs.await(t, at, addr, false, soon); !gone.At.Before(taken.Time) {
			t.Errorf("%v was on the dead node when b announced it", addr)
		}
	}
	// Its device is up, and has the MAC; clients reach b all the same.
	if _, up := p.a.link(v.device); !up {
		t.Error("the device of the dead node is down: who did it?")
	}
	asking, now := p.client.Probe(shared4), time.Now()
	lab.Eventually(t, soon, "the client to reach b", func() bool { return asking.Answering(now) })
	for _, f := range p.wire.Packets() {
		if f.Host == "a" && f.Time.After(taken.Time) && answersFor(f, shared4) {
			t.Errorf("the dead node answered %v after b had announced the address", f.Time.Sub(taken.Time))
		}
	}

	p.a.start(settings{more: []string{"mac: virtual"}, passphrase: "a secret"})
	p.a.await("BACKUP")
	p.a.awaitLog("removed a virtual interface that an earlier run left")
	if _, up := p.a.link(v.device); up {
		t.Error("the device is up on a backup that has just started")
	}
}

func TestCleanupRemovesTheDeviceOfADeadDaemonAndRestoresTheInterface(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	before := p.a.arp()
	p.a.serve(strings.Replace(virtuals()["carp"].text(0), "mac: virtual\n", "mac: virtual\n    lease: off\n", 1))
	p.a.promote()
	if p.a.arp() == before {
		t.Errorf("arp_ignore and arp_announce of eth0 are %q as before", before)
	}
	p.a.fails(p.a.command("cleanup"), 1, "a daemon is running", "eth0/9")
	p.a.KillAll()
	if _, up := p.a.link("carp9"); !up || !p.a.HasAddr(shared4) {
		t.Fatal("the device and its addresses did not outlive a daemon without a lease")
	}
	if out, code := p.a.run("cleanup"); code != 0 || !strings.HasPrefix(out, "removed the virtual interface carp9\n") {
		t.Errorf("cleanup: %d %q", code, out)
	}
	if there, _ := p.a.link("carp9"); there || p.a.HasAddr(shared4) || p.a.HasAddr(shared6) {
		t.Error("something is left")
	}
	if now := p.a.arp(); now != before {
		t.Errorf("arp_ignore and arp_announce of eth0 are %q, and were %q", now, before)
	}
	if out, code := p.a.run("cleanup"); code != 0 || out != "" {
		t.Errorf("a second cleanup: %d %q", code, out)
	}
}

// Somebody deletes the device of a backup, which has no reason to make it again, and
// with it goes what it knew of the interface below. Then the daemon dies.
func TestInterfaceBelowIsRestoredThoughTheDeviceWasDeletedByHandBeforeTheCrash(t *testing.T) {
	t.Parallel()
	v := virtuals()["carp"]
	for name, next := range map[string]func(n *node){
		"cleanup": func(n *node) {
			if out, code := n.run("cleanup"); code != 0 || out != "removed the changes of arp_ignore and arp_announce of eth0\n" {
				t.Errorf("cleanup: %d %q", code, out)
			}
		},
		"the next start, without a virtual MAC": func(n *node) {
			n.start(settings{advskew: 100})
			n.awaitLog("restored arp_ignore and arp_announce, which an earlier run left changed")
		},
		"the next start and stop": func(n *node) {
			n.serve(v.text(100))
			n.await("BACKUP")
			lab.Eventually(n.t, soon, "the device", func() bool { there, _ := n.link(v.device); return there })
			n.endedBy(syscall.SIGTERM)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			before := p.b.arp()
			p.serve(v)
			lab.Eventually(t, soon, "the device of the backup", func() bool { there, _ := p.b.link(v.device); return there })
			p.b.Run("ip", "link", "del", v.device)
			p.b.KillAll()
			if p.b.arp() == before {
				t.Fatalf("arp_ignore and arp_announce of eth0 are %q, as before", before)
			}
			next(p.b)
			if now := p.b.arp(); now != before {
				t.Errorf("arp_ignore and arp_announce of eth0 are %q, and were %q", now, before)
			}
			p.a.await("MASTER")
		})
	}
}

// arp returns what mac: virtual changes of eth0.
func (n *node) arp() string {
	n.t.Helper()
	return n.Run("cat", "/proc/sys/net/ipv4/conf/eth0/arp_ignore", "/proc/sys/net/ipv4/conf/eth0/arp_announce")
}

// Two files give their only instance with a number the same device; the daemons have
// different interfaces, so that their claims do not meet.
func TestSecondDaemonThatWantsTheSameDeviceStealsNothing(t *testing.T) {
	t.Parallel()
	v := virtuals()["carp"]
	p := newPair(t)
	p.serve(v)
	seqA, seqB, at := p.a.seq(), p.b.seq(), time.Now()
	p.a.Run("ip", "link", "add", "eth1", "type", "veth", "peer", "name", "eth1p")
	p.a.Run("ip", "link", "set", "eth1p", "up")
	p.a.Run("ip", "link", "set", "eth1", "up")
	p.a.Run("ip", "addr", "add", "203.0.113.1/24", "dev", "eth1")
	other := p.a.other("interface: eth0", "interface: eth1", "192.0.2.50/24", "203.0.113.50/24", "2001:db8::50/64", "2001:db8:1::50/64",
		p.a.socket(), p.a.socket()+"2")
	second := p.a.Start(p.a.command("run", "--config", other))
	lab.Eventually(t, takeover, "the second daemon to say why it cannot serve", func() bool {
		out := second.Output()
		return strings.Contains(out, "vip: make on carp9: there is an interface already that carpd did not make for this: it is there for 9 on eth0") &&
			strings.Contains(out, "was elected but cannot serve")
	})
	if p.a.HasAddr(netip.MustParseAddr("203.0.113.50")) {
		t.Error("the address of the second daemon is on")
	}
	second.Signal(syscall.SIGTERM)
	if err := second.Wait(takeover); err != nil {
		t.Errorf("the second daemon: %v", err)
	}
	if _, up := p.a.link(v.device); !up || !p.a.HasAddr(shared4) || !p.a.HasAddr(shared6) {
		t.Error("the first daemon lost its device or an address")
	}
	p.undisturbed(at, seqA, seqB)
}

func TestAddressOnTheInterfaceBelowAVirtualMACIsAnAlarm(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	v := virtuals()["carp"]
	p.b.serve(v.text(0))
	p.b.promote()
	p.a.Run("ip", "addr", "add", "192.0.2.50/24", "dev", "eth0")
	p.a.serve(v.text(100))
	p.a.follows(p.b)
	lab.Eventually(t, soon, "an alarm", func() bool { return strings.Contains(p.a.alarm("foreign"), "192.0.2.50/24 is on eth0") })

	// Elected, it refuses to serve, and leaves what is somebody else's.
	p.b.stop()
	lab.Eventually(t, takeover, "a to say that it cannot serve", func() bool { return strings.Contains(p.a.alarm("not-served"), "somebody else") })
	if got := fmt.Sprint(ipv4(p.a)); got != "[192.0.2.1/24 192.0.2.50/24]" {
		t.Errorf("eth0 has %s", got)
	}
	p.a.Run("ip", "addr", "del", "192.0.2.50/24", "dev", "eth0")
	lab.Eventually(t, soon, "the end of the alarm", func() bool { return p.a.alarm("foreign") == "" })
}

func TestSameNumberOnTwoInterfacesHasTwoDevices(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.a.Run("ip", "link", "add", "eth1", "type", "veth", "peer", "name", "eth1p")
	p.a.Run("ip", "link", "set", "eth1p", "up")
	p.a.Run("ip", "link", "set", "eth1", "up")
	first := virtuals()["carp"].text(0)
	second := strings.NewReplacer("eth0", "eth1", "192.0.2.50", "203.0.113.50", "2001:db8::50", "2001:db8:1::50").Replace(first)
	p.a.serve(first + second)
	p.a.awaitNamed("9@eth0", "MASTER")
	p.a.awaitNamed("9@eth1", "MASTER")
	for device, addr := range map[string]string{"carp9": "192.0.2.50", "carp9.eth1": "203.0.113.50"} {
		found := false
		for _, have := range p.a.Addrs(device) {
			found = found || have.Addr().String() == addr
		}
		if !found {
			t.Errorf("%s has %v, want %s", device, p.a.Addrs(device), addr)
		}
	}
	p.a.endedBy(syscall.SIGTERM)
	for _, device := range []string{"carp9", "carp9.eth1"} {
		if there, _ := p.a.link(device); there {
			t.Errorf("%s is still there", device)
		}
	}
}

// TestLeaseOfAVirtualMACSilencesADeadMaster: neither a guardian nor a fence is there to
// help, and the instance's service is asked all the time, by neighbours who forget.
func TestLeaseOfAVirtualMACSilencesADeadMaster(t *testing.T) {
	t.Parallel()
	v := virtuals()["carp"]
	for fault, do := range map[string]func(*node){
		"killed": func(n *node) { n.proc.Kill() },
		"frozen": func(n *node) { n.proc.Signal(syscall.SIGSTOP) },
	} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			for rank, n := range []*node{p.a, p.b} {
				n.write("guardian: off\ninstances:\n" + v.text(0))
				n.startWith(n.command("run", "--config", n.config()))
				if rank == 0 {
					n.promote()
				}
				for _, addr := range v.shared {
					n.Serve(addr)
				}
			}
			p.b.follows(p.a)
			if i := p.a.instance(); i.Fence != nil && i.Fence.On {
				t.Fatalf("a fence is on: %+v", i.Fence)
			}
			asking := []*lab.Prober{p.asking(t, shared4), p.client.Probe(shared6)} // all of them forget their neighbours
			for _, addr := range v.shared {
				asking = append(asking, p.client.ProbeUDP(addr))
			}
			answered := func(by string, mark time.Time) {
				t.Helper()
				for i, probe := range asking {
					lab.Eventually(t, takeover, fmt.Sprintf("an answer of %s to prober %d", by, i), func() bool { return probe.Answering(mark) })
				}
			}
			answered("a", time.Now())
			mark, at := p.wire.Len(), time.Now()
			do(p.a)
			taken, ok := p.wire.WaitAfter(mark, takeover, announces("b", shared4))
			if !ok {
				t.Fatal("b never took over")
			}
			answered("b", time.Now())
			if fault == "frozen" {
				p.a.proc.Signal(syscall.SIGCONT)
				p.a.await("BACKUP")
			}
			for _, addr := range v.shared {
				last := lastAnswer(p.wire, "a", addr)
				t.Logf("%v: the dead node's last answer %v after the fault, b's first %v later", addr, last.Sub(at), taken.Time.Sub(last))
				if !last.Before(taken.Time) {
					t.Errorf("%v was answered for %v after b had announced it", addr, last.Sub(taken.Time))
				}
			}
			p.oneHolder(v.shared...)
		})
	}
}

// The device goes, and cannot be made again: a master that serves nothing must not stay.
func TestMasterWhoseDeviceCannotComeBackGivesUp(t *testing.T) {
	t.Parallel()
	v := virtuals()["carp"]
	for name, do := range map[string]func(n *node){
		// Under its other name it has the MAC still.
		"renamed by somebody": func(n *node) { n.Run("ip", "link", "set", v.device, "name", "stolen0") },
		"its name is somebody else's": func(n *node) {
			n.Run("ip", "link", "add", "other0", "type", "veth", "peer", "name", "other0p")
			n.Run("ip", "link", "set", v.device, "name", "stolen0") // deleted it would be back before the name is taken
			n.Run("ip", "link", "set", "other0", "name", v.device)
			n.Run("ip", "link", "del", "stolen0")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			p.serve(v)
			asking := p.client.Probe(shared4)
			lab.Eventually(t, soon, "a to answer", func() bool { return asking.Answering(asking.Mark().Add(-20 * time.Millisecond)) })
			mark, seq, at := p.wire.Len(), p.a.seq(), time.Now()
			do(p.a)
			taken, ok := p.wire.WaitAfter(mark, takeover, announces("b", shared4))
			if !ok {
				t.Fatal("b never took over")
			}
			t.Logf("b took over %v after the deed", taken.Time.Sub(at))
			if e := p.a.awaitEvent(seq, "transition", "failed"); e.To != "BACKUP" {
				t.Errorf("a went to %s", e.To)
			}
			lab.Eventually(t, soon, "b to answer", func() bool { return asking.Answering(taken.Time) })
			if i := p.a.await("BACKUP"); i.EffectiveAdvSkew != 240 || !strings.Contains(p.a.alarm("not-served"), "cannot put them back") {
				t.Errorf("a has advskew %d and the alarm %q; want it demoted, and told", i.EffectiveAdvSkew, p.a.alarm("not-served"))
			}
			p.oneHolder(v.shared...)
			// b stays, and a does not try again at once though it was the better one.
			seqB := p.b.seq()
			lab.Eventually(t, takeover, "four more adverts of b", func() bool { return len(adverts(p.wire, "b", 9, taken.Time)) > 4 })
			if moved := p.b.transitions(seqB); len(moved) > 0 {
				t.Errorf("b moved: %+v", moved)
			}
		})
	}
}
