package viptest

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/carpd/carpd/vip"
)

// dial opens sessions with addresses that it puts on first; it skips the test if the
// kernel under test is no Dialer.
func (s suite) dial(prefixes ...string) (here, there []func() bool) {
	s.Helper()
	d, ok := s.k.(Dialer)
	if !ok {
		s.Skip("the kernel under test cannot open sessions")
	}
	s.apply(s.put(vip.Forever, prefixes...))
	for _, p := range prefixes {
		h, t := d.Session(netip.MustParsePrefix(p).Addr())
		here, there = append(here, h), append(there, t)
	}
	return here, there
}

func (s suite) sever(index int, addrs ...string) int {
	s.Helper()
	var list []netip.Addr
	for _, a := range addrs {
		list = append(list, netip.MustParseAddr(a))
	}
	n, err := s.k.Sever(context.Background(), index, list)
	if err != nil {
		s.Fatalf("Sever: %v", err)
	}
	return n
}

// lives checks an end: it lives, or is dead within a second.
func (s suite) lives(what string, want bool, ask func() bool) {
	s.Helper()
	if want && !ask() {
		s.Errorf("%s is dead", what)
	}
	if !want {
		eventually(s.T, time.Second, what+" to be dead", func() bool { return !ask() })
	}
}

func testSever(s suite) {
	here, there := s.dial("192.0.2.9/32", "2001:db8::9/128", "192.0.2.10/32")
	if n := s.sever(s.link.Index, "192.0.2.9", "2001:db8::9"); n != 2 {
		s.Errorf("%d sockets were destroyed, want 2", n)
	}
	for i, lives := range []bool{false, false, true} {
		s.lives("a session here", lives, here[i])
		s.lives("the other end", lives, there[i])
	}
	if !s.k.(Dialer).Listens() {
		s.Error("a listener was destroyed")
	}
	if n := s.sever(s.link.Index, "192.0.2.9", "2001:db8::9"); n != 0 {
		s.Errorf("%d sockets were destroyed the second time, want 0", n)
	}
}

func testSeverAfterwards(s suite) {
	here, there := s.dial("192.0.2.9/32")
	s.apply(s.remove("192.0.2.9/32"))
	s.lives("a session without its address", true, here[0])
	if n := s.sever(s.link.Index, "192.0.2.9"); n != 1 {
		s.Errorf("%d sockets were destroyed, want 1", n)
	}
	s.lives("a session here", false, here[0])
	s.lives("the other end, which cannot be told any more,", true, there[0])
}

func testSeverSpares(s suite) {
	here, _ := s.dial("192.0.2.9/32")
	for _, index := range []int{0, 987654} { // it is on another interface than that
		if n := s.sever(index, "192.0.2.9"); n != 0 {
			s.Errorf("index %d: %d sockets of an address that stays were destroyed", index, n)
		}
	}
	s.lives("a session here", true, here[0])
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.k.Sever(ctx, s.link.Index, nil); err != nil && !errors.Is(err, context.Canceled) {
		s.Errorf("Sever after the end of its context: %v", err)
	}
}
