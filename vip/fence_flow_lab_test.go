package vip_test

import (
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/test/lab"
)

// flow counts what arrives at one end of a connection.
type flow struct {
	mu   sync.Mutex
	n    int
	last time.Time
}

func (f *flow) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.n
}

func (f *flow) lastAt() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last
}

func (f *flow) read(c net.Conn) {
	for buf := make([]byte, 64); ; {
		if _, err := c.Read(buf); err != nil {
			return
		}
		f.mu.Lock()
		f.n, f.last = f.n+1, time.Now()
		f.mu.Unlock()
	}
}

// write writes a byte each millisecond, 20 s at most.
func write(c net.Conn) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for range 20_000 {
		<-tick.C
		if _, err := c.Write([]byte(".")); err != nil {
			return
		}
	}
}

// stream opens a TCP connection from a client to a host's address on which both ends
// write without waiting for each other, and returns what arrives at each.
func stream(t testing.TB, server, client *lab.Host, addr string) (up, down *flow) {
	t.Helper()
	var l net.Listener
	err := server.DoErr(func() (err error) { l, err = net.Listen("tcp", at(addr, 7).String()); return err })
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var out, in net.Conn
	err = client.DoErr(func() (err error) { out, err = net.DialTimeout("tcp", at(addr, 7).String(), 2*time.Second); return err })
	if err == nil {
		in, err = l.Accept()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close(); in.Close() })
	up, down = &flow{}, &flow{}
	go up.read(in)
	go down.read(out)
	go write(in)
	go write(out)
	return up, down
}

// withoutNetAdmin calls f on the calling thread, which is locked, without CAP_NET_ADMIN.
func withoutNetAdmin(f func() error) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var was [2]unix.CapUserData
	if err := unix.Capget(&header, &was[0]); err != nil {
		return err
	}
	is := was
	is[0].Effective &^= 1 << unix.CAP_NET_ADMIN
	if err := unix.Capset(&header, &is[0]); err != nil {
		return err
	}
	defer func() { _ = unix.Capset(&header, &was[0]) }()
	return f()
}
