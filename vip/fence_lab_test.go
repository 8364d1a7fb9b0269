package vip_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/test/lab"
	"github.com/carpd/carpd/vip"
	"github.com/carpd/carpd/vip/viptest"
)

// fenceOn opens a fence on a host, closed at the end of the test.
func fenceOn(t testing.TB, h *lab.Host, open func() (vip.Fence, error)) vip.Fence {
	t.Helper()
	var f vip.Fence
	if err := h.DoErr(func() (err error) { f, err = open(); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// echo answers UDP on port 7 of an address of a host.
func echo(t testing.TB, h *lab.Host, addr string) {
	t.Helper()
	var c *net.UDPConn
	err := h.DoErr(func() (err error) {
		c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at(addr, 7)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		for buf := make([]byte, 64); ; {
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				_, _ = c.WriteToUDPAddrPort(buf[:n], from)
			}
		}
	}()
}

func at(addr string, port uint16) netip.AddrPort {
	a := netip.MustParseAddr(addr)
	if a.IsLinkLocalUnicast() && a.Is6() {
		a = a.WithZone("eth0")
	}
	return netip.AddrPortFrom(a, port)
}

// answers reports whether a host gets an answer of an address, with what it knows of its
// neighbours forgotten first.
func answers(t testing.TB, from *lab.Host, addr string) bool {
	t.Helper()
	from.Run("ip", "neigh", "flush", "dev", "eth0")
	var c *net.UDPConn
	err := from.DoErr(func() (err error) {
		c, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(at(addr, 7)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 4 {
		if _, err := c.Write([]byte("?")); err != nil {
			continue // unreachable, says an earlier try
		}
		_ = c.SetReadDeadline(time.Now().Add(40 * time.Millisecond))
		if _, err := c.Read(make([]byte, 64)); err == nil {
			return true
		}
	}
	return false
}

func TestLabFenceConforms(t *testing.T) {
	for name, open := range map[string]func() (vip.Fence, error){"guarded": vip.OpenFence, "watched": vip.OpenWatchedFence} {
		t.Run(name, func(t *testing.T) {
			viptest.FenceConformance(t, func(t *testing.T) viptest.FenceSubject {
				lan := lab.New(t)
				a := lan.Host("a", "192.0.2.1/24", "192.0.2.9/32", "2001:db8::1/64", "2001:db8::9/128", "fe80::9/64")
				client := lan.Host("client", "192.0.2.3/24", "2001:db8::3/64")
				f := fenceOn(t, a, open)
				if f.Guarded() && name == "watched" {
					t.Error("the fence is guarded")
				}
				for _, addr := range viptest.FenceAddrs() {
					echo(t, a, addr)
				}
				return viptest.FenceSubject{Fence: f, Passes: func(addr string) bool { return answers(t, client, addr) }}
			})
		})
	}
}

// guardedOn opens a fence that others cannot change, or skips the test.
func guardedOn(t *testing.T, h *lab.Host) vip.Fence {
	t.Helper()
	f := fenceOn(t, h, vip.OpenFence)
	if !f.Guarded() {
		t.Skip("tables have no owner here, or go with it (Linux before 6.9)")
	}
	return f
}

var vips = addrsOf(vip9, vip96)

func addrsOf(words ...string) (out []netip.Addr) {
	for _, w := range words {
		out = append(out, netip.MustParseAddr(w))
	}
	return out
}

func TestLabGuardedFenceSurvivesAForeignFlush(t *testing.T) {
	lan := lab.New(t)
	a := lan.Host("a", "192.0.2.1/24", "192.0.2.9/32")
	client := lan.Host("client", "192.0.2.3/24")
	f := guardedOn(t, a)
	echo(t, a, vip9)
	if err := f.Protect(1, []string{"eth0"}, vips); err != nil {
		t.Fatal(err)
	}
	a.Run("nft", "flush", "ruleset")
	for _, change := range [][]string{{"delete", "table", "inet", "carpd"}, {"flush", "set", "inet", "carpd", "live"}, {"flush", "chain", "inet", "carpd", "leaving"}} {
		if out, err := a.RunErr(append([]string{"nft"}, change...)...); err == nil {
			t.Errorf("nft %v was done: %s", change, out)
		}
	}
	if answers(t, client, vip9) {
		t.Error("open after the flush")
	}
	if list := a.Run("nft", "list", "ruleset"); !strings.Contains(list, "table inet carpd") || !strings.Contains(list, "table arp carpd") {
		t.Errorf("nft lists:\n%s", list)
	}
}

// Where tables have no owner somebody may flush them: they are there again at once.
func TestLabWatchedFenceIsMadeAnewAfterAForeignFlush(t *testing.T) {
	for name, by := range map[string][]string{
		"flush ruleset": {"flush", "ruleset"}, "table deleted": {"delete", "table", "inet", "carpd"},
		"chain flushed": {"flush", "chain", "inet", "carpd", "arriving"}, "addresses flushed": {"flush", "map", "inet", "carpd", "ours4"},
	} {
		t.Run(name, func(t *testing.T) {
			lan := lab.New(t)
			a := lan.Host("a", "192.0.2.1/24", "2001:db8::1/64")
			client := lan.Host("client", "192.0.2.3/24", "2001:db8::3/64")
			n := fencedNode(t, a, fenceOn(t, a, vip.OpenWatchedFence))
			n.up(time.Minute)
			echo(t, a, vip9)
			a.Run(append([]string{"nft"}, by...)...)
			lab.Eventually(t, time.Second, "the fence to be told lost", func() bool { return n.lostFence() > 0 })
			lab.Eventually(t, time.Second, "an answer", func() bool { return answers(t, client, vip9) })
			n.set.Permit(carp.Permit{Epoch: 1, Until: bootTime().Add(50 * time.Millisecond)})
			lab.Eventually(t, time.Second, "the fence to be closed", func() bool { return !answers(t, client, vip9) })
			if told := n.lostFence(); told > 2 { // the kernel's notices of one flush may come in two parts
				t.Errorf("told %d times", told)
			}
			if list := a.Run("nft", "list", "ruleset"); strings.Count(list, "table ") != 2 {
				t.Errorf("nft lists:\n%s", list)
			}
		})
	}
}

// fencedNode is a node behind a fence, with its gates.
func fencedNode(t testing.TB, h *lab.Host, f vip.Fence) *gatedNode {
	t.Helper()
	n := &gatedNode{told: make(chan vip.GatesEvent, 100)}
	gates := vip.NewGates(f, nil, func(e vip.GatesEvent) { n.told <- e })
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); gates.Run(ctx) }()
	t.Cleanup(func() { stop(); <-done })
	n.node = newNode(t, h, vip.Config{Addresses: prefixesOf(vip9+"/24", vip96+"/64"), Fence: gates})
	return n
}

type gatedNode struct {
	*node
	told chan vip.GatesEvent
}

func (n *gatedNode) lostFence() int { return len(n.told) }

func TestLabTwoFencesOfOneHostDoNotDisturbEachOther(t *testing.T) {
	for name, open := range map[string]func() (vip.Fence, error){"guarded": vip.OpenFence, "watched": vip.OpenWatchedFence} {
		t.Run(name, func(t *testing.T) {
			lan := lab.New(t)
			a := lan.Host("a", "192.0.2.1/24", "192.0.2.9/32", "192.0.2.10/32")
			client := lan.Host("client", "192.0.2.3/24")
			one, two := fenceOn(t, a, open), fenceOn(t, a, open)
			echo(t, a, vip9)
			echo(t, a, "192.0.2.10")
			for f, addr := range map[vip.Fence]string{one: vip9, two: "192.0.2.10"} {
				if err := f.Protect(1, []string{"eth0"}, addrsOf(addr)); err != nil {
					t.Fatal(err)
				}
			}
			if err := errors.Join(one.Stage([]vip.Stage{{Tag: 1, Life: time.Minute}}), one.Set([]vip.Point{{Mark: 1, Tag: 1}})); err != nil {
				t.Fatal(err)
			}
			if !answers(t, client, vip9) || answers(t, client, "192.0.2.10") {
				t.Error("the one that is open is closed, or the other way round")
			}
			a.Do(func() { // where the other one says that it lives
				if stale, err := one.RemoveStale(); err != nil || len(stale) != 0 {
					t.Errorf("RemoveStale: %v, %v, want nothing", stale, err)
				}
			})
			if err := one.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
			if answers(t, client, "192.0.2.10") {
				t.Error("the other one is open when the first is removed")
			}
		})
	}
}

func TestLabFenceLeavesTablesOfOthersAlone(t *testing.T) {
	lan := lab.New(t)
	a := lan.Host("a", "192.0.2.1/24")
	const theirs = "table inet filter {\n\tset s {\n\t\ttype ipv4_addr\n\t\telements = { 198.51.100.1 }\n\t}\n\n\tchain input {\n\t\ttype filter hook input priority filter; policy accept;\n\t\tip saddr @s counter packets 0 bytes 0 drop\n\t}\n}\n" +
		"table ip carpd-of-somebody {\n\tchain x {\n\t}\n}\n"
	file := t.TempDir() + "/rules"
	if err := os.WriteFile(file, []byte(theirs), 0o600); err != nil {
		t.Fatal(err)
	}
	a.Run("nft", "-f", file)
	before := a.Run("nft", "list", "ruleset")
	f := fenceOn(t, a, vip.OpenFence)
	for i := range 5 {
		err := errors.Join(f.Protect(1, []string{"eth0"}, vips[:1+i%2]), f.Stage([]vip.Stage{{Tag: uint32(i + 1), Life: time.Minute}}),
			f.Set([]vip.Point{{Mark: 1, Tag: uint32(i + 1)}}), f.Restore())
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.RemoveStale(); err != nil {
		t.Errorf("RemoveStale: %v", err)
	}
	if during := a.Run("nft", "list", "ruleset"); !strings.Contains(during, strings.TrimSpace(theirs[:strings.Index(theirs, "table ip ")])) {
		t.Errorf("with the fence:\n%s", during)
	}
	if err := f.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if after := a.Run("nft", "list", "ruleset"); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// A backup uses the address at the master, and forwards to it, while its own gate is
// closed.
func TestLabClosedFenceLetsThisHostBeAClientAndARouter(t *testing.T) {
	lan := lab.New(t)
	a := lan.Host("a", "192.0.2.1/24", "192.0.2.9/32", "2001:db8::1/64", "2001:db8::9/128")
	b := lan.Host("b", "192.0.2.2/24", "2001:db8::2/64", "198.51.100.2/24")
	c := lan.Host("c", "198.51.100.3/24")
	f := fenceOn(t, b, vip.OpenFence)
	if err := f.Protect(1, []string{"eth0"}, vips); err != nil {
		t.Fatal(err)
	}
	echo(t, a, vip9)
	echo(t, a, vip96)
	for _, addr := range []string{vip9, vip96} {
		if !answers(t, b, addr) {
			t.Errorf("no answer of %s to the backup", addr)
		}
	}
	b.Sysctl("ipv4/ip_forward", "1")
	b.Sysctl("ipv4/conf/all/send_redirects", "0")
	b.Sysctl("ipv4/conf/eth0/send_redirects", "0")
	c.Run("ip", "route", "add", "192.0.2.0/24", "via", "198.51.100.2")
	a.Run("ip", "route", "add", "198.51.100.0/24", "via", "192.0.2.2")
	if !answers(t, c, vip9) {
		t.Error("no answer through the backup")
	}
}

// What another table's address translation would send elsewhere is cut too.
func TestLabClosedFenceCutsTranslatedFlows(t *testing.T) {
	lan := lab.New(t)
	a := lan.Host("a", "192.0.2.1/24", "192.0.2.9/32", "198.51.100.1/24")
	client := lan.Host("client", "192.0.2.3/24")
	server := lan.Host("server", "198.51.100.4/24")
	a.Sysctl("ipv4/ip_forward", "1")
	server.Run("ip", "route", "add", "192.0.2.0/24", "via", "198.51.100.1")
	a.Run("nft", "add", "table", "ip", "nat")
	a.Run("nft", "add", "chain", "ip", "nat", "pre", "{ type nat hook prerouting priority dstnat; }")
	a.Run("nft", "add", "rule", "ip", "nat", "pre", "ip", "daddr", vip9, "udp", "dport", "7", "dnat", "to", "198.51.100.4:7")
	echo(t, server, "198.51.100.4")
	if !answers(t, client, vip9) {
		t.Fatal("no answer before the fence")
	}
	f := fenceOn(t, a, vip.OpenFence)
	if err := f.Protect(1, []string{"eth0"}, vips); err != nil {
		t.Fatal(err)
	}
	client.Run("ip", "neigh", "replace", vip9, "lladdr", "02:00:00:00:00:01", "dev", "eth0") // who knows the MAC does not ask
	if answers(t, client, vip9) {
		t.Error("an answer through a closed fence")
	}
	if err := errors.Join(f.Stage([]vip.Stage{{Tag: 1, Life: time.Minute}}), f.Set([]vip.Point{{Mark: 1, Tag: 1}})); err != nil {
		t.Fatal(err)
	}
	if !answers(t, client, vip9) {
		t.Error("no answer through an open fence")
	}
}

func TestLabEstablishedFlowsAreCutWhenTheFenceCloses(t *testing.T) {
	for _, addr := range []string{vip9, vip96} {
		t.Run(addr, func(t *testing.T) {
			lan := lab.New(t)
			a := lan.Host("a", "192.0.2.1/24", "192.0.2.9/32", "2001:db8::1/64", "2001:db8::9/128")
			client := lan.Host("client", "192.0.2.3/24", "2001:db8::3/64")
			f := fenceOn(t, a, vip.OpenFence)
			if err := errors.Join(f.Protect(1, []string{"eth0"}, vips), f.Stage([]vip.Stage{{Tag: 1, Life: time.Minute}}), f.Set([]vip.Point{{Mark: 1, Tag: 1}})); err != nil {
				t.Fatal(err)
			}
			up, down := stream(t, a, client, addr)
			lab.Eventually(t, 2*time.Second, "data both ways", func() bool { return up.count() > 20 && down.count() > 20 })
			if err := f.Set([]vip.Point{{Mark: 1}}); err != nil {
				t.Fatal(err)
			}
			closed := time.Now()
			<-time.After(200 * time.Millisecond) // a time in which nothing may come
			for name, d := range map[string]*flow{"to the server": up, "to the client": down} {
				if last := d.lastAt(); last.Sub(closed) > 5*time.Millisecond {
					t.Errorf("%s: data %v after the fence was closed", name, last.Sub(closed))
				}
			}
			if err := errors.Join(f.Stage([]vip.Stage{{Tag: 2, Life: time.Minute}}), f.Set([]vip.Point{{Mark: 1, Tag: 2}})); err != nil {
				t.Fatal(err)
			}
			n := up.count()
			lab.Eventually(t, 3*time.Second, "the flow to go on when it is open again", func() bool { return up.count() > n })
		})
	}
}

func TestLabNoFenceWithoutTheCapability(t *testing.T) {
	lan := lab.New(t)
	a := lan.Host("a", "192.0.2.1/24")
	err := a.DoErr(func() error { return withoutNetAdmin(func() error { _, err := vip.OpenFence(); return err }) })
	op, ok := errors.AsType[*vip.OpError](err)
	if !errors.Is(err, vip.ErrNoFence) || !ok || !strings.Contains(op.Hint, "CAP_NET_ADMIN") {
		t.Errorf("OpenFence: %v, want ErrNoFence and a hint", err)
	}
}

// The tables of a daemon that was killed stay, closed; who comes next makes its own
// first, and then removes them.
func TestLabStaleFenceIsRemovedByTheNext(t *testing.T) {
	for name, open := range map[string]func() (vip.Fence, error){"guarded": vip.OpenFence, "watched": vip.OpenWatchedFence} {
		t.Run(name, func(t *testing.T) {
			lan := lab.New(t)
			a := lan.Host("a", "192.0.2.1/24", "192.0.2.9/32")
			client := lan.Host("client", "192.0.2.3/24")
			echo(t, a, vip9)
			dead := fenceOn(t, a, open)
			if name == "guarded" && !dead.Guarded() {
				t.Skip("tables have no owner here")
			}
			if err := dead.Protect(1, []string{"eth0"}, vips); err != nil {
				t.Fatal(err)
			}
			vip.Abandon(dead)
			if answers(t, client, vip9) {
				t.Error("open when the daemon is dead")
			}
			next := fenceOn(t, a, open)
			if answers(t, client, vip9) {
				t.Error("open when the next one comes")
			}
			stale, err := next.RemoveStale()
			if err != nil || fmt.Sprint(stale) != "[carpd]" {
				t.Errorf("RemoveStale: %v, %v, want carpd", stale, err)
			}
			if !answers(t, client, vip9) {
				t.Error("closed when nothing is left")
			}
			if err := next.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
			if list := a.Run("nft", "list", "ruleset"); len(bytes.TrimSpace([]byte(list))) != 0 {
				t.Errorf("left:\n%s", list)
			}
		})
	}
}

// The fence of a dead daemon is what keeps its addresses silent while their lease runs,
// on interfaces that the next daemon does not serve as well.
func TestLabStaleFenceGoesAfterTheAddressesBehindIt(t *testing.T) {
	t.Parallel()
	lan := lab.New(t)
	a := lan.Host("a", "192.0.2.1/24", "2001:db8::1/64")
	client := lan.Host("client", "192.0.2.3/24", "2001:db8::3/64")
	k := openOn(t, a)
	l, err := k.Link("eth0")
	if err != nil {
		t.Fatal(err)
	}
	const kept, ll = "192.0.2.8", "fe80::9"
	behind := append([]netip.Addr{netip.MustParseAddr(kept), netip.MustParseAddr(ll)}, vips...)
	var changes []vip.Change
	for _, addr := range behind {
		changes = append(changes, vip.Change{Index: l.Index, Link: l.Name, Prefix: netip.PrefixFrom(addr, addr.BitLen()), Valid: time.Minute, Host: true})
	}
	if err := k.Apply(changes); err != nil {
		t.Fatal(err)
	}
	echo(t, a, vip9)
	dead := fenceOn(t, a, vip.OpenFence)
	if !dead.Guarded() {
		t.Skip("tables have no owner here")
	}
	if err := dead.Protect(1, []string{"eth0"}, behind); err != nil {
		t.Fatal(err)
	}
	vip.Abandon(dead)
	var fences []string
	var removed []vip.Removed
	if err := a.DoErr(func() (err error) {
		fences, removed, err = vip.RemoveStaleFences(k, netip.MustParseAddr(kept))
		return err
	}); err != nil || fmt.Sprint(fences) != "[carpd]" || len(removed) != len(behind)-1 {
		t.Errorf("RemoveStaleFences: %v, %v, %v, want carpd and %d addresses", fences, removed, err, len(behind)-1)
	}
	if answers(t, client, vip9) {
		t.Error("open, and the address is on")
	}
	for _, addr := range behind {
		if has := a.HasAddr(addr); has != (addr.String() == kept) {
			t.Errorf("%v is on: %v", addr, has)
		}
	}
}
