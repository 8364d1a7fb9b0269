package check

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/hooks"
)

func init() { hooks.RegisterMonitor("interface", NewInterface) }

// InterfaceConfig is the configuration of kind interface.
type InterfaceConfig struct {
	Interface string       `yaml:"interface"` // its name; required
	Addresses []netip.Addr `yaml:"addresses"` // those that it must have, fit for use; none unless given
}

// Interface is unfit while an interface is absent, is down, or has no carrier, and while
// one of the addresses is not on it or cannot be used.
type Interface struct{ c InterfaceConfig }

// NewInterface checks the configuration.
func NewInterface(c InterfaceConfig) (hooks.Monitor, error) {
	var f faults
	f.add(c.Interface == "", "interface: required: the name of an interface")
	f.add(!validName(c.Interface), "interface %q: not the name of an interface: at most 15 bytes, without / and spaces", c.Interface)
	for i, a := range c.Addresses {
		f.add(a.Zone() != "", "addresses: %v: without a zone: the interface is named beside it", a)
		c.Addresses[i] = a.Unmap()
	}
	if err := f.err(); err != nil {
		return nil, err
	}
	return &Interface{c}, nil
}

func validName(s string) bool {
	return len(s) < unix.IFNAMSIZ && s != "." && s != ".." && !strings.ContainsAny(s, "/ \t\n\x00")
}

// linkState is what the kernel says of an interface.
type linkState struct {
	index     uint32
	flags     uint32
	operstate byte
	carrier   bool
}

// Operational states (RFC 2863, if_link.h).
const (
	operUnknown = 0 // of what has none, such as a dummy or a tunnel
	operUp      = 6
)

func operNames() [7]string {
	return [...]string{"unknown", "not present", "down", "lower layer down", "testing", "dormant", "up"}
}

// trouble says why nothing can be sent over the interface, or nothing.
func (l linkState) trouble() string {
	names := operNames()
	switch {
	case l.flags&unix.IFF_UP == 0:
		return "it is down"
	case !l.carrier:
		return "it has no carrier"
	case l.operstate == operUp || l.operstate == operUnknown:
		return ""
	case int(l.operstate) < len(names):
		return "its operational state is " + names[l.operstate]
	}
	return fmt.Sprintf("its operational state is %d", l.operstate)
}

// Monitor implements hooks.Monitor.
func (m *Interface) Monitor(ctx context.Context) (hooks.Report, error) {
	name := m.c.Interface
	link, err := linkOf(ctx, name)
	switch {
	case errors.Is(err, unix.ENODEV):
		return unfit("there is no interface %s", name)
	case err != nil:
		return hooks.Report{}, fmt.Errorf("interface %s: %w", name, err)
	}
	if why := link.trouble(); why != "" {
		return unfit("%s: %s", name, why)
	}
	if len(m.c.Addresses) == 0 {
		return fine("%s is up", name)
	}
	have, err := addressesOf(ctx, link.index)
	if err != nil {
		return hooks.Report{}, fmt.Errorf("addresses of %s: %w", name, err)
	}
	for _, a := range m.c.Addresses {
		usable, there := have[a]
		switch {
		case !there:
			return unfit("%v is not on %s", a, name)
		case !usable:
			return unfit("%v on %s is not fit for use: another host may have it", a, name)
		}
	}
	return fine("%s is up and has %s", name, join(m.c.Addresses))
}

func join(all []netip.Addr) string {
	var words []string
	for _, a := range all {
		words = append(words, a.String())
	}
	return strings.Join(words, ", ")
}

// Wake implements hooks.Waker.
func (m *Interface) Wake(ctx context.Context, look func()) {
	groups := uint32(unix.RTMGRP_LINK)
	if slices.ContainsFunc(m.c.Addresses, netip.Addr.Is4) {
		groups |= unix.RTMGRP_IPV4_IFADDR
	}
	if slices.ContainsFunc(m.c.Addresses, netip.Addr.Is6) {
		groups |= unix.RTMGRP_IPV6_IFADDR
	}
	if err := listen(ctx, groups, look); err != nil {
		hooks.Logger(ctx).Warn("changes of the interface are noticed in the interval only", "err", err)
	}
}

// linkOf asks the kernel for an interface by its name; ENODEV if there is none.
func linkOf(ctx context.Context, name string) (l linkState, err error) {
	body := appendAttribute(make([]byte, unix.SizeofIfInfomsg), unix.IFLA_IFNAME, append([]byte(name), 0))
	got, err := ask(ctx, unix.RTM_GETLINK, 0, body)
	if err != nil {
		return l, err
	}
	for _, m := range got {
		if m.Header.Type != unix.RTM_NEWLINK || len(m.Data) < unix.SizeofIfInfomsg {
			continue
		}
		l.index, l.flags = binary.NativeEndian.Uint32(m.Data[4:]), binary.NativeEndian.Uint32(m.Data[8:])
		all := attributes(m.Data[unix.SizeofIfInfomsg:])
		l.carrier = l.flags&unix.IFF_LOWER_UP != 0
		if state := all[unix.IFLA_OPERSTATE]; len(state) > 0 {
			l.operstate = state[0]
		}
		return l, nil
	}
	return l, errors.New("the kernel said nothing of it")
}

// addressesOf lists the addresses of an interface, and which can be used: not those that
// duplicate detection has not passed.
func addressesOf(ctx context.Context, index uint32) (map[netip.Addr]bool, error) {
	body := make([]byte, unix.SizeofIfAddrmsg)
	binary.NativeEndian.PutUint32(body[4:], index)
	got, err := ask(ctx, unix.RTM_GETADDR, unix.NLM_F_DUMP, body)
	if err != nil {
		return nil, err
	}
	usable := map[netip.Addr]bool{}
	for _, m := range got {
		if m.Header.Type != unix.RTM_NEWADDR || len(m.Data) < unix.SizeofIfAddrmsg || binary.NativeEndian.Uint32(m.Data[4:]) != index {
			continue
		}
		all := attributes(m.Data[unix.SizeofIfAddrmsg:])
		flags := uint32(m.Data[2])
		if n, ok := number(all[unix.IFA_FLAGS]); ok {
			flags = n
		}
		text := all[unix.IFA_LOCAL]
		if text == nil {
			text = all[unix.IFA_ADDRESS]
		}
		a, ok := netip.AddrFromSlice(text)
		tentative := flags&unix.IFA_F_TENTATIVE != 0 && flags&unix.IFA_F_OPTIMISTIC == 0
		if ok {
			usable[a] = flags&unix.IFA_F_DADFAILED == 0 && !tentative
		}
	}
	return usable, nil
}
