package vip_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/test/lab"
	"github.com/carpd/carpd/vip"
)

// server accepts sessions on a host, on all its addresses, and answers with a letter.
type server struct {
	testing.TB
	listener net.Listener
	accepted chan net.Conn
}

func serve(t testing.TB, h *lab.Host) *server {
	t.Helper()
	s := &server{TB: t, accepted: make(chan net.Conn, 5000)}
	var err error
	h.Do(func() { s.listener, err = net.Listen("tcp", "[::]:7") })
	if err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	done.Go(func() {
		for {
			c, err := s.listener.Accept()
			if err != nil {
				return
			}
			s.accepted <- c
		}
	})
	t.Cleanup(func() {
		s.listener.Close()
		done.Wait()
		close(s.accepted)
		for c := range s.accepted {
			c.Close()
		}
	})
	return s
}

// session opens one from a host to an address of the server.
func (s *server) session(from *lab.Host, to netip.Addr) (here, there net.Conn) {
	s.Helper()
	var err error
	from.Do(func() {
		there, err = net.DialTimeout("tcp", netip.AddrPortFrom(to, 7).String(), 3*time.Second)
	})
	if err != nil {
		s.Fatal(err)
	}
	select {
	case here = <-s.accepted:
	case <-time.After(3 * time.Second):
		s.Fatal("the server accepted nothing within 3 s")
	}
	s.Cleanup(func() { here.Close(); there.Close() })
	return here, there
}

// lives asks an end of a session without waiting.
func lives(c net.Conn) bool {
	_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
	_, err := c.Read(make([]byte, 1))
	return errors.Is(err, os.ErrDeadlineExceeded)
}

// dialer is a kernel whose host can be dialed.
type dialer struct {
	vip.Kernel
	*server
	client *lab.Host
}

func newDialer(t *testing.T, lan *lab.LAN, h *lab.Host) dialer {
	return dialer{openOn(t, h), serve(t, h), lan.Host("client", "192.0.2.100/24", "2001:db8::100/64")}
}

func (d dialer) Session(local netip.Addr) (here, there func() bool) {
	a, b := d.session(d.client, local)
	return func() bool { return lives(a) }, func() bool { return lives(b) }
}

func (d dialer) Listens() bool {
	here, there := d.session(d.client, netip.MustParseAddr("192.0.2.1"))
	return lives(here) && lives(there)
}

// sessions opens n sessions with an address, each from a port of its own.
func (s *server) sessions(from *lab.Host, to netip.Addr, n int) (here, there []net.Conn) {
	s.Helper()
	for range n {
		a, b := s.session(from, to)
		here, there = append(here, a), append(there, b)
	}
	return here, there
}

func TestLabSessionsEndBeforeTheirAddressGoes(t *testing.T) {
	for name, end := range map[string]func(n *node){
		"planned": func(n *node) {
			if err := n.set.Down(context.Background()); err != nil {
				n.Errorf("Down: %v", err)
			}
		},
		"yield": func(n *node) { n.set.Permit(carp.Permit{}) },
		"lapse": func(*node) {}, // the permit of up ends by itself
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lan := lab.New(t)
			h, client := lan.Host("a", "192.0.2.1/24", "2001:db8::1/64"), lan.Host("client", "192.0.2.100/24", "2001:db8::100/64")
			n := newNode(t, h, vip.Config{Addresses: prefixesOf("192.0.2.9/24", "2001:db8::9/64")})
			s := serve(t, h)
			n.up(time.Second)
			own, _ := s.session(client, netip.MustParseAddr("192.0.2.1"))
			here4, there4 := s.session(client, netip.MustParseAddr("192.0.2.9"))
			here6, there6 := s.session(client, netip.MustParseAddr("2001:db8::9"))
			end(n)
			for what, c := range map[string]net.Conn{"the node's end, IPv4": here4, "the client's, IPv4": there4, "the node's, IPv6": here6, "the client's, IPv6": there6} {
				lab.Eventually(t, 3*time.Second, what+" to end", func() bool { return !lives(c) })
			}
			lab.Eventually(t, time.Second, "the addresses to be gone", func() bool { return !n.has("192.0.2.9/32") && !n.has("2001:db8::9/128") })
			if !lives(own) {
				t.Error("a session with the node's own address was ended")
			}
			if !n.heard(vip.EventSevered) {
				t.Error("no event tells that sessions were ended")
			}
		})
	}
}

