package viptest

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/carpd/carpd/vip"
)

// LinkName is the interface that Conformance uses. It must be up and have the
// addresses Own.
const LinkName = "eth0"

// Own returns the addresses that eth0 must have in Conformance.
func Own() []string { return []string{"192.0.2.1/24", "2001:db8::1/64"} }

// kernelLate is how late a kernel may remove an address, and a second for a host
// that stands still.
const kernelLate = 2100 * time.Millisecond

type suite struct {
	*testing.T
	k    vip.Kernel
	link vip.Link
}

// Conformance checks what a vip.Kernel promises. Open returns a fresh kernel each
// time, with LinkName and Own and nothing else there; Conformance closes it.
func Conformance(t *testing.T, open func(t *testing.T) vip.Kernel) {
	tests := []struct {
		name string
		run  func(suite)
	}{
		{"LinkIsFoundOrErrNoLink", testLink},
		{"PutMarksAndGivesLifetimes", testPut},
		{"PutAgainReplacesTheLifetime", testReplace},
		{"RemoveOfWhatIsNotThereIsNoError", testRemoveAbsent},
		{"ErrorInTheMiddleDoesNotStopTheRest", testErrorInMiddle},
		{"LifetimeEndsAndIsTold", testExpiry},
		{"NoticesEndWithStop", testStop},
		{"SecondariesGoWithTheirPrimary", testSecondaries},
		{"IPv6IsKeyedByAddressAlone", testKeys},
		{"ThousandsInOneBatch", testThousands},
		{"SendEndsWithItsContext", testSend},
		{"SendAsksBeforeEachFrame", testSendAsks},
		{"SeverEndsBothEndsAndNoOthers", testSever},
		{"SeverWithoutTheAddressEndsThisEnd", testSeverAfterwards},
		{"SeverSparesWhatIsElsewhere", testSeverSpares},
		{"ClaimsOfOthersAreHeardUntilStop", testNeighbours},
		{"DeviceIsMadeOnceAndDown", testDevice},
		{"DeviceIsMadeAnewIfItDiffers", testDeviceDiffers},
		{"DeviceOfOthersIsRefused", testDeviceForeign},
		{"DeviceIsSwitched", testDeviceSwitch},
		{"DevicesChangeTheirParentUntilTheLastIsRemoved", testDeviceParent},
		{"CloseTwice", testClose},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			k := open(t)
			t.Cleanup(func() { _ = k.Close() })
			link, err := k.Link(LinkName)
			if err != nil {
				t.Fatalf("Link(%q): %v", LinkName, err)
			}
			tc.run(suite{t, k, link})
		})
	}
}

func (s suite) put(valid time.Duration, prefixes ...string) []vip.Change {
	return s.changes(vip.Put, valid, prefixes)
}

func (s suite) remove(prefixes ...string) []vip.Change { return s.changes(vip.Remove, 0, prefixes) }

func (s suite) changes(op vip.ChangeOp, valid time.Duration, prefixes []string) (out []vip.Change) {
	for _, text := range prefixes {
		p := netip.MustParsePrefix(text)
		out = append(out, vip.Change{Op: op, Index: s.link.Index, Link: LinkName, Prefix: p, Valid: valid, Host: p.IsSingleIP()})
	}
	return out
}

func (s suite) apply(changes ...[]vip.Change) {
	s.Helper()
	if err := s.k.Apply(slices.Concat(changes...)); err != nil {
		s.Fatalf("Apply: %v", err)
	}
}

func (s suite) find(prefix string) (vip.Addr, bool) {
	s.Helper()
	addrs, err := s.k.Addrs(s.link.Index)
	if err != nil {
		s.Fatalf("Addrs: %v", err)
	}
	i := slices.IndexFunc(addrs, func(a vip.Addr) bool { return a.Prefix == netip.MustParsePrefix(prefix) })
	if i < 0 {
		return vip.Addr{}, false
	}
	return addrs[i], true
}

func (s suite) want(prefix string, present bool) {
	s.Helper()
	if _, ok := s.find(prefix); ok != present {
		s.Errorf("%s present: %v, want %v", prefix, ok, present)
	}
}

func testLink(s suite) {
	if s.link.Index == 0 || s.link.Name != LinkName || s.link.MAC == [6]byte{} {
		s.Errorf("Link: %+v, want an index, the name and a MAC", s.link)
	}
	if _, err := s.k.Link("nothere0"); !errors.Is(err, vip.ErrNoLink) {
		s.Errorf("Link(nothere0): %v, want ErrNoLink", err)
	}
	links, err := s.k.Links()
	if err != nil || !slices.Contains(links, s.link) {
		s.Errorf("Links: %+v, %v, want %+v among them", links, err, s.link)
	}
	if addrs, err := s.k.Addrs(987654); err != nil || len(addrs) != 0 {
		s.Errorf("Addrs of no interface: %v, %v, want none", addrs, err)
	}
}

