package lab

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket/pcapgo"
	"golang.org/x/sys/unix"
)

// probeType is an EtherType for local experiments (IEEE 802): no kernel sends it,
// so that a test knows all frames of it.
const probeType = 0x88b5

func isProbe(f Frame) bool {
	return len(f.Data) >= 18 && binary.BigEndian.Uint16(f.Data[12:]) == probeType
}

// station sends and receives numbered frames on a host's eth0.
type station struct {
	t testing.TB
	*cable
	h   *Host
	buf []byte
}

func newStation(t testing.TB, h *Host) *station {
	t.Helper()
	s := &station{t: t, h: h, buf: make([]byte, 1<<16)}
	err := h.DoErr(func() error {
		link, err := h.ns.nl.LinkByName(linkName)
		if err != nil {
			return err
		}
		s.cable, err = openVeth(link.Attrs().Index)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	return s
}

// frame is a probe with a number, of 60 bytes or more.
func (s *station) frame(number uint32, size int) []byte {
	f := make([]byte, max(size, 60))
	copy(f, everybody[:])
	copy(f[6:], s.h.mac)
	binary.BigEndian.PutUint16(f[12:], probeType)
	binary.BigEndian.PutUint32(f[14:], number)
	return f
}

func (s *station) send(frame []byte) {
	err := unix.ENOBUFS
	for err == unix.ENOBUFS || err == unix.EAGAIN {
		err, _ = s.cable.send(frame).(unix.Errno)
	}
	if err != 0 {
		s.t.Fatalf("host %s: send: %v", s.h.Name, err)
	}
}

// burst sends numbered probes, from 0 on.
func (s *station) burst(count int) {
	for i := range count {
		s.send(s.frame(uint32(i), 60))
	}
}

// await returns the next probe that comes within limit, valid until the next call.
func (s *station) await(limit time.Duration) []byte {
	for deadline := time.Now().Add(limit); ; {
		f, err := s.read(s.buf)
		switch {
		case err == nil && isProbe(f):
			return f.Data
		case err == nil:
			continue
		}
		left := time.Until(deadline)
		if left <= 0 {
			return nil
		}
		timeout := unix.NsecToTimespec(left.Nanoseconds())
		_, _ = unix.Ppoll([]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}}, &timeout, nil)
	}
}

// heard returns the numbers of the probes that came, in order, until the link from
// the sender has carried what was offered and nothing is left of it.
func (s *station) heard(k *Link, offered uint64) (numbers []uint32) {
	s.t.Helper()
	Eventually(s.t, 5*time.Second, fmt.Sprintf("%d frames to be through", offered), func() bool {
		st := k.Stats()
		return st.Offered >= offered && st.Offered+st.Duplicated == st.Delivered+st.Cut+st.Lost+st.Overflow+st.Refused
	})
	for f := s.await(10 * time.Millisecond); f != nil; f = s.await(10 * time.Millisecond) {
		numbers = append(numbers, binary.BigEndian.Uint32(f[14:]))
	}
	return numbers
}

// quiet is a LAN whose hosts say nothing of themselves: no IPv6, no addresses.
func quiet(t testing.TB, seed uint64, names ...string) (lan *LAN, stations []*station) {
	t.Helper()
	lan = New(t, Switched(seed))
	for _, name := range names {
		h := lan.Host(name)
		h.Sysctl("ipv6/conf/eth0/disable_ipv6", "1")
		stations = append(stations, newStation(t, h))
	}
	return lan, stations
}

func count(n int) (all []uint32) {
	for i := range n {
		all = append(all, uint32(i))
	}
	return all
}

