package link

import (
	"errors"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/carp"
)

// SourceMAC says which Ethernet source adverts to a group have.
type SourceMAC uint8

// The choices of SourceMAC.
const (
	// Virtual is 00:00:5e:00:01:VHID, so that switches learn where the virtual
	// MAC is, as FreeBSD and OpenBSD send it. It is the zero value.
	Virtual SourceMAC = iota
	// InterfaceMAC is the interface's own, for networks that tie ports to one MAC.
	InterfaceMAC
)

// DefaultTOS is "low delay", which OpenBSD, NetBSD and ucarp send.
const DefaultTOS = 0x10

// PortConfig is what one vhid wants of an interface.
type PortConfig struct {
	VHID      uint8        // 1 to 255
	Peers     []netip.Addr // unicast peers; only their families matter here
	SourceMAC SourceMAC    // of adverts to a group
	TOS       uint8        // TOS byte or traffic class; 0 means DefaultTOS
	IPv4      bool         // be a member of 224.0.0.18
	IPv6      bool         // be a member of ff02::12
	// Avoid lists addresses that adverts should not be sent from: the virtual
	// addresses of the vhid. What any port of the interface avoids, all avoid; an
	// avoided address is used if the interface has no other, as in FreeBSD.
	Avoid []netip.Addr
}

// needs reports whether the port wants the group of family.
func (c *PortConfig) needs(family carp.Family) bool {
	if family == carp.IPv4 {
		return c.IPv4
	}
	return c.IPv6
}

// port is one vhid's carp.Link.
type port struct {
	i      *Interface
	config PortConfig // Avoid is guarded by Interface.mu
	inbox  *inbox
	claim  int // descriptor of the claim

	mu     sync.Mutex // guards what follows
	raw    unicast
	closed bool
}

// Now implements carp.Link by CLOCK_BOOTTIME.
func (p *port) Now() carp.Instant { return Now() }

// Events implements carp.Link.
func (p *port) Events() <-chan carp.LinkEvent { return p.inbox.events }

// Send implements carp.Link. While the interface is down or absent it returns
// ErrDown, after Close ErrClosed, both wrapped. Any goroutine may call it.
func (p *port) Send(f carp.Frame) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	err := p.send(f)
	if err == nil {
		return nil
	}
	return &OpError{Op: "send", Object: object(p.config.VHID, p.i.name), Err: err, Hint: sendHint(err)}
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
	case p.config.SourceMAC == InterfaceMAC:
		return p.i.wire.send(s, s.mac, f, p.config.TOS)
	}
	return p.i.wire.send(s, carp.VirtualMAC(p.config.VHID), f, p.config.TOS)
}

func sendHint(err error) string {
	if errors.Is(err, unix.EPERM) {
		return "a firewall on this node refuses protocol 112: let it out"
	}
	return ""
}

// Close implements carp.Link: it gives the vhid up and closes Events.
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
	p.i.ports[p.config.VHID].Store(nil)
	p.i.shun(p.config.Avoid, -1)
	p.inbox.close()
	p.raw.close()
	unix.Close(p.claim)
	p.i.republish()
}
