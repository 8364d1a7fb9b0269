package main_test

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/carpd/carpd/cmd/daemon/api"
	"github.com/carpd/carpd/test/lab"
)

// lockServer is a database in small: who says "lock" has the one lock until it says
// "commit" or its session ends. A session that nobody ends holds it for ever.
type lockServer struct {
	t    testing.TB
	lock chan struct{}
}

func serveLock(t testing.TB, h *lab.Host) *lockServer {
	t.Helper()
	s := &lockServer{t: t, lock: make(chan struct{}, 1)}
	var l net.Listener
	var err error
	h.Do(func() { l, err = net.Listen("tcp", "[::]:3306") })
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			all.Go(func() { s.session(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range open {
			c.Close()
		}
		mu.Unlock()
		all.Wait()
	})
	return s
}

func (s *lockServer) session(c net.Conn) {
	defer c.Close()
	holds := false
	defer func() {
		if holds {
			<-s.lock
		}
	}()
	for said := bufio.NewScanner(c); said.Scan(); {
		switch said.Text() {
		case "lock":
			s.lock <- struct{}{}
			holds = true
		case "commit":
			<-s.lock
			holds = false
		}
		if _, err := fmt.Fprintln(c, "ok"); err != nil {
			return
		}
	}
}

func (s *lockServer) held() bool { return len(s.lock) > 0 }

// transaction begins one from a host by way of an address and leaves it open.
func (s *lockServer) transaction(from *lab.Host, to netip.Addr) net.Conn {
	s.t.Helper()
	var c net.Conn
	var err error
	from.Do(func() { c, err = net.DialTimeout("tcp", netip.AddrPortFrom(to, 3306).String(), soon) })
	if err == nil {
		_, err = fmt.Fprintln(c, "lock")
	}
	if err == nil {
		_ = c.SetReadDeadline(time.Now().Add(soon))
		_, err = bufio.NewReader(c).ReadString('\n')
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	return c
}

// awaitEnd waits until the client's end of a session is told that it is over.
func (s *lockServer) awaitEnd(c net.Conn, limit time.Duration) {
	s.t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(limit))
	_, err := c.Read(make([]byte, 1))
	if e, ok := err.(net.Error); err == nil || ok && e.Timeout() {
		s.t.Errorf("the client's session did not end within %v: %v", limit, err)
	}
}

// The old node's database must not go on with transactions of clients that are on the
// new one by now: their locks would block whatever comes to it by another way.
func TestTransactionsOnTheOldNodeEndWithItsMastership(t *testing.T) {
	for name, move := range map[string]func(p *pair){
		"handover": func(p *pair) { p.a.post("/v1/handover", api.NameRequest{}, nil) },
		"yield": func(p *pair) {
			p.b.post("/v1/state", api.StateRequest{State: "master"}, nil)
			p.b.await("MASTER")
		},
		"link down": func(p *pair) { p.a.SetLink(false) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			p.elect(settings{advskew: 100}, settings{}) // without preempt b waits, and is the better one
			db := serveLock(t, p.a.Host)
			theirs, own := db.transaction(p.client, shared4), netip.MustParseAddr("192.0.2.1")
			began := time.Now()
			move(p)
			lab.Eventually(t, soon, "the lock to be free", func() bool { return !db.held() })
			t.Logf("the lock was free %v after it began", time.Since(began))
			if name == "link down" {
				return // nothing leaves by that
			}
			db.awaitEnd(theirs, soon)
			db.transaction(p.client, own)
			next := serveLock(t, p.b.Host)
			lab.Eventually(t, takeover, "b to hold the address", func() bool { return p.b.HasAddr(shared6) })
			next.transaction(p.client, shared6)
		})
	}
}

func TestTransactionsOfAFrozenOrDeadDaemonEndWhenItIsBack(t *testing.T) {
	for name, back := range map[string]func(p *pair){
		"frozen": func(p *pair) { p.a.proc.Signal(syscall.SIGCONT) },
		"dead": func(p *pair) {
			p.a.proc.Kill()
			p.a.start(settings{})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			p.elect(settings{}, settings{})
			db := serveLock(t, p.a.Host)
			db.transaction(p.client, shared4)
			p.a.proc.Signal(syscall.SIGSTOP)
			p.b.await("MASTER")
			if p.a.HasAddr(shared4) {
				t.Error("the address is still there")
			}
			back(p)
			lab.Eventually(t, soon, "the lock to be free", func() bool { return !db.held() })
		})
	}
}