func TestSwitchDropsTheSameFramesOfASeedInEachRun(t *testing.T) {
	play := func(seed uint64) (numbers []uint32, stats Stats) {
		lan, s := quiet(t, seed, "a", "b", "c")
		k := lan.Link(s[0].h, s[1].h).Only(isProbe).Loss(0.3).Corrupt(0.1).Duplicate(0.1, 0)
		s[0].burst(500)
		s[2].burst(100) // another link
		numbers = s[1].heard(lan.Between(s[0].h, s[1].h), 500)
		numbers = slices.DeleteFunc(numbers, func(n uint32) bool { return n >= 500 }) // corrupted
		if n := lan.Overruns(); n > 0 {
			t.Fatalf("the kernel dropped %d frames", n)
		}
		return numbers, k.Stats()
	}
	once, stats := play(11)
	again, stats2 := play(11)
	// Frames of c come in between: compare what a's link did.
	if stats != stats2 {
		t.Errorf("%+v\nthen %+v", stats, stats2)
	}
	if stats.Lost < 110 || stats.Lost > 190 || stats.Corrupted < 15 || stats.Duplicated < 15 {
		t.Errorf("%+v: want about 150 of 500 lost, 35 corrupted, 35 duplicated", stats)
	}
	slices.Sort(once)
	slices.Sort(again)
	if !slices.Equal(once, again) {
		t.Errorf("%v\nthen %v", once, again)
	}
	if other, _ := play(12); slices.Equal(slices.Sorted(slices.Values(other)), once) {
		t.Error("another seed changes nothing")
	}
}

func TestSwitchFaultsShowOnRealFrames(t *testing.T) {
	const n = 200
	var lan *LAN
	var a, b *station
	start := func(t *testing.T) *Link {
		var s []*station
		lan, s = quiet(t, 5, "a", "b")
		a, b = s[0], s[1]
		return lan.Link(a.h, b.h).Only(isProbe)
	}
	t.Run("none", func(t *testing.T) {
		k := start(t)
		a.burst(n)
		if got := b.heard(k, n); !slices.Equal(got, count(n)) {
			t.Errorf("%v", got)
		}
	})
	t.Run("latency", func(t *testing.T) {
		k := start(t).Delay(30*time.Millisecond, 10*time.Millisecond)
		// The fastest of five: the machine may be busy.
		fastest := func(from, to *station) time.Duration {
			best := time.Hour
			for range 5 {
				began := time.Now()
				from.send(from.frame(1, 60))
				if to.await(time.Second) == nil {
					t.Fatal("nothing came")
				}
				best = min(best, time.Since(began))
			}
			return best
		}
		if d := fastest(a, b); d < 30*time.Millisecond || d > 60*time.Millisecond {
			t.Errorf("took %v, want 30 to 40 ms", d)
		}
		if d := fastest(b, a); d > 25*time.Millisecond {
			t.Errorf("the way back took %v: it has no delay", d)
		}
		a.burst(n)
		if got := b.heard(k, n+5); !slices.Equal(got, count(n)) {
			t.Errorf("jitter changed the order: %v", got)
		}
	})
	t.Run("duplication", func(t *testing.T) {
		k := start(t).Duplicate(1, 0)
		a.burst(n)
		if got := slices.Compact(b.heard(k, n)); !slices.Equal(got, count(n)) || k.Stats().Delivered != 2*n {
			t.Errorf("%v, %+v", got, k.Stats())
		}
	})
	t.Run("reordering", func(t *testing.T) {
		k := start(t).Reorder(0.2, 50*time.Millisecond)
		a.burst(n)
		got := b.heard(k, n)
		if slices.IsSorted(got) || !slices.Equal(slices.Sorted(slices.Values(got)), count(n)) {
			t.Errorf("%v", got)
		}
	})
	t.Run("corruption", func(t *testing.T) {
		k := start(t).Corrupt(1)
		want := a.frame(7, 60)
		a.send(want)
		got := b.await(time.Second)
		differ := 0
		for i := range got {
			if got[i] != want[i] {
				differ++
			}
		}
		if differ != 1 || k.Stats().Corrupted != 1 {
			t.Errorf("%d bytes differ:\n%x\n%x", differ, want, got)
		}
	})
	t.Run("one-way cut", func(t *testing.T) {
		k := start(t).Cut()
		a.burst(n)
		b.burst(n)
		if got := b.heard(k, n); got != nil {
			t.Errorf("b heard %v", got)
		}
		if got := a.heard(lan.Link(b.h, a.h), n); !slices.Equal(got, count(n)) {
			t.Errorf("a heard %v", got)
		}
		k.Join()
		a.burst(n)
		if got := b.heard(k, 2*n); !slices.Equal(got, count(n)) {
			t.Errorf("after the cut b heard %v", got)
		}
	})
	t.Run("clog", func(t *testing.T) {
		k := start(t).Clog().Limit(150)
		a.burst(n)
		Eventually(t, time.Second, "the overflow", func() bool { return k.Stats().Overflow == n-150 })
		if f := b.await(20 * time.Millisecond); f != nil {
			t.Errorf("%x passed", f)
		}
		k.Unclog()
		if got := b.heard(k, n); !slices.Equal(got, count(150)) {
			t.Errorf("%v", got)
		}
	})
	t.Run("echo", func(t *testing.T) {
		start(t)
		lan.Link(a.h, a.h).Echo(1)
		a.send(a.frame(7, 60))
		if a.await(time.Second) == nil {
			t.Error("a does not hear itself")
		}
	})
	t.Run("flap", func(t *testing.T) {
		k := start(t)
		for i := range uint64(3) {
			b.h.Unplug()
			Eventually(t, time.Second, "the carrier to go", func() bool {
				return strings.Contains(b.h.Run("ip", "-o", "link", "show", "eth0"), "NO-CARRIER")
			})
			a.send(a.frame(1, 60))
			Eventually(t, time.Second, "the frame to be refused", func() bool { return k.Stats().Refused == i+1 })
			b.h.Plug()
			Eventually(t, time.Second, "the carrier", func() bool {
				here, err1 := b.h.usable(b.h.ns, linkName)
				there, err2 := b.h.usable(lan.ns, b.h.port)
				return here && there && err1 == nil && err2 == nil
			})
			a.send(a.frame(2, 60))
			Eventually(t, time.Second, "the frame to be carried", func() bool { return k.Stats().Delivered == i+1 })
		}
		if got := b.heard(k, 6); !slices.Equal(got, []uint32{2, 2, 2}) || k.Stats().Refused != 3 {
			t.Errorf("heard %v, %+v; want each second of 6", got, k.Stats())
		}
	})
}