// A daemon that was killed leaves sessions behind, and the lease only takes the address.
func TestLabSessionsThatADeadDaemonLeftEndWithTheNext(t *testing.T) {
	t.Parallel()
	lan := lab.New(t)
	h, client := lan.Host("a", "192.0.2.1/24"), lan.Host("client", "192.0.2.100/24")
	s := serve(t, h)
	h.Run("ip", "addr", "add", "192.0.2.9/32", "dev", "eth0")
	h.Run("ip", "addr", "add", "192.0.2.10/32", "dev", "lo")
	gone, _ := s.session(client, netip.MustParseAddr("192.0.2.9"))
	stays, _ := s.session(client, netip.MustParseAddr("192.0.2.10"))
	h.Run("ip", "addr", "del", "192.0.2.9/32", "dev", "eth0")
	newNode(t, h, vip.Config{Addresses: prefixesOf("192.0.2.9/24", "192.0.2.10/24")})
	lab.Eventually(t, 3*time.Second, "the session to end", func() bool { return !lives(gone) })
	if !lives(stays) {
		t.Error("a session with an address that the loopback interface has (as a real server has it) was ended")
	}
}

// Thousands of sessions do not keep the address on: what is left of them ends after it.
func TestLabAddressesGoInTimeWhateverHoldsThem(t *testing.T) {
	if testing.Short() {
		t.Skip("takes long, and a machine that is not too busy")
	}
	const n = 2000
	lan := lab.New(t)
	h, client := lan.Host("a", "192.0.2.1/24"), lan.Host("client", "192.0.2.100/24")
	node := newNode(t, h, vip.Config{Addresses: prefixesOf("192.0.2.9/24")})
	s := serve(t, h)
	node.up(time.Minute)
	here, _ := s.sessions(client, netip.MustParseAddr("192.0.2.9"), n)
	began := time.Now()
	if err := node.set.Down(context.Background()); err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	lab.Eventually(t, 10*time.Second, "all sessions to end", func() bool {
		for _, c := range here {
			if lives(c) {
				return false
			}
		}
		return true
	})
	t.Logf("%d sessions: down in %v", n, took)
	if took > time.Second { // 100 ms before, 20 ms after, and a machine with other work
		t.Errorf("Down took %v", took)
	}
}

// BenchmarkSever is what it costs to look for the sockets of 1000 addresses when there
// are none, and to destroy 1000.
func BenchmarkSever(b *testing.B) {
	for _, n := range []int{0, 1000} {
		b.Run(fmt.Sprintf("sessions=%d", n), func(b *testing.B) {
			lan := lab.New(b)
			h, client := lan.Host("a", "192.0.2.1/24", "192.0.2.9/24"), lan.Host("client", "192.0.2.100/24")
			k, s := openOn(b, h), serve(b, h)
			l, err := k.Link("eth0")
			if err != nil {
				b.Fatal(err)
			}
			addrs := []netip.Addr{netip.MustParseAddr("192.0.2.9")}
			for _, p := range many(999, false) {
				addrs = append(addrs, p.Addr())
			}
			for b.Loop() {
				b.StopTimer()
				here, there := s.sessions(client, addrs[0], n)
				b.StartTimer()
				got, err := k.Sever(context.Background(), l.Index, addrs)
				b.StopTimer()
				for i := range here {
					here[i].Close()
					there[i].Close()
				}
				b.StartTimer()
				if err != nil || got != n {
					b.Fatalf("%d sockets, %v", got, err)
				}
			}
		})
	}
}
