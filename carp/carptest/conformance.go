package carptest

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/carpd/carpd/carp"
)

// ConformanceVHID is the vhid of the links that Conformance is given.
const ConformanceVHID = 9

const (
	conformanceWait = 5 * time.Second // for what must happen
	inboxBound      = 64              // carp.Link.Events
)

var conformanceGroups = []netip.Addr{netip.AddrFrom4([4]byte{224, 0, 0, 18}), netip.MustParseAddr("ff02::12")}

// Conformance checks what every carp.Link promises. open returns two links of
// ConformanceVHID, of two nodes on one segment without other traffic, each with
// an IPv4 and an IPv6 address; it is called once for each subtest. The links
// must be up or come up by themselves. Conformance closes them.
func Conformance(t *testing.T, open func(t *testing.T) (a, b carp.Link)) {
	pair := func(t *testing.T) (a, b carp.Link) {
		a, b = open(t)
		t.Cleanup(func() { a.Close(); b.Close() })
		return a, b
	}
	t.Run("first event is a change", func(t *testing.T) {
		a, b := pair(t)
		for _, l := range []carp.Link{a, b} {
			if e := nextEvent(t, l); e.Up == nil && !e.Down {
				t.Errorf("first event: %+v, want Up or Down", e)
			}
		}
	})
	t.Run("frames arrive as sent and not at their sender", func(t *testing.T) { arrival(t, pair) })
	t.Run("payloads are the receiver's", func(t *testing.T) { ownership(t, pair) })
	t.Run("packets keep their order", func(t *testing.T) { order(t, pair) })
	t.Run("overflow drops the oldest and counts", func(t *testing.T) { overflow(t, pair) })
	t.Run("send never blocks", func(t *testing.T) { neverBlocks(t, pair) })
	t.Run("notify tells of events and of the close", func(t *testing.T) { notifying(t, pair) })
	t.Run("close ends events", func(t *testing.T) { closing(t, pair) })
}

type opener func(t *testing.T) (a, b carp.Link)

func arrival(t *testing.T, open opener) {
	a, b := open(t)
	local := awaitUp(t, a)
	awaitUp(t, b)
	for i, group := range conformanceGroups {
		payload := numbered(i)
		before := b.Now()
		send(t, a, group, payload)
		p := nextPacket(t, b)
		want := local.IPv4
		if carp.FamilyOf(group) == carp.IPv6 {
			want = local.IPv6
		}
		if p.Src != want || p.Dst != group || p.TTL != 255 || !p.Broadcast {
			t.Errorf("got %v > %v ttl %d broadcast %v, want %v > %v ttl 255 broadcast true",
				p.Src, p.Dst, p.TTL, p.Broadcast, want, group)
		}
		if !bytes.Equal(p.Payload, payload) {
			t.Errorf("payload %x, want %x", p.Payload, payload)
		}
		// The stamp may be read off another clock, which is stepped while we look.
		if after := b.Now(); p.At != 0 && (p.At < before.Add(-time.Second) || p.At > after) {
			t.Errorf("arrived at %d, but was sent after %d and read before %d", p.At, before, after)
		}
	}
	// The answer is behind anything of a's own that might have come back.
	send(t, b, conformanceGroups[0], numbered(99))
	if p := nextPacket(t, a); numberOf(p) != 99 {
		t.Errorf("own frame %d came back", numberOf(p))
	}
}

func ownership(t *testing.T, open opener) {
	a, b := open(t)
	awaitUp(t, a)
	awaitUp(t, b)
	payload := numbered(1)
	send(t, a, conformanceGroups[0], payload)
	binary.BigEndian.PutUint32(payload[8:], 2)
	send(t, a, conformanceGroups[0], payload)
	first := nextPacket(t, b)
	clear(nextPacket(t, b).Payload)
	if numberOf(first) != 1 {
		t.Errorf("the first payload became %x", first.Payload)
	}
}

func order(t *testing.T, open opener) {
	a, b := open(t)
	awaitUp(t, a)
	awaitUp(t, b)
	for i := range inboxBound / 2 {
		send(t, a, conformanceGroups[i%2], numbered(i))
	}
	for i := range inboxBound / 2 {
		if got := numberOf(nextPacket(t, b)); got != i {
			t.Fatalf("packet %d is number %d", i, got)
		}
	}
}

// overflow sends rounds of more than b holds until one of them was seen to
// overflow: on a real link nobody knows when the last frame of a round is there.
func overflow(t *testing.T, open opener) {
	a, b := open(t)
	awaitUp(t, a)
	const frames = 2 * inboxBound
	for round := range 20 {
		for i := range frames {
			send(t, a, conformanceGroups[0], numbered(round*frames+i))
		}
		awaitFull(t, b)
		if lost := readRound(t, b, round*frames, frames); lost > 0 {
			return
		}
	}
	t.Error("nothing was ever counted as lost")
}