// Ping and ARP over a bad link: what the kernel retries arrives, and the counts
// of one seed are the same in each run.
func TestSwitchLosesPings(t *testing.T) {
	answered := func() (n int) {
		lan, a, b := pair(t, Switched(3))
		icmp := IPProtocol(unix.IPPROTO_ICMP)
		p := a.ProbeEvery(addrB, time.Millisecond)
		awaitAnswer(t, p, "an answer") // ARP is done
		p.Stop()
		k := lan.Link(a, b).Only(icmp).Loss(0.4)
		before := k.Stats()
		a.DoErr(func() error {
			out, err := a.RunErr("ping", "-q", "-c", "50", "-i", "0.005", "-W", "1", addrB.String())
			if err != nil {
				t.Skipf("no ping: %v %s", err, out)
			}
			_, err = fmt.Sscanf(out[strings.Index(out, "transmitted, ")+13:], "%d", &n)
			return err
		})
		if lost := k.Stats().Lost - before.Lost; int(lost) != 50-n {
			t.Errorf("%d pings lost, %d answered of 50", lost, n)
		}
		return n
	}
	first := answered()
	if first < 15 || first > 45 {
		t.Errorf("%d of 50 answered at 40 %% loss", first)
	}
	if second := answered(); second != first {
		t.Errorf("%d answers, then %d", first, second)
	}
}

// A socket keeps the error of an interface that was down once; no frame pays for it.
func TestCableSendsAtOnceWhenItIsBack(t *testing.T) {
	_, s := quiet(t, 1, "a")
	for range 3 {
		s[0].h.SetLink(false)
		if err := s[0].cable.send(s[0].frame(1, 60)); err == nil {
			t.Error("sent while down")
		}
		s[0].h.SetLink(false)
		s[0].h.SetLink(true)
		s[0].h.SetLink(false)
		s[0].h.SetLink(true)
		if err := s[0].cable.send(s[0].frame(1, 60)); err != nil {
			t.Errorf("up again: %v", err)
		}
	}
}

