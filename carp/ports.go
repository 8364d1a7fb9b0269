package carp

import (
	"context"
	"errors"
	"net/netip"
)

// Family is an address family.
type Family uint8

// The families.
const (
	IPv4 Family = iota
	IPv6
)

func (f Family) String() string { return name([]string{"IPv4", "IPv6"}, int(f), "Family") }

// FamilyOf returns the family of a.
func FamilyOf(a netip.Addr) Family {
	if a.Is4() || a.Is4In6() {
		return IPv4
	}
	return IPv6
}

// MAC is an Ethernet address.
type MAC [6]byte

// VirtualMAC returns 00:00:5e:00:01:VHID, which CARP uses for both families
// (FreeBSD carp_alloc, OpenBSD carp_set_enaddr).
func VirtualMAC(vhid uint8) MAC { return MAC{0, 0, 0x5e, 0, 1, vhid} }

// Frame is an advert to be sent. Payload is what follows the IP header; it is
// valid until the next call to the engine. The link chooses source address,
// source MAC and headers: TTL 255, DF, and TOS 0x10 for CARP, 0xc0 for VRRP. It
// calls Finish before it sends.
type Frame struct {
	VHID    uint8
	Path    uint8      // 0: the primary one; n: Config.Paths[n-1], which names the link
	Dst     netip.Addr // 224.0.0.18, ff02::12, or a unicast peer
	Payload []byte
	// Pseudo says that the checksum covers the addresses of the IP header, which
	// only the link knows: VRRP version 3.
	Pseudo bool
}

// Finish sets the checksum where it depends on the source address that the link
// has chosen. The payload is changed in place, and may be that of other frames too:
// each is finished right before it is sent.
func (f *Frame) Finish(src netip.Addr) {
	if f.Pseudo {
		putVRRPSum(f.Payload, vrrpPseudoSum(src, f.Dst, len(f.Payload)))
	}
}

// Packet is a received packet of IP protocol 112, without its link and IP
// headers. The receiver owns Payload.
type Packet struct {
	Src, Dst  netip.Addr // without zone
	Link      uint8      // which of the speaker's links it came over; 0 is the client side's
	SrcMAC    MAC        // zero where the link does not know it
	TTL       uint8      // TTL or hop limit
	Payload   []byte
	Broadcast bool    // the frame was sent to the broadcast address or a group
	AH        bool    // the payload was behind an authentication header (RFC 2402), which nobody has checked
	At        Instant // when the kernel got it; zero if unknown

	sender netip.Addr // where Src has become the name of a node with several paths: what it was
}

// Local is what a link knows of the node's own side: the addresses that adverts
// are sent from and the interface's MAC. A family without an address is the
// zero netip.Addr.
type Local struct {
	IPv4, IPv6 netip.Addr
	MAC        MAC
}

// LinkEvent is one thing that happened on a link: a packet, or a change. Exactly
// one of the fields is set.
type LinkEvent struct {
	Packet *Packet
	Up     *Local // the link carries adverts from now on, or its addresses changed
	Down   bool   // the link carries nothing from now on
	Lost   int    // this many events were dropped because the inbox was full
}

// Link carries the adverts of one vhid on one interface. A Speaker owns its link
// and calls it from one goroutine, but for Notify and Close, which any may call.
type Link interface {
	// Now reads the clock that stamps the packets.
	Now() Instant
	// Send sends one frame and must not block. The payload is not kept.
	Send(Frame) error
	// Events delivers packets and changes in order. The first event says whether
	// the link is up. The channel is closed by Close. It is bounded (64): when it
	// is full the oldest packet is dropped and counted in a Lost event; changes
	// are never dropped. While it overflows, packets may change places.
	Events() <-chan LinkEvent
	// Notify sets what is called after each event that was put into Events, and
	// after its close; nil means nothing. It may be called while the link is used,
	// and does not tell of events that wait already. f is called by any goroutine,
	// with locks held: it must return at once and not call the link.
	Notify(f func())
	// Close releases the link; calling it twice is harmless.
	Close() error
}

// Poller is implemented by a Link that keeps packets in a socket until they are
// read. Poll puts into Events some of what has been received already, no more than
// half of what Events has room for, and reports whether more may be there; it must
// not block. The loop calls it before it takes a master for dead.
type Poller interface {
	Poll() (more bool)
}

// Handler carries out transitions: it takes addresses on and off and runs hooks.
//
// Handle is called by one goroutine at a time. If a newer transition arrives
// while it runs, ctx is cancelled and Handle is called again with the newest
// one; those in between are skipped (an Observer sees all of them). It must be
// idempotent.
//
// For a transition to MASTER, an error means that the node cannot serve: the
// handler has undone what it did, and the engine leaves the role. What wraps ErrHeld
// could not be undone in all: the role is left by RELEASING. With From and
// To both MASTER the mastership was contested: the handler announces again. For
// a transition away from MASTER, the handler calls Speaker.Released as soon as
// the addresses (and, for RELEASING, the resources) are gone; a return without
// that counts as Released with the returned error. RELEASING is followed by a
// transition to BACKUP or INIT, which finds nothing left to do.
type Handler interface {
	Handle(ctx context.Context, t Transition) error
}

// ErrHeld is wrapped by the error of a Handler for a transition to MASTER that has not
// let go of all that it took: nobody is to be called in by a bow-out yet.
var ErrHeld = errors.New("carp: something of the role is still held")

// HandlerFunc makes a Handler of a function.
type HandlerFunc func(ctx context.Context, t Transition) error

// Handle calls f.
func (f HandlerFunc) Handle(ctx context.Context, t Transition) error { return f(ctx, t) }

// PermitHolder is implemented by a Handler that acts under permits. Permit and
// Announce are called by the speaker's loop and must return at once.
type PermitHolder interface {
	// Permit hands over a new permit, or the zero Permit: stop acting as master.
	Permit(Permit)
	// Announce asks for another round of gratuitous ARP and NA.
	Announce()
}

// Guard is a third vote: it is asked before a node that was elected takes its
// addresses. Ask may block until ctx ends; an error is a refusal.
type Guard interface {
	Ask(ctx context.Context, e Epoch) error
}
