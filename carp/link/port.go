package link

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/carp"
)

// SourceMAC says which Ethernet source adverts to a group have.
type SourceMAC uint8

// The choices of SourceMAC.
const (
	// Usual is what others of the protocol do: Virtual for CARP, as FreeBSD and
	// OpenBSD; InterfaceMAC for VRRP, as keepalived. It is the zero value.
	Usual SourceMAC = iota
	// Virtual is carp.VirtualMACOf, so that switches learn where the virtual MAC is
	// (RFC 9568, 7.3).
	Virtual
	// InterfaceMAC is the interface's own, for networks that tie ports to one MAC.
	InterfaceMAC
)

// What PortConfig.TOS is if it is zero.
const (
	DefaultTOS     = 0x10 // CARP: "low delay", which OpenBSD, NetBSD and ucarp send
	DefaultVRRPTOS = 0xc0 // VRRP: "internetwork control", which keepalived and FRR send
)

// PortConfig is what one virtual router wants of an interface.
type PortConfig struct {
	Protocol carp.Protocol
	// Family is the one family of VRRP: the port gets packets of no other, and of
	// IPv4 and IPv6 only its group counts. CARP has both families whatever it is.
	Family    carp.Family
	VHID      uint8        // 1 to 255; the VRID of VRRP
	Peers     []netip.Addr // unicast peers; only their families matter here
	SourceMAC SourceMAC    // of adverts to a group
	TOS       uint8        // TOS byte or traffic class; 0 means DefaultTOS or DefaultVRRPTOS
	IPv4      bool         // be a member of 224.0.0.18
	IPv6      bool         // be a member of ff02::12
	// Avoid lists addresses that adverts should not be sent from: the virtual
	// addresses. What any port of the interface avoids, all avoid; an avoided
	// address is used if the interface has no other, as in FreeBSD. The owner of
	// the addresses (priority 255) lists none: they are its own.
	Avoid []netip.Addr
}

// Kind returns the kind of virtual router that c is for.
func (c *PortConfig) Kind() Kind { return KindOf(c.Protocol, c.Family) }

// check returns why there can be no such port, and what to do about it.
func (c *PortConfig) check() (hint string, err error) {
	switch {
	case c.VHID == 0:
		return "use 1 to 255", fmt.Errorf("%s 0 is not allowed", c.Kind().word())
	case c.Protocol > carp.VRRP3:
		return "", fmt.Errorf("there is no such protocol: %v", c.Protocol)
	case c.Family > carp.IPv6:
		return "", fmt.Errorf("there is no such family: %v", c.Family)
	case c.Protocol == carp.VRRP2 && c.Family == carp.IPv6:
		return "use vrrp3 for IPv6", errors.New("version 2 of VRRP knows IPv4 only")
	}
	return "", nil
}

// withDefaults returns c with what its zero values stand for.
func (c PortConfig) withDefaults() PortConfig {
	vrrp := c.Protocol.VRRP()
	if c.TOS == 0 {
		c.TOS = DefaultTOS
		if vrrp {
			c.TOS = DefaultVRRPTOS
		}
	}
	if c.SourceMAC == Usual {
		c.SourceMAC = Virtual
		if vrrp {
			c.SourceMAC = InterfaceMAC
		}
	}
	c.Avoid = slices.Clone(c.Avoid)
	return c
}

// needs reports whether the port wants the group of family.
func (c *PortConfig) needs(family carp.Family) bool {
	switch {
	case c.Protocol.VRRP() && family != c.Family:
		return false
	case family == carp.IPv4:
		return c.IPv4
	}
	return c.IPv6
}

// port is one virtual router's carp.Link.
type port struct {
	i      *Interface
	config PortConfig // Avoid is guarded by Interface.mu
	inbox  *inbox
	claim  int // descriptor of the claim
	inline atomic.Pointer[func(*carp.Packet)]

	mu     sync.Mutex // guards what follows
	raw    unicast
	closed bool
}

// slot is where the interface keeps the port.
func (p *port) slot() *atomic.Pointer[port] { return &p.i.ports[p.config.VHID][p.config.Kind()] }

// object is what the port is called in messages.
func (p *port) object() string { return object(p.config.Kind(), p.config.VHID, p.i.name) }

// Now implements carp.Link by CLOCK_BOOTTIME.
func (p *port) Now() carp.Instant { return Now() }

// Events implements carp.Link.
func (p *port) Events() <-chan carp.LinkEvent { return p.inbox.events }

// Poll implements carp.Poller for the ports of an interface all at once.
func (p *port) Poll() (more bool) {
	_, more, _ = p.i.wire.take(1) // an error comes again where the socket is read next
	return more
}

// Inline implements carp.Inline.
func (p *port) Inline(w carp.Waiter, f func(*carp.Packet)) bool {
	if mine, ok := w.(*Waiter); !ok || mine == nil || mine != p.i.waiter {
		return false
	}
	if f == nil {
		p.inline.Store(nil)
	} else {
		p.inline.Store(&f)
	}
	return true
}

// deliver hands on a packet that is valid during the call.
func (p *port) deliver(packet *carp.Packet) {
	if f := p.inline.Load(); f != nil {
		(*f)(packet)
		return
	}
	p.inbox.put(carp.LinkEvent{Packet: newPacket(packet)})
}

// Send implements carp.Link. While the interface is down or absent it returns
// ErrDown, after Close ErrClosed, both wrapped. Any goroutine may call it.
func (p *port) Send(f carp.Frame) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	err := p.send(f)
	if err == nil {
		return nil
	}
	return &OpError{Op: "send", Object: p.object(), Err: err, Hint: sendHint(err)}
}

func (p *port) send(f carp.Frame) error {
	s := p.i.state.Load()
	switch {
	case p.closed:
		return ErrClosed
	case !s.up:
		return ErrDown
	case !f.Dst.IsMulticast():
		return p.raw.send(s, f)
	}
	return p.i.wire.send(s, p.sourceMAC(s), f, p.config.TOS)
}

// sourceMAC is the Ethernet source of adverts to a group.
func (p *port) sourceMAC(s *state) carp.MAC {
	if p.config.SourceMAC == InterfaceMAC {
		return s.mac
	}
	return carp.VirtualMACOf(p.config.Protocol, p.config.Family, p.config.VHID)
}

func sendHint(err error) string {
	switch {
	case errors.Is(err, unix.EPERM):
		return "a firewall on this node refuses protocol 112: let it out"
	case errors.Is(err, errNoSource):
		return "give the interface an address of its own of the peer's family"
	}
	return ""
}

// Close implements carp.Link: it gives the id up and closes Events.
func (p *port) Close() error {
	p.i.mu.Lock()
	defer p.i.mu.Unlock()
	p.close()
	return nil
}

// close does the work of Close; the caller holds Interface.mu.
func (p *port) close() {
	p.mu.Lock()
	closed := p.closed
	p.closed = true
	p.mu.Unlock()
	if closed {
		return
	}
	p.slot().Store(nil)
	p.i.shun(p.config.Avoid, -1)
	p.inbox.close()
	p.raw.close()
	unix.Close(p.claim)
	p.i.republish()
}
