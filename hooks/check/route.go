package check

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/hooks"
)

func init() { hooks.RegisterMonitor("route", NewRoute) }

// RouteConfig is the configuration of kind route.
type RouteConfig struct {
	// Destination is an address, which the kernel is asked how to reach, as `ip route
	// get` does; or a prefix, whose own route must be there. 0.0.0.0/0 and ::/0 are the
	// default routes. Required.
	Destination string     `yaml:"destination"`
	Gateway     netip.Addr `yaml:"gateway"`   // through this gateway; any unless given
	Interface   string     `yaml:"interface"` // over this interface; any unless given
	Table       uint32     `yaml:"table"`     // for a prefix: where it is; 0 is main
}

// Route is unfit while there is no route to a destination, or not that one.
type Route struct {
	c      RouteConfig
	prefix netip.Prefix // valid if a prefix is wanted
	host   netip.Addr
}

// NewRoute checks the configuration.
func NewRoute(c RouteConfig) (hooks.Monitor, error) {
	var f faults
	m := &Route{c: c}
	if m.c.Table == 0 {
		m.c.Table = unix.RT_TABLE_MAIN
	}
	p, prefixFault := netip.ParsePrefix(c.Destination)
	a, addrFault := netip.ParseAddr(c.Destination)
	switch {
	case c.Destination == "":
		f.add(true, "destination: required: an address, or a prefix such as 0.0.0.0/0")
	case prefixFault == nil:
		m.prefix, m.host = p.Masked(), p.Addr()
		f.add(p.Masked() != p, "destination %v: it has bits behind its mask: write %v", p, p.Masked())
	case addrFault == nil:
		m.host = a
		f.add(a.Zone() != "", "destination %v: without a zone: name the interface beside it", a)
		f.add(c.Table != 0, "table: only for a prefix: for an address the kernel follows its own rules")
	default:
		f.add(true, "destination %q: neither an address nor a prefix", c.Destination)
	}
	f.add(c.Gateway.IsValid() && m.host.IsValid() && c.Gateway.Is4() && !m.host.Is4(), "gateway %v: not of the family of %s", c.Gateway, c.Destination)
	f.add(c.Gateway.Zone() != "", "gateway %v: without a zone: name the interface beside it", c.Gateway)
	f.add(!validName(c.Interface), "interface %q: not the name of an interface: at most 15 bytes, without / and spaces", c.Interface)
	if err := f.err(); err != nil {
		return nil, err
	}
	return m, nil
}

// hop is one way that a route takes.
type hop struct {
	gateway netip.Addr
	index   uint32
	dead    bool // its interface is down or has no carrier
}

// foundRoute is a route as the kernel tells it.
type foundRoute struct {
	kind uint8 // RTN_UNICAST and so on
	to   netip.Prefix
	hops []hop
}

// Monitor implements hooks.Monitor.
func (m *Route) Monitor(ctx context.Context) (hooks.Report, error) {
	var index uint32
	if m.c.Interface != "" {
		link, err := linkOf(ctx, m.c.Interface)
		switch {
		case errors.Is(err, unix.ENODEV):
			return unfit("there is no interface %s", m.c.Interface)
		case err != nil:
			return hooks.Report{}, fmt.Errorf("interface %s: %w", m.c.Interface, err)
		}
		index = link.index
	}
	routes, err := m.routes(ctx)
	if err != nil {
		return hooks.Report{}, fmt.Errorf("route to %s: %w", m.c.Destination, err)
	}
	why := fmt.Sprintf("there is no route to %s", m.c.Destination)
	for _, r := range routes {
		if why = r.trouble(&m.c, index); why == "" {
			return fine("there is a route to %s%s", m.c.Destination, m.way())
		}
	}
	return unfit("%s", why)
}

// way names what the route must go through.
func (m *Route) way() (text string) {
	if m.c.Gateway.IsValid() {
		text += " through " + m.c.Gateway.String()
	}
	if m.c.Interface != "" {
		text += " over " + m.c.Interface
	}
	return text
}

// trouble says why a route is not the wanted one, or nothing. index is that of the
// wanted interface, or 0.
func (r *foundRoute) trouble(c *RouteConfig, index uint32) string {
	switch r.kind {
	case unix.RTN_UNICAST, unix.RTN_LOCAL:
	default:
		return fmt.Sprintf("the route to %s is one that refuses (type %d)", c.Destination, r.kind)
	}
	right, dead := false, false
	for _, h := range r.hops {
		switch {
		case c.Gateway.IsValid() && h.gateway != c.Gateway || index != 0 && h.index != index:
		case h.dead:
			dead = true
		default:
			right = true
		}
	}
	switch {
	case right:
		return ""
	case dead:
		return fmt.Sprintf("the interface of the route to %s is down or has no carrier", c.Destination)
	}
	return fmt.Sprintf("the route to %s goes another way", c.Destination)
}

