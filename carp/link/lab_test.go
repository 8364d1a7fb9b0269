package link_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/carp/carptest"
	"github.com/carpd/carpd/carp/link"
	"github.com/carpd/carpd/test/lab"
)

const (
	vhid = carptest.ConformanceVHID
	wait = 5 * time.Second

	// helperEnv makes the test binary hold a vhid on eth0 until it is killed.
	helperEnv = "CARPD_LINK_TEST_HOLD"
)

var (
	group4 = netip.MustParseAddr("224.0.0.18")
	group6 = netip.MustParseAddr("ff02::12")
	addrA  = netip.MustParseAddr("192.0.2.1")
	addrB  = netip.MustParseAddr("192.0.2.2")
	addrA6 = netip.MustParseAddr("2001:db8::1")
	addrB6 = netip.MustParseAddr("2001:db8::2")
	both   = link.PortConfig{VHID: vhid, IPv4: true, IPv6: true}
)

func TestMain(m *testing.M) {
	if os.Getenv(helperEnv) != "" {
		hold()
	}
	lab.Main(m)
}

// hold is the other process of the tests of exclusion.
func hold() {
	if os.Getenv(helperEnv) == "squat" {
		_, err := net.Listen("unix", "@carpd/eth0/9")
		fmt.Println("squats:", err)
		select {}
	}
	i, err := link.Open("eth0", link.Options{})
	if err == nil {
		_, err = i.Attach(both)
	}
	fmt.Println("held:", err)
	select {}
}

func hosts(t testing.TB) (lan *lab.LAN, a, b *lab.Host) {
	lan = lab.New(t)
	a, b = lan.Host("a", "192.0.2.1/24", "2001:db8::1/64"), lan.Host("b", "192.0.2.2/24", "2001:db8::2/64")
	for _, h := range []*lab.Host{a, b} {
		lab.Eventually(t, wait, "a link-local address", func() bool {
			return strings.Contains(h.Run("ip", "-6", "addr", "show", "dev", "eth0", "scope", "link", "-tentative"), "fe80")
		})
	}
	return lan, a, b
}

