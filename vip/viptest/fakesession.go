package viptest

import (
	"context"
	"net/netip"
	"slices"

	"github.com/carpd/carpd/vip"
)

// Dialer is what Conformance needs beside a vip.Kernel to see what Sever does. A
// FakeKernel is one.
type Dialer interface {
	// Session opens a session between another host and the given address of this one,
	// which is there, and returns how to ask each end whether it lives.
	Session(local netip.Addr) (here, there func() bool)
	// Listens reports whether a server that Session opened still listens.
	Listens() bool
}

// fakeSession is a TCP session with an address.
type fakeSession struct {
	local       netip.Addr
	here, there bool // the ends
}

// Session implements Dialer.
func (k *FakeKernel) Session(local netip.Addr) (here, there func() bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := &fakeSession{local, true, true}
	k.sessions = append(k.sessions, s)
	ask := func(end *bool) func() bool {
		return func() bool {
			k.mu.Lock()
			defer k.mu.Unlock()
			return *end
		}
	}
	return ask(&s.here), ask(&s.there)
}

// Listens implements Dialer.
func (k *FakeKernel) Listens() bool { return true }

// Sever implements vip.Kernel. The other end of a session is told only while this one
// has the address.
func (k *FakeKernel) Sever(ctx context.Context, index int, addrs []netip.Addr) (int, error) {
	k.mu.Lock()
	hook := k.hooks.BeforeSever
	k.mu.Unlock()
	if hook != nil {
		if err := hook(ctx, addrs); err != nil {
			return 0, err
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return 0, &vip.OpError{Op: "destroy sockets", Err: errClosed}
	}
	n := 0
	for _, s := range k.sessions {
		if !s.here || !slices.Contains(addrs, s.local) || k.elsewhere(index, s.local) {
			continue
		}
		s.here = false
		s.there = s.there && !k.has(s.local)
		n++
	}
	return n, nil
}

// elsewhere reports whether another interface has the address.
func (k *FakeKernel) elsewhere(index int, addr netip.Addr) bool {
	return slices.ContainsFunc(k.links, func(l *fakeLink) bool { return l.Index != index && l.has(addr) })
}

func (k *FakeKernel) has(addr netip.Addr) bool {
	return slices.ContainsFunc(k.links, func(l *fakeLink) bool { return l.has(addr) })
}

func (l *fakeLink) has(addr netip.Addr) bool {
	return slices.ContainsFunc(l.addrs, func(a *fakeAddr) bool { return a.prefix.Addr() == addr })
}