func TestSwitchSplitsInTwo(t *testing.T) {
	lan := New(t, Switched(1))
	var hosts []*Host
	for i := range 4 {
		hosts = append(hosts, lan.Host(string(rune('a'+i)), fmt.Sprintf("192.0.2.%d/24", i+1)))
	}
	// within asks until there is an answer.
	within := func(from, to int, limit time.Duration) bool {
		p := hosts[from].Probe(netip.AddrFrom4([4]byte{192, 0, 2, byte(to + 1)}))
		defer p.Stop()
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for deadline := time.Now().Add(limit); time.Now().Before(deadline); <-tick.C {
			if _, n := p.Counts(); n > 0 {
				return true
			}
		}
		return false
	}
	lan.Split(hosts[:1], hosts[1:3])
	for pair, want := range map[[2]int]bool{{0, 1}: false, {2, 0}: false, {1, 2}: true, {0, 3}: true, {3, 2}: true} {
		limit := 5 * time.Second
		if !want {
			limit = 200 * time.Millisecond
		}
		if within(pair[0], pair[1], limit) != want {
			t.Errorf("%v reach each other: %v", pair, !want)
		}
	}
	lan.Heal()
	if !within(0, 1, 5*time.Second) || !within(2, 0, 5*time.Second) {
		t.Error("healed, and still split")
	}
}

// The kernel takes tags off what it receives, and the switch puts them back.
func TestSwitchKeepsVLANTags(t *testing.T) {
	lan, s := quiet(t, 1, "a", "b")
	c := lan.Capture()
	want := slices.Insert(s[0].frame(7, 60), 12, 0x81, 0, 0x60, 10)
	s[0].send(want)
	if _, ok := c.WaitFor(time.Second, func(f Frame) bool { return bytes.Equal(f.Data, want) }); !ok {
		t.Errorf("captured %v", c.Packets())
	}
	Eventually(t, time.Second, "the frame with its tag at the far end", func() bool {
		got, err := s[1].read(s[1].buf)
		return err == nil && bytes.Equal(got.Data, want)
	})
}

func TestSwitchesDoNotMeet(t *testing.T) {
	one, s := quiet(t, 1, "a", "b")
	two, r := quiet(t, 1, "a", "b")
	one.Link(s[0].h, s[1].h).Cut()
	s[0].burst(50)
	r[0].burst(70)
	if got := s[1].heard(one.Link(s[0].h, s[1].h), 50); got != nil {
		t.Errorf("the first b heard %v", got)
	}
	if got := r[1].heard(two.Link(r[0].h, r[1].h), 70); len(got) != 70 {
		t.Errorf("the second b heard %d frames", len(got))
	}
}

func TestSwitchLeavesNoDescriptor(t *testing.T) {
	count := func() int {
		fds, _ := filepath.Glob("/proc/self/fd/*")
		return len(fds)
	}
	before := count()
	t.Run("inner", func(t *testing.T) {
		lan, s := quiet(t, 1, "a", "b")
		s[0].h.DeleteLink()
		s[1].h.Run("ip", "link", "del", "eth0") // the far end goes without a word
		lan.Host("c")
	})
	Eventually(t, 5*time.Second, "all descriptors to be closed", func() bool { return count() <= before })
}