func testPut(s suite) {
	s.apply(s.put(10*time.Second, "192.0.2.9/32", "2001:db8::9/128"), s.put(vip.Forever, "198.51.100.9/24", "2001:db8:1::9/64"))
	for _, tc := range []struct {
		prefix           string
		valid, preferred time.Duration
	}{
		{"192.0.2.9/32", 10 * time.Second, 10 * time.Second},
		{"2001:db8::9/128", 10 * time.Second, 0},
		{"198.51.100.9/24", vip.Forever, vip.Forever},
		{"2001:db8:1::9/64", vip.Forever, 0},
	} {
		a, ok := s.find(tc.prefix)
		if !ok {
			s.Errorf("%s is not there", tc.prefix)
			continue
		}
		if a.Mark != vip.Mark {
			s.Errorf("%s has mark %d, want %d", tc.prefix, a.Mark, vip.Mark)
		}
		near := func(got, want time.Duration) bool { return got == want || got < want && got >= want-2*time.Second }
		if !near(a.Valid, tc.valid) || !near(a.Preferred, tc.preferred) {
			s.Errorf("%s has lifetimes %v, %v, want %v, %v", tc.prefix, a.Valid, a.Preferred, tc.valid, tc.preferred)
		}
	}
	for _, own := range Own() {
		if a, ok := s.find(own); !ok || a.Mark == vip.Mark {
			s.Errorf("own address %s: %+v, %v, want it there without our mark", own, a, ok)
		}
	}
}

func testReplace(s suite) {
	for _, p := range []string{"192.0.2.9/32", "2001:db8::9/128"} {
		for _, valid := range []time.Duration{vip.Forever, 100 * time.Second, 50 * time.Second, vip.Forever} {
			s.apply(s.put(valid, p))
			if a, ok := s.find(p); !ok || a.Valid > valid || a.Valid < valid-2*time.Second {
				s.Errorf("%s: %+v, %v, want lifetime %v", p, a, ok, valid)
			}
		}
	}
}

func testRemoveAbsent(s suite) {
	s.apply(s.put(vip.Forever, "192.0.2.9/32", "2001:db8::9/128"))
	s.apply(s.remove("192.0.2.9/32", "2001:db8::9/128"))
	s.want("192.0.2.9/32", false)
	s.want("2001:db8::9/128", false)
	s.apply(s.remove("192.0.2.9/32", "2001:db8::9/128"))
	s.apply([]vip.Change{{Op: vip.Remove, Index: 987654, Link: "nothere0", Prefix: netip.MustParsePrefix("192.0.2.9/32")}})
	s.apply(nil)
}

func testErrorInMiddle(s suite) {
	bad := s.put(vip.Forever, "192.0.2.8/32", "192.0.2.7/32")
	bad[0].Index, bad[1].Index = 987654, 987654
	err := s.k.Apply(slices.Concat(s.put(vip.Forever, "192.0.2.9/32"), bad, s.put(vip.Forever, "192.0.2.10/32")))
	op, ok := errors.AsType[*vip.OpError](err)
	if !ok || op.Op != "add" || op.Addr != bad[0].Prefix || op.More != 1 || !errors.Is(err, vip.ErrNoLink) {
		s.Errorf("Apply: %v (%+v), want an OpError of 192.0.2.8/32 and one more, ErrNoLink", err, op)
	}
	s.want("192.0.2.9/32", true)
	s.want("192.0.2.10/32", true)
}

func testExpiry(s suite) {
	var mu sync.Mutex
	gone := make(map[netip.Prefix]time.Time)
	stop := s.k.Watch(func(n vip.Notice) {
		mu.Lock()
		defer mu.Unlock()
		if n.Kind == vip.AddrGone && n.Index == s.link.Index {
			gone[n.Prefix] = time.Now()
		}
	})
	defer stop()
	prefixes := []string{"192.0.2.9/32", "2001:db8::9/128"}
	start := time.Now()
	s.apply(s.put(time.Second, prefixes...))
	added := time.Now()
	eventually(s.T, time.Second+kernelLate, "both addresses to be gone", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(gone) == 2
	})
	for _, p := range prefixes {
		s.want(p, false)
		at := gone[netip.MustParsePrefix(p)]
		if at.Sub(start) < 980*time.Millisecond {
			s.Errorf("%s went %v after it was added, want a second", p, at.Sub(start))
		}
		s.Logf("%s went %v late", p, at.Sub(added)-time.Second)
	}
}

