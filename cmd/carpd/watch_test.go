package main_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/test/lab"
)

// addrEvent is one note of the kernel: an address was added or refreshed, or is
// gone. At is as the note is read: it is never too early.
type addrEvent = lab.AddrChange

// addrWatch records what comes and goes in a namespace, whatever does it.
type addrWatch struct {
	mu     sync.Mutex
	events []addrEvent
	more   chan struct{} // closed and replaced at each event
}

// watchAddrs records until the test ends.
func watchAddrs(h *lab.Host) *addrWatch {
	w := &addrWatch{more: make(chan struct{})}
	h.WatchAddrs(w.note)
	return w
}

func (w *addrWatch) note(e addrEvent) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, e)
	close(w.more)
	w.more = make(chan struct{})
}

// all returns the events of one address after an instant, in their order.
func (w *addrWatch) all(after time.Time, addr netip.Addr) []addrEvent {
	w.mu.Lock()
	defer w.mu.Unlock()
	var found []addrEvent
	for _, e := range w.events {
		if e.Addr == addr && e.At.After(after) {
			found = append(found, e)
		}
	}
	return found
}

// await returns the first event of this kind after an instant.
func (w *addrWatch) await(t testing.TB, after time.Time, addr netip.Addr, on bool, timeout time.Duration) addrEvent {
	t.Helper()
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	for {
		w.mu.Lock()
		more := w.more
		w.mu.Unlock()
		for _, e := range w.all(after, addr) {
			if e.On == on {
				return e
			}
		}
		select {
		case <-more:
		case <-timer.C:
			t.Fatalf("timed out after %v waiting for %v (on=%v)", timeout, addr, on)
		}
	}
}

// span is a time during which a node had an address.
type span struct{ from, to time.Time }

// spans turns the events of an address into spans; one that has not ended ends
// now.
func (w *addrWatch) spans(addr netip.Addr) []span {
	var found []span
	open := false
	for _, e := range w.all(time.Time{}, addr) {
		switch {
		case e.On && !open:
			found, open = append(found, span{from: e.At}), true
		case !e.On && open:
			found[len(found)-1].to, open = e.At, false
		}
	}
	if open {
		found[len(found)-1].to = time.Now()
	}
	return found
}

// neverBoth fails the test if two nodes had an address at the same time, by more than
// the stamps can be late.
func neverBoth(t testing.TB, a, b *addrWatch, addr netip.Addr) {
	t.Helper()
	for _, x := range a.spans(addr) {
		for _, y := range b.spans(addr) {
			if from, to := lab.Later(x.from, y.from), lab.Earlier(x.to, y.to); to.Sub(from) > stampSlack {
				t.Errorf("%v was on both nodes for %v, from %v", addr, to.Sub(from), from.Format(time.StampMicro))
			}
		}
	}
}

// oneSpeaker fails the test if two hosts speak for an address in turns: one speaks after
// another has begun to, and does not announce the address anew. All stamps are the
// kernel's; a client that asks each millisecond makes it sharp.
func oneSpeaker(t testing.TB, wire *lab.Capture, addr netip.Addr) {
	t.Helper()
	if both := inTurns(wire.Packets(), addr); both != "" {
		t.Error(both)
	}
}

// inTurns says who spoke for addr in another's time, or nothing: who has spoken before,
// speaks after another one, and does not announce the address before the next one
// speaks. The first answers may precede the announcement, since the kernel has the
// address before the process can announce it.
func inTurns(frames []lab.Frame, addr netip.Addr) (both string) {
	holder, spoken, late := "", map[string]bool{}, ""
	for _, f := range frames {
		if !answersFor(f, addr) {
			continue
		}
		if f.Host != holder {
			if late != "" {
				return late
			}
			if spoken[f.Host] {
				late = fmt.Sprintf("%s spoke for %v at %v, when %s had begun to", f.Host, addr, f.Time.Format(time.StampMicro), holder)
			}
			holder, spoken[f.Host] = f.Host, true
		}
		if announces(f.Host, addr)(f) {
			late = ""
		}
	}
	return late
}

