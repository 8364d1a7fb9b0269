package link

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/carpd/carpd/carp"
)

// inboxSize bounds the events that wait for a port's reader (carp.Link.Events).
const inboxSize = 64

// inbox is the bounded queue of a port. When it is full the oldest packet of the
// sender who has most of them there makes room, so that a stranger who floods drowns
// himself and no master, and is counted in a Lost event that takes its place; Up and
// Down are never lost, but of several that wait only the newest state is kept.
//
// The channel itself is the queue, so that a reader that is late can drain it
// without waiting for another goroutine. The writer may take events back: if the
// reader takes some at that very moment, packets may be seen out of order, but
// the last change seen is always the newest. A packet is queued only while the
// newest change is Up, and a change that says nothing new is not queued. Any
// goroutine may call put and close.
type inbox struct {
	mu     sync.Mutex // held by writers only
	events chan carp.LinkEvent
	change carp.LinkEvent // the newest change
	closed bool
	notify func()
	lost   *atomic.Uint64 // counts the packets dropped
}

func newInbox(lost *atomic.Uint64) *inbox {
	return &inbox{events: make(chan carp.LinkEvent, inboxSize), lost: lost}
}

// put queues e and never blocks. After close it does nothing.
func (b *inbox) put(e carp.LinkEvent) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	if isChange(e) {
		if sameChange(e, b.change) {
			return
		}
		b.change = e
	} else if b.change.Up == nil {
		return // a frame that was read while the link went down
	}
	defer b.told()
	select {
	case b.events <- e:
		return
	default:
	}
	waiting := append(b.drain(), e)
	waiting, dropped := makeRoom(waiting, b.change)
	b.lost.Add(uint64(dropped))
	for _, e := range waiting {
		b.events <- e // there is room: only this goroutine writes
	}
}

// drain takes back all that waits.
func (b *inbox) drain() []carp.LinkEvent {
	waiting := make([]carp.LinkEvent, 0, inboxSize+1)
	for {
		select {
		case e := <-b.events:
			waiting = append(waiting, e)
		default:
			return waiting
		}
	}
}

// close closes the channel, once. What waits can still be read.
func (b *inbox) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed {
		b.closed = true
		close(b.events)
		b.told()
	}
}

// told calls what setNotify has set; the caller holds mu.
func (b *inbox) told() {
	if b.notify != nil {
		b.notify()
	}
}

func (b *inbox) setNotify(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.notify = f
}

// Notify implements carp.Link.
func (p *port) Notify(f func()) { p.inbox.setNotify(f) }

// makeRoom shortens waiting to inboxSize events: of the changes only the last
// stays, as the newest change; Lost events become one, in the place of the
// first packet that is dropped. It returns how many packets it dropped.
func makeRoom(waiting []carp.LinkEvent, newest carp.LinkEvent) ([]carp.LinkEvent, int) {
	changes, lost, packets := 0, 0, 0
	for _, e := range waiting {
		switch {
		case isChange(e):
			changes++
		case e.Packet == nil:
			lost += e.Lost
		default:
			packets++
		}
	}
	room := inboxSize - min(changes, 1)
	if lost > 0 || packets > room {
		room-- // for the Lost event
	}
	drop := max(0, packets-room)
	lost += drop

	out := victims(waiting, drop)
	kept, told := make([]carp.LinkEvent, 0, inboxSize), lost == 0
	for i, e := range waiting {
		switch {
		case isChange(e):
			if changes--; changes == 0 {
				kept = append(kept, newest)
			}
			continue
		case !told && (e.Packet == nil || out[i]):
			kept, told = append(kept, carp.LinkEvent{Lost: lost}), true
		}
		if e.Packet != nil && !out[i] {
			kept = append(kept, e)
		}
	}
	return kept, drop
}

// victims chooses so many packets to be dropped: each time the oldest of the sender
// who has most of those that are left, and of several such senders the oldest of all.
func victims(waiting []carp.LinkEvent, drop int) (out [inboxSize + 1]bool) {
	type sender struct{ oldest, packets int }
	var senders [inboxSize + 1]sender
	for range drop {
		known := senders[:0]
		for i, e := range waiting {
			if e.Packet == nil || out[i] {
				continue
			}
			at := slices.IndexFunc(known, func(s sender) bool {
				p := waiting[s.oldest].Packet
				return p.Src == e.Packet.Src && p.SrcMAC == e.Packet.SrcMAC
			})
			if at < 0 {
				at, known = len(known), append(known, sender{oldest: i})
			}
			known[at].packets++
		}
		victim := slices.MaxFunc(known, func(a, b sender) int { return a.packets - b.packets }) // of equals the first
		out[victim.oldest] = true
	}
	return out
}

func isChange(e carp.LinkEvent) bool { return e.Up != nil || e.Down }

func sameChange(a, b carp.LinkEvent) bool {
	if a.Up != nil && b.Up != nil {
		return *a.Up == *b.Up
	}
	return a.Down && b.Down
}