func TestSwitchCaptureTellsWhatWasDropped(t *testing.T) {
	lan, s := quiet(t, 5, "a", "b", "c")
	c := lan.Capture()
	k := lan.Link(s[0].h, s[1].h).Only(isProbe).Loss(0.5).Corrupt(0.2)
	lan.Link(s[0].h, s[2].h).Cut()
	s[0].burst(100)
	s[1].heard(k, 100)
	stats := k.Stats()
	path := filepath.Join(t.TempDir(), "x.pcapng")
	if err := c.Write(path); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r, err := pcapgo.NewNgReader(bytes.NewReader(data), pcapgo.NgReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for {
		frame, info, err := r.ReadPacketData()
		if err != nil {
			break
		}
		if !isProbe(Frame{Data: frame}) {
			continue // a last word of IPv6
		}
		intf, err := r.Interface(info.InterfaceIndex)
		if err != nil {
			t.Fatal(err)
		}
		got[intf.Name]++
	}
	want := map[string]int{"a": 100, "a dropped": int(stats.Lost) + 100, "a corrupted": int(stats.Corrupted)}
	if fmt.Sprint(got) != fmt.Sprint(want) || stats.Lost < 30 || stats.Corrupted < 3 {
		t.Errorf("frames by interface %v, want %v", got, want)
	}
	probes := slices.DeleteFunc(c.Packets(), func(f Frame) bool { return !isProbe(f) })
	if len(probes) != 100 {
		t.Errorf("Packets has %d frames, want each of 100 once", len(probes))
	}
	for _, text := range []string{"lost on the way to b, number ", "cut off on the way to c, number 100 of", "corrupted on the way to b"} {
		if !bytes.Contains(data, []byte(text)) {
			t.Errorf("no comment says %q", text)
		}
	}
}

func TestCaptureCountsWhatItHasNoRoomFor(t *testing.T) {
	c := &Capture{more: make(chan struct{}), dropped: map[string]uint64{}, bytes: maxFrameBytes - 100}
	for range 3 {
		c.add(Frame{Time: time.Unix(1, 0), Host: "a", Data: make([]byte, 60)})
		c.addHarm(harm{Frame: Frame{Time: time.Unix(1, 0), Host: "a", Data: make([]byte, 60)}, kind: "dropped", text: "lost"})
	}
	path := filepath.Join(t.TempDir(), "x.pcapng")
	if err := c.Write(path); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	r, err := pcapgo.NewNgReader(file, pcapgo.NgReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, _, err = r.ReadPacketData()
	}
	for i, want := range []struct {
		name string
		n    uint64
	}{{"a", 2}, {"a dropped", 3}} {
		intf, err := r.Interface(i)
		if err != nil || intf.Name != want.name || intf.Statistics.PacketsDropped != want.n {
			t.Errorf("interface %d: %v, %+v, want %s with %d dropped", i, err, intf, want.name, want.n)
		}
	}
}

func TestRunIsATestWithoutGoTest(t *testing.T) {
	var order, lines []string
	say := func(line string) { lines = append(lines, line) }
	err := Run("good", say, func(t TB) {
		t.Cleanup(func() { order = append(order, "last") })
		t.Cleanup(func() { order = append(order, "first"); t.Logf("bye") })
		lan := New(t, Switched(1))
		a, b := lan.Host("a", "192.0.2.1/24"), lan.Host("b", "192.0.2.2/24")
		p := a.Probe(addrB)
		Eventually(t, 5*time.Second, "an answer", func() bool { _, n := p.Counts(); return n > 0 })
		lan.Link(a, b).Cut()
	})
	if err != nil || fmt.Sprint(order) != "[first last]" || fmt.Sprint(lines) != "[bye]" {
		t.Errorf("%v, cleaned up %v, said %v", err, order, lines)
	}
	reached := false
	err = Run("bad", nil, func(t TB) {
		t.Errorf("one")
		t.Cleanup(func() { reached = t.Failed() })
		t.Fatalf("two %d", 2)
		t.Error("three")
	})
	if err == nil || err.Error() != "lab: bad failed: one; two 2" || !reached {
		t.Errorf("%v, cleaned up %v", err, reached)
	}
	if err := Run("not here", nil, func(t TB) { t.Skip("no", "kernel") }); err == nil || !strings.HasSuffix(err.Error(), "not here skipped: no kernel") {
		t.Errorf("skipped: %v", err)
	}
	defer func() {
		if p := recover(); p != "boom" || fmt.Sprint(order) != "[first last after]" {
			t.Errorf("panic %v, cleaned up %v", p, order)
		}
	}()
	_ = Run("panics", nil, func(t TB) {
		t.Cleanup(func() { order = append(order, "after") })
		panic("boom")
	})
}