// routes returns those that may be the wanted one.
func (m *Route) routes(ctx context.Context) (found []foundRoute, err error) {
	body, flags := make([]byte, unix.SizeofRtMsg), uint16(unix.NLM_F_DUMP)
	body[0] = unix.AF_INET6
	if m.host.Is4() {
		body[0] = unix.AF_INET
	}
	if m.prefix.IsValid() {
		body = appendAttribute(body, unix.RTA_TABLE, binary.NativeEndian.AppendUint32(nil, m.c.Table))
	} else {
		body[1], flags = byte(m.host.BitLen()), 0
		body = appendAttribute(body, unix.RTA_DST, m.host.AsSlice())
	}
	got, err := ask(ctx, unix.RTM_GETROUTE, flags, body)
	switch {
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.EACCES), errors.Is(err, unix.EINVAL):
		return nil, nil // none, or one that refuses: unreachable, prohibit, blackhole
	case errors.Is(err, unix.ENOENT) && m.prefix.IsValid():
		return nil, nil // there is no such table
	case err != nil:
		return nil, err
	}
	for _, msg := range got {
		if msg.Header.Type != unix.RTM_NEWROUTE || len(msg.Data) < unix.SizeofRtMsg || msg.Data[0] != body[0] {
			continue
		}
		if r, table := parseRoute(msg.Data); !m.prefix.IsValid() || r.to == m.prefix && table == m.c.Table {
			found = append(found, r)
		}
	}
	return found, nil
}

// parseRoute reads a message of type RTM_NEWROUTE, which is at least its fixed part.
func parseRoute(b []byte) (r foundRoute, table uint32) {
	all := attributes(b[unix.SizeofRtMsg:])
	r.kind, table = b[7], uint32(b[4])
	if n, ok := number(all[unix.RTA_TABLE]); ok {
		table = n
	}
	to, ok := netip.AddrFromSlice(all[unix.RTA_DST])
	if !ok {
		to = netip.IPv6Unspecified()
		if b[0] == unix.AF_INET {
			to = netip.IPv4Unspecified()
		}
	}
	r.to = netip.PrefixFrom(to, int(b[1]))
	flags := binary.NativeEndian.Uint32(b[8:])
	if index, ok := number(all[unix.RTA_OIF]); ok {
		r.hops = append(r.hops, hop{gatewayOf(all), index, flags&(unix.RTNH_F_DEAD|unix.RTNH_F_LINKDOWN) != 0})
	}
	for b := all[unix.RTA_MULTIPATH]; len(b) >= unix.SizeofRtNexthop; {
		length := int(binary.NativeEndian.Uint16(b))
		if length < unix.SizeofRtNexthop || length > len(b) {
			break
		}
		within := attributes(b[unix.SizeofRtNexthop:length])
		r.hops = append(r.hops, hop{gatewayOf(within), binary.NativeEndian.Uint32(b[4:]), b[2]&(unix.RTNH_F_DEAD|unix.RTNH_F_LINKDOWN) != 0})
		b = b[min((length+3)&^3, len(b)):]
	}
	return r, table
}

// gatewayOf returns the gateway, which for IPv4 may be one of IPv6 (RFC 8950).
func gatewayOf(all map[uint16][]byte) netip.Addr {
	if a, ok := netip.AddrFromSlice(all[unix.RTA_GATEWAY]); ok {
		return a
	}
	if via := all[unix.RTA_VIA]; len(via) > 2 {
		a, _ := netip.AddrFromSlice(via[2:])
		return a
	}
	return netip.Addr{}
}

// Wake implements hooks.Waker.
func (m *Route) Wake(ctx context.Context, look func()) {
	groups := uint32(unix.RTMGRP_LINK | unix.RTMGRP_IPV6_ROUTE)
	if m.host.Is4() {
		groups = unix.RTMGRP_LINK | unix.RTMGRP_IPV4_ROUTE
	}
	if err := listen(ctx, groups, look); err != nil {
		hooks.Logger(ctx).Warn("changes of routes are noticed in the interval only", "err", err)
	}
}