func open(t testing.TB, h *lab.Host) *link.Interface {
	t.Helper()
	var i *link.Interface
	err := h.DoErr(func() (err error) {
		i, err = link.Open("eth0", link.Options{})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { i.Close() })
	return i
}

func attach(t testing.TB, h *lab.Host, i *link.Interface, config link.PortConfig) carp.Link {
	t.Helper()
	var l carp.Link
	err := h.DoErr(func() (err error) {
		l, err = i.Attach(config)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// next returns the next event that is no packet, or the next that is one.
func next(t testing.TB, l carp.Link, packet bool) carp.LinkEvent {
	t.Helper()
	deadline := time.After(wait)
	for {
		select {
		case e, ok := <-l.Events():
			if !ok {
				t.Fatal("events ended")
			}
			if (e.Packet != nil) == packet {
				return e
			}
		case <-deadline:
			t.Fatalf("no event within %v", wait)
		}
	}
}

func awaitUp(t testing.TB, l carp.Link, want func(carp.Local) bool) carp.Local {
	t.Helper()
	for {
		if e := next(t, l, false); e.Up != nil && want(*e.Up) {
			return *e.Up
		}
	}
}

func awaitDown(t testing.TB, l carp.Link) {
	t.Helper()
	for !next(t, l, false).Down {
	}
}

func complete(l carp.Local) bool { return l.IPv4.IsValid() && l.IPv6.IsValid() }

func advert(n byte) []byte {
	b := make([]byte, 36)
	b[0], b[1], b[35] = 0x21, vhid, n
	return b
}

func send(t testing.TB, l carp.Link, dst netip.Addr, n byte) {
	t.Helper()
	if err := l.Send(carp.Frame{VHID: vhid, Dst: dst, Payload: advert(n)}); err != nil {
		t.Fatal(err)
	}
}

func TestLabConformance(t *testing.T) {
	carptest.Conformance(t, func(t *testing.T) (carp.Link, carp.Link) {
		_, a, b := hosts(t)
		return attach(t, a, open(t, a), both), attach(t, b, open(t, b), both)
	})
}

// Conformance lets a link do without.
func TestLabPacketsCarryTheKernelsStamp(t *testing.T) {
	_, a, b := hosts(t)
	sender, receiver := attach(t, a, open(t, a), both), attach(t, b, open(t, b), both)
	awaitUp(t, sender, complete)
	awaitUp(t, receiver, complete)
	for n := range byte(3) {
		before := link.Now()
		send(t, sender, group4, n)
		if at := next(t, receiver, true).Packet.At; at < before.Add(-time.Second) || at > link.Now() {
			t.Errorf("packet %d arrived at %d, was sent at %d and read by %d", n, at, before, link.Now())
		}
	}
}

func TestLabInterfaceAbsentAtStartIsUsedWhenItAppears(t *testing.T) {
	_, a, b := hosts(t)
	b.DeleteLink()
	sender, receiver := attach(t, a, open(t, a), both), attach(t, b, open(t, b), both)
	if e := next(t, receiver, false); !e.Down {
		t.Fatalf("first event %+v, want Down", e)
	}
	if err := receiver.Send(carp.Frame{Dst: group4, Payload: advert(0)}); !errors.Is(err, link.ErrDown) {
		t.Errorf("send on an absent interface: %v, want ErrDown", err)
	}
	b.RecreateLink()
	awaitUp(t, receiver, complete)
	exchange(t, sender, receiver)
}

// heard sends number n until the receiver hears it: a switch takes a moment to
// forward to a port whose carrier came back. Nothing else may arrive.
func heard(t testing.TB, from, to carp.Link, n byte) {
	t.Helper()
	lab.Eventually(t, wait, fmt.Sprintf("number %d", n), func() bool {
		send(t, from, group4, n)
		for {
			select {
			case e := <-to.Events():
				if e.Packet == nil {
					continue
				}
				if e.Packet.Payload[35] != n {
					t.Fatalf("number %d arrived, want %d", e.Packet.Payload[35], n)
				}
				return true
			default:
				return false
			}
		}
	})
}

// exchange sends an advert each way, on both families.
func exchange(t testing.TB, a, b carp.Link) {
	t.Helper()
	for n, dst := range []netip.Addr{group4, group6} {
		send(t, a, dst, byte(n+1))
		if p := next(t, b, true).Packet; p.Dst != dst || p.Payload[35] != byte(n+1) {
			t.Fatalf("got %+v, want number %d to %v", p, n+1, dst)
		}
		send(t, b, dst, byte(n+11))
		if p := next(t, a, true).Packet; p.Dst != dst || p.Payload[35] != byte(n+11) {
			t.Fatalf("got %+v, want number %d to %v", p, n+11, dst)
		}
	}
}

func TestLabInterfaceRecreatedIsTheSameLink(t *testing.T) {
	_, a, b := hosts(t)
	sender, receiver := attach(t, a, open(t, a), both), attach(t, b, open(t, b), both)
	awaitUp(t, receiver, complete)
	for range 2 {
		b.DeleteLink()
		awaitDown(t, receiver)
		b.RecreateLink()
		awaitUp(t, receiver, complete)
		exchange(t, sender, receiver)
		awaitMember(t, b, true)
	}
}

func TestLabInterfaceReplacedUnderTheSameIndexIsNoticed(t *testing.T) {
	_, _, b := hosts(t)
	receiver := attach(t, b, open(t, b), both)
	awaitUp(t, receiver, complete)
	index := strings.SplitN(b.Run("ip", "-o", "link", "show", "eth0"), ":", 2)[0]
	// One run, so that the notes of both come together.
	b.Run("sh", "-c", "ip link del eth0; ip link add name eth0 index "+index+" type veth peer name other && ip link set other up && ip link set eth0 up && ip addr add 192.0.2.77/24 dev eth0")
	awaitDown(t, receiver)
	awaitUp(t, receiver, func(l carp.Local) bool { return l.IPv4 == netip.MustParseAddr("192.0.2.77") })
	awaitMember(t, b, true)
	if err := receiver.Send(carp.Frame{Dst: group4, Payload: advert(1)}); err != nil {
		t.Errorf("send on the new interface: %v", err)
	}
}

func TestLabInterfaceIsFollowedByItsName(t *testing.T) {
	_, a, b := hosts(t)
	sender, i := attach(t, a, open(t, a), both), open(t, b)
	receiver := attach(t, b, i, both)
	awaitUp(t, receiver, complete)
	b.Run("sh", "-c", "ip link set eth0 down && ip link set eth0 name old0 && ip link set old0 up")
	awaitDown(t, receiver)
	lab.Eventually(t, wait, "frames of the renamed interface to be refused", func() bool {
		send(t, sender, group4, 1)
		return i.Stats().Foreign > 0
	})
	b.Run("sh", "-c", "ip link set old0 down && ip link set old0 name eth0 && ip link set eth0 up")
	awaitUp(t, receiver, func(l carp.Local) bool { return l.IPv4.IsValid() })
	heard(t, sender, receiver, 2) // and not number 1: nothing is delivered under another name
}

func TestLabDownAndUpAreSeen(t *testing.T) {
	_, a, b := hosts(t)
	sender, receiver := attach(t, a, open(t, a), both), attach(t, b, open(t, b), both)
	awaitUp(t, receiver, complete)
	for _, fault := range []struct {
		name       string
		begin, end func()
	}{
		{"administratively", func() { b.SetLink(false) }, func() { b.SetLink(true) }},
		{"by carrier", b.Unplug, b.Plug},
	} {
		t.Run(fault.name, func(t *testing.T) {
			fault.begin()
			awaitDown(t, receiver)
			if err := receiver.Send(carp.Frame{Dst: group4, Payload: advert(0)}); !errors.Is(err, link.ErrDown) {
				t.Errorf("send: %v, want ErrDown", err)
			}
			fault.end()
			awaitUp(t, receiver, func(l carp.Local) bool { return l.IPv4.IsValid() })
			heard(t, sender, receiver, 7)
		})
	}
}

func TestLabOwnAddressesAreFollowed(t *testing.T) {
	lan := lab.New(t)
	h := lan.Host("a", "192.0.2.100/32", "192.0.2.1/24", "2001:db8::100/128")
	i := open(t, h)
	vip := netip.MustParseAddr("192.0.2.100")
	config := both
	config.Avoid = []netip.Addr{vip, netip.MustParseAddr("2001:db8::100")}
	l := attach(t, h, i, config)
	// The link-local address appears with the carrier, perhaps later than we look.
	local := awaitUp(t, l, func(l carp.Local) bool { return l.IPv6.IsLinkLocalUnicast() })
	if local.IPv4 != addrA {
		t.Errorf("adverts come from %v, want %v", local.IPv4, addrA)
	}
	h.Run("ip", "addr", "del", "192.0.2.1/24", "dev", "eth0")
	awaitUp(t, l, func(l carp.Local) bool { return l.IPv4 == vip })
	h.Run("ip", "addr", "add", "192.0.2.3/24", "dev", "eth0")
	awaitUp(t, l, func(l carp.Local) bool { return l.IPv4 == netip.MustParseAddr("192.0.2.3") })
	i.SetAvoid(l, []netip.Addr{netip.MustParseAddr("192.0.2.3")})
	awaitUp(t, l, func(l carp.Local) bool { return l.IPv4 == vip })
	h.Run("ip", "addr", "flush", "dev", "eth0")
	awaitUp(t, l, func(l carp.Local) bool { return !l.IPv4.IsValid() && !l.IPv6.IsValid() })
	send(t, l, group4, 1) // from 0.0.0.0
}

// awaitMember waits for the interface to be in both groups, or in none.
func awaitMember(t testing.TB, h *lab.Host, want bool) {
	t.Helper()
	lab.Eventually(t, wait, fmt.Sprintf("membership %v", want), func() bool {
		// ip maddr lists the kernel's memberships, by number of users too.
		list := h.Run("ip", "maddr", "show", "dev", "eth0")
		return strings.Contains(list, "224.0.0.18") == want && strings.Contains(list, "ff02::12") == want
	})
}

func TestLabGroupsAreJoinedWhileAPortNeedsThem(t *testing.T) {
	_, a, _ := hosts(t)
	i := open(t, a)
	awaitMember(t, a, false)
	l := attach(t, a, i, both)
	awaitMember(t, a, true)
	l.Close()
	awaitMember(t, a, false)
	attach(t, a, i, both)
	awaitMember(t, a, true)
	i.Close()
	awaitMember(t, a, false)
}

func TestLabVHIDIsExclusive(t *testing.T) {
	_, a, b := hosts(t)
	i := open(t, a)
	first := attach(t, a, i, both)
	busy := func(what string, pid int) {
		t.Helper()
		err := a.DoErr(func() error { _, err := open(t, a).Attach(both); return err })
		var e *link.BusyError
		if !errors.As(err, &e) || e.PID != pid || e.VHID != vhid || e.Interface != "eth0" {
			t.Fatalf("%s: %v, want a BusyError of process %d", what, err, pid)
		}
		if want := fmt.Sprintf("link: attach vhid 9 on eth0: already in use by process %d (", pid); !strings.HasPrefix(e.Error(), want) {
			t.Errorf("%s: message %q", what, e)
		}
	}
	busy("same process", os.Getpid())
	attach(t, b, open(t, b), both) // another host is another matter
	other := both
	other.VHID++
	attach(t, a, i, other)
	first.Close()

	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), helperEnv+"=1")
	p := a.Start(cmd)
	lab.Eventually(t, wait, "the other process to hold the vhid", func() bool { return strings.Contains(p.Output(), "held: <nil>") })
	busy("other process", cmd.Process.Pid)
	if got := held(a); fmt.Sprint(got) != "[eth0/9 eth0/10]" {
		t.Errorf("held are %v", got)
	}
	p.Kill()
	if got := held(a); fmt.Sprint(got) != "[eth0/10]" {
		t.Errorf("held are %v after the other process died", got)
	}
	attach(t, a, i, both)
}

func held(h *lab.Host) (claims []link.Claim) {
	_ = h.DoErr(func() error { claims = link.Held(); return nil })
	return claims
}

// Every user can bind the name. Who cannot move addresses is no daemon.
func TestLabAnotherUserKeepsNoCleanupFromRunningAndIsNamed(t *testing.T) {
	if m, err := os.ReadFile("/proc/self/uid_map"); err != nil || len(strings.Fields(string(m))) != 3 || strings.Fields(string(m))[2] == "1" {
		t.Skip("there are no other users in this user namespace")
	}
	for name, c := range map[string]struct {
		attr   syscall.SysProcAttr
		daemon bool
	}{
		"no privileges": {attr: syscall.SysProcAttr{}},
		"privileges of its own making": {attr: syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER,
			Credential:  &syscall.Credential{}, // root there
			UidMappings: []syscall.SysProcIDMap{{HostID: 65534, Size: 1}}, GidMappings: []syscall.SysProcIDMap{{HostID: 65534, Size: 1}},
		}},
		"the privileges of a daemon": {attr: syscall.SysProcAttr{AmbientCaps: []uintptr{unix.CAP_NET_ADMIN}}, daemon: true},
		"a privilege that is no use": {attr: syscall.SysProcAttr{AmbientCaps: []uintptr{unix.CAP_NET_RAW}}},
	} {
		t.Run(name, func(t *testing.T) {
			_, a, _ := hosts(t)
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = append(os.Environ(), helperEnv+"=squat")
			cmd.SysProcAttr = &c.attr
			if c.attr.Credential == nil {
				c.attr.Credential = &syscall.Credential{Uid: 65534, Gid: 65534}
			}
			p := a.Start(cmd)
			lab.Eventually(t, wait, "the other user to bind the name", func() bool { return strings.Contains(p.Output(), "squats: <nil>") })
			if got, want := fmt.Sprint(held(a)), map[bool]string{false: "[]", true: "[eth0/9]"}[c.daemon]; got != want {
				t.Errorf("held are %s, want %s", got, want)
			}
			err := a.DoErr(func() error { _, err := open(t, a).Attach(both); return err })
			var e *link.BusyError
			if !errors.As(err, &e) || e.Foreign == c.daemon || e.PID != cmd.Process.Pid || e.UID != 65534 {
				t.Fatalf("got %v, want the other user named", err)
			}
			if want := fmt.Sprintf("process %d of user id 65534", e.PID); strings.Contains(e.Error(), want) == c.daemon {
				t.Errorf("message %q", e)
			}
		})
	}
}

func TestLabPollBesideTheReaderNeitherLosesNorDoublesAPacket(t *testing.T) {
	_, a, b := hosts(t)
	sender := attach(t, a, open(t, a), link.PortConfig{VHID: 9, IPv4: true})
	port := attach(t, b, open(t, b), link.PortConfig{VHID: 9, IPv4: true})
	isUp := func(carp.Local) bool { return true }
	awaitUp(t, sender, isUp)
	awaitUp(t, port, isUp)
	poller, ok := port.(carp.Poller)
	if !ok {
		t.Fatal("a port is no carp.Poller")
	}
	for range 50 { // whoever is first, the reader or Poll, each arrives once
		if err := sender.Send(carp.Frame{VHID: 9, Dst: carp.Group(carp.IPv4), Payload: advert(9)}); err != nil {
			t.Fatal(err)
		}
		poller.Poll()
		next(t, port, true)
	}
	select {
	case ev := <-port.Events():
		t.Errorf("one too many: %+v", ev)
	default:
	}
}