func testStop(s suite) {
	notices := make(chan vip.Notice, 100)
	stop := s.k.Watch(func(n vip.Notice) {
		select {
		case notices <- n:
		default:
		}
	})
	s.apply(s.put(vip.Forever, "192.0.2.9/32", "192.0.2.8/32"))
	s.apply(s.remove("192.0.2.9/32"))
	deadline := time.After(2 * time.Second)
	for heard := false; !heard; {
		select {
		case n := <-notices:
			heard = n.Kind == vip.AddrGone && n.Prefix == netip.MustParsePrefix("192.0.2.9/32") && n.Index == s.link.Index
		case <-deadline:
			s.Fatal("the removal was not told within 2 s")
		}
	}
	stop()
	after := make(chan struct{}, 1)
	defer s.k.Watch(func(vip.Notice) {
		select {
		case after <- struct{}{}:
		default:
		}
	})()
	for len(notices) > 0 {
		<-notices
	}
	s.apply(s.remove("192.0.2.8/32"))
	select {
	case <-after: // another watcher has heard it
	case <-time.After(2 * time.Second):
		s.Fatal("the second watcher was not told within 2 s")
	}
	if len(notices) > 0 {
		s.Error("a notice came after stop")
	}
}

func testSecondaries(s suite) {
	if s.link.PromoteSecondaries {
		s.Skip("promote_secondaries is 1 here")
	}
	s.apply(s.put(vip.Forever, "198.51.100.1/24", "198.51.100.2/24", "198.51.100.3/32"))
	s.apply(s.remove("198.51.100.1/24"))
	s.want("198.51.100.2/24", false)
	s.want("198.51.100.3/32", true)
}

func testKeys(s suite) {
	s.apply(s.put(vip.Forever, "2001:db8:1::9/64", "198.51.100.9/24"))
	s.apply(s.put(vip.Forever, "2001:db8:1::9/128", "198.51.100.9/32"))
	s.want("2001:db8:1::9/64", true)
	s.want("2001:db8:1::9/128", false)
	s.want("198.51.100.9/24", true)
	s.want("198.51.100.9/32", true)
}

func testThousands(s suite) {
	const n = 2500
	var prefixes []string
	for i := range n {
		prefixes = append(prefixes, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 32).String())
	}
	count := func() (marked int) {
		addrs, err := s.k.Addrs(s.link.Index)
		if err != nil {
			s.Fatalf("Addrs: %v", err)
		}
		for _, a := range addrs {
			if a.Mark == vip.Mark {
				marked++
			}
		}
		return marked
	}
	s.apply(s.put(vip.Forever, prefixes...))
	if got := count(); got != n {
		s.Errorf("%d addresses are on, want %d", got, n)
	}
	s.apply(s.remove(prefixes...))
	if got := count(); got != 0 {
		s.Errorf("%d addresses are left, want 0", got)
	}
}

func testSend(s suite) {
	frame := make([]byte, 60)
	copy(frame, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	copy(frame[6:], s.link.MAC[:])
	frame[12], frame[13] = 0x88, 0xb5 // for local experiments
	if err := s.k.Send(context.Background(), s.link.Index, [][]byte{frame, frame}, nil); err != nil {
		s.Errorf("Send: %v", err)
	}
	if err := s.k.Send(context.Background(), 987654, [][]byte{frame}, nil); err == nil {
		s.Error("Send on no interface: no error")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.k.Send(ctx, s.link.Index, [][]byte{frame}, nil); !errors.Is(err, context.Canceled) {
		s.Errorf("Send after the end of its context: %v, want %v", err, context.Canceled)
	}
}

func testSendAsks(s suite) {
	frame := make([]byte, 60)
	copy(frame[6:], s.link.MAC[:])
	frame[12], frame[13] = 0x88, 0xb5 // for local experiments
	for _, allowed := range []int{0, 3, 10} {
		asked := 0
		err := s.k.Send(context.Background(), s.link.Index, slices.Repeat([][]byte{frame}, 10), func() bool { asked++; return asked <= allowed })
		if allowed < 10 && (!errors.Is(err, vip.ErrLapsed) || asked != allowed+1) || allowed == 10 && (err != nil || asked != 10) {
			s.Errorf("Send of 10 frames of which %d are allowed: %v, asked %d times", allowed, err, asked)
		}
	}
}

func testClose(s suite) {
	if err := s.k.Close(); err != nil {
		s.Errorf("Close: %v", err)
	}
	if err := s.k.Close(); err != nil {
		s.Errorf("Close again: %v", err)
	}
	if err := s.k.Apply(s.put(vip.Forever, "192.0.2.9/32")); err == nil {
		s.Error("Apply after Close: no error")
	}
}

func eventually(t *testing.T, timeout time.Duration, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(timeout); !cond(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("timed out after %v waiting for %s", timeout, what)
		}
	}
}
