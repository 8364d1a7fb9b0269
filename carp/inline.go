package carp

// Inline is implemented by a Link whose packets are read by a Waiter, in the
// goroutine of the loop: no queue is between the socket and the engine then, none
// that a flood could fill, and no other thread has to be scheduled.
type Inline interface {
	// Inline has f called for each packet, during Wait and Read of w and during
	// Poll, instead of putting it into Events; nil ends that. The packet is valid
	// during the call. It reports false and does nothing if w does not read for this
	// link.
	Inline(w Waiter, f func(*Packet)) bool
}

// PacketReader is implemented by a Waiter that reads packets. Read hands on what
// has arrived, as Wait does, and never waits. Both take a bounded number of packets
// at a time: the rest waits in the kernel, and timers that are due come before it.
type PacketReader interface {
	Read()
}

// inline has the packets of s handed to its engine by the waiter, if it reads them.
func (l *Loop) inline(s *Speaker) {
	for i, link := range s.links() {
		if link, ok := link.(Inline); ok {
			link.Inline(l.waiter, func(p *Packet) { l.hear(s, uint8(i), p) })
		}
	}
}

// hear gives a packet of one of its links to the engine of s. It is called in the loop's goroutine, by
// what waits for it.
func (l *Loop) hear(s *Speaker, link uint8, p *Packet) {
	if s.left {
		return
	}
	s.event(link, LinkEvent{Packet: p})
	if s.over() {
		l.wake(s)
		return
	}
	l.schedule(s, s.deadline)
}

// read takes packets that have arrived while the loop has no time to wait. The
// caller holds mu.
func (l *Loop) read() {
	if r, ok := l.waiter.(PacketReader); ok {
		l.mu.Unlock()
		r.Read()
		l.mu.Lock()
	}
}