// readRound reads until each of the frames from first on was received or counted
// as lost, and returns how many were lost. Their order is free, since the inbox may
// overflow while it is read; but none comes twice, and the newest is never lost.
func readRound(t *testing.T, b carp.Link, first, frames int) (lost int) {
	t.Helper()
	seen := map[int]bool{}
	for len(seen)+lost < frames {
		e := nextEvent(t, b)
		switch {
		case e.Down:
			t.Fatal("a full inbox took the link down")
		case e.Packet != nil:
			n := numberOf(e.Packet)
			if n < first || n >= first+frames || seen[n] {
				t.Fatalf("number %d in the round from %d on, twice or not of it", n, first)
			}
			seen[n] = true
		case e.Up == nil:
			if e.Lost <= 0 {
				t.Fatalf("an event without content: %+v", e)
			}
			lost += e.Lost
		}
	}
	if len(seen)+lost != frames || !seen[first+frames-1] {
		t.Fatalf("%d received and %d lost of %d, the newest among the received: %v", len(seen), lost, frames, seen[first+frames-1])
	}
	return lost
}

func neverBlocks(t *testing.T, open opener) {
	a, b := open(t)
	awaitUp(t, a)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 10_000 {
			// A full queue is an error here, and that is as good as sent.
			_ = a.Send(carp.Frame{VHID: ConformanceVHID, Dst: conformanceGroups[0], Payload: numbered(i)})
		}
	}()
	select {
	case <-done:
	case <-time.After(conformanceWait):
		t.Fatal("10000 frames to a reader that sleeps were not sent in time")
	}
	if len(b.Events()) > inboxBound {
		t.Errorf("%d events wait, more than %d", len(b.Events()), inboxBound)
	}
}

func closing(t *testing.T, open opener) {
	a, b := open(t)
	awaitUp(t, a)
	awaitUp(t, b)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for range b.Events() {
		}
	}()
	for range 2 {
		if err := b.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	select {
	case <-ended:
	case <-time.After(conformanceWait):
		t.Fatal("a reader still waits after Close")
	}
	if err := b.Send(carp.Frame{VHID: ConformanceVHID, Dst: conformanceGroups[0], Payload: numbered(0)}); err == nil {
		t.Error("a closed link sends")
	}
	send(t, a, conformanceGroups[0], numbered(0))
}

// notifying reads only when it was told to, as a loop does.
func notifying(t *testing.T, open opener) {
	a, b := open(t)
	awaitUp(t, a)
	awaitUp(t, b)
	told := make(chan struct{}, 1)
	b.Notify(func() {
		select {
		case told <- struct{}{}:
		default:
		}
	})
	await := func(what string, over func() bool) {
		t.Helper()
		for deadline := time.After(conformanceWait); !over(); {
			select {
			case <-told:
			case <-deadline:
				t.Fatalf("not told of %s", what)
			}
		}
	}
	got := -1
	for i := range inboxBound {
		send(t, a, conformanceGroups[i%2], numbered(i))
		await("a packet", func() bool {
			select {
			case e := <-b.Events():
				if e.Packet != nil {
					got = numberOf(e.Packet)
				}
			default:
			}
			return got == i
		})
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	await("the close", func() bool {
		select {
		case _, open := <-b.Events():
			return !open
		default:
			return false
		}
	})
	b.Notify(nil) // harmless after Close
}

// numbered returns a payload of an advert's size that says its number.
func numbered(n int) []byte {
	b := make([]byte, 36)
	b[0], b[1] = 0x21, ConformanceVHID
	binary.BigEndian.PutUint32(b[8:], uint32(n))
	return b
}

func numberOf(p *carp.Packet) int {
	if len(p.Payload) != 36 {
		return -1
	}
	return int(binary.BigEndian.Uint32(p.Payload[8:]))
}

func send(t *testing.T, l carp.Link, dst netip.Addr, payload []byte) {
	t.Helper()
	if err := l.Send(carp.Frame{VHID: ConformanceVHID, Dst: dst, Payload: payload}); err != nil {
		t.Fatalf("send: %v", err)
	}
}

func nextEvent(t *testing.T, l carp.Link) carp.LinkEvent {
	t.Helper()
	select {
	case e, ok := <-l.Events():
		if !ok {
			t.Fatal("events ended")
		}
		return e
	case <-time.After(conformanceWait):
		t.Fatalf("no event within %v", conformanceWait)
	}
	return carp.LinkEvent{}
}

func nextPacket(t *testing.T, l carp.Link) *carp.Packet {
	t.Helper()
	for {
		if e := nextEvent(t, l); e.Packet != nil {
			return e.Packet
		}
	}
}

// awaitUp returns the own side once the link is up with both families.
func awaitUp(t *testing.T, l carp.Link) carp.Local {
	t.Helper()
	for {
		if e := nextEvent(t, l); e.Up != nil && e.Up.IPv4.IsValid() && e.Up.IPv6.IsValid() {
			return *e.Up
		}
	}
}

// awaitFull waits until as many events wait as may.
func awaitFull(t *testing.T, l carp.Link) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(conformanceWait); len(l.Events()) < inboxBound; <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("%d events wait after %d frames, want %d", len(l.Events()), 2*inboxBound, inboxBound)
		}
	}
}