func TestWhoSpeaksInAnothersTime(t *testing.T) {
	addr := netip.MustParseAddr("192.0.2.50")
	frame := func(what string) lab.Frame {
		data := make([]byte, 42)
		data[12], data[13] = 0x08, 0x06
		copy(data[28:], addr.AsSlice())
		if what[1] == '!' {
			copy(data[38:], addr.AsSlice())
		}
		return lab.Frame{Host: what[:1], Data: data}
	}
	for trace, late := range map[string]bool{ // "!" announces, "." answers
		"":                         false,
		"a. a! a. b! b. b.":        false,
		"a! b! a! b!":              false,
		"a! a. b. b! b. a. a! a.":  false, // answers as soon as the address is there
		"a! b! a.":                 true,
		"a! b! a. b.":              true,
		"a! b! b. a. b. a! a.":     true,
		"a! b! c! b! a! c. c! b. ": true,
	} {
		var frames []lab.Frame
		for _, what := range strings.Fields(trace) {
			frames = append(frames, frame(what))
		}
		if got := inTurns(frames, addr); (got != "") != late {
			t.Errorf("%q: %q", trace, got)
		}
	}
}

// announces returns a condition: the frame is a node's word that it has an
// address now, a gratuitous ARP or an unsolicited neighbour advertisement.
func announces(host string, addr netip.Addr) func(lab.Frame) bool {
	return func(f lab.Frame) bool { return f.Host == host && claims(f, addr) && unasked(f, addr) }
}

// claims reports whether a frame says that its sender has an address: any ARP
// with it as sender, or a neighbour advertisement for it.
func claims(f lab.Frame, addr netip.Addr) bool {
	const header = 14
	if len(f.Data) < header+28 {
		return false
	}
	switch kind := binary.BigEndian.Uint16(f.Data[12:]); {
	case kind == unix.ETH_P_ARP && addr.Is4():
		return netip.AddrFrom4([4]byte(f.Data[header+14:])) == addr
	case kind == unix.ETH_P_IPV6 && addr.Is6() && len(f.Data) >= header+40+24:
		icmp := f.Data[header+40:]
		return f.Data[header+6] == unix.IPPROTO_ICMPV6 && icmp[0] == 136 && netip.AddrFrom16([16]byte(icmp[8:])) == addr
	}
	return false
}

// unasked reports, of a frame that claims addr, whether nobody asked for it.
func unasked(f lab.Frame, addr netip.Addr) bool {
	if addr.Is4() {
		return lab.GratuitousARP(addr)(f)
	}
	const solicited = 0x40
	return f.Data[14+40+4]&solicited == 0
}

// advert is a CARP advert on the wire.
type advert struct {
	carp.Advert
	at  time.Time
	src netip.Addr
}

// decodeAdvert returns the advert in a frame of a host, if it is one.
func decodeAdvert(f lab.Frame, host string) (advert, bool) {
	var p carp.Packet
	a := advert{at: f.Time}
	if f.Host != host || carp.DecodeFrame(f.Data, &p) != carp.Accepted || a.Decode(p.Payload, p.Src, p.Dst) != carp.Accepted {
		return advert{}, false
	}
	a.src = p.Src
	return a, true
}

// adverts returns what a host has sent of a vhid over IPv4 after an instant.
func adverts(c *lab.Capture, host string, vhid uint8, after time.Time) []advert {
	var found []advert
	for _, f := range c.Packets() {
		if a, ok := decodeAdvert(f, host); ok && a.VHID == vhid && a.src.Is4() && f.Time.After(after) {
			found = append(found, a)
		}
	}
	return found
}

// longestGap returns the longest time between two adverts that follow each other.
func longestGap(all []advert) time.Duration {
	var longest time.Duration
	for i := 1; i < len(all); i++ {
		longest = max(longest, all[i].at.Sub(all[i-1].at))
	}
	return longest
}

// bowsOut returns a condition: the frame is a bow-out of a host.
func bowsOut(host string) func(lab.Frame) bool {
	return func(f lab.Frame) bool {
		a, ok := decodeAdvert(f, host)
		return ok && a.BowOut()
	}
}
