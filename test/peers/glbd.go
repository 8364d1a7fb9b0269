package peers

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/carpd/carpd/test/lab"
)

// GLBD is a stand-in for glbd, the daemon of the Galera load balancer, which no
// distribution has: it forwards TCP connections to the destination with the least use,
// and has the control protocol with its quirks, as far as they are visible:
//
//   - one read is one command, whatever is in it; case and what follows do not matter;
//   - whatever is neither getinfo nor getstat is tried as a destination, and an Error;
//   - getstat resets the counters, for everybody;
//   - a destination that is deleted is gone from the table at once; its connections may
//     go on (KeepsDeleted), and are never taken off the total then;
//   - there are no control connections beyond 32;
//   - a reply to somebody who has hung up is the end of it (it does not handle SIGPIPE);
//   - destinations are in memory: started again it knows its command line.
//
// It is a thread of the test's process, not a process of its own.
type GLBD struct {
	t       lab.TB
	host    *lab.Host
	listen  netip.AddrPort
	control netip.AddrPort
	line    []string

	// KeepsDeleted is whether connections of a deleted destination go on. It is set
	// before anything else is done, as Ignores is.
	KeepsDeleted bool

	// Ignores is whether destinations are taken with "Ok" and not set.
	Ignores bool

	mu         sync.Mutex
	listeners  []net.Listener
	dests      []*glbDest
	conns      int // as it counts them
	open       map[net.Conn]*glbDest
	controls   map[net.Conn]bool
	since      time.Time
	opened     int
	died       error
	commands   []string
	generation int
}

type glbDest struct {
	addr   netip.AddrPort
	weight float64
	conns  int
}

const (
	glbMaxConns    = 493
	glbMaxControls = 32
	glbBuffer      = 8192
)

// StartGLBD starts one on a host; line is the destinations of its command line.
func StartGLBD(t lab.TB, h *lab.Host, listen, control netip.AddrPort, line ...string) *GLBD {
	t.Helper()
	g := &GLBD{t: t, host: h, listen: listen, control: control, line: line}
	g.Start()
	t.Cleanup(g.Stop)
	return g
}

// Start starts it after Stop, or after it has died.
func (g *GLBD) Start() {
	g.t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.dests, g.conns, g.open, g.controls = nil, 0, map[net.Conn]*glbDest{}, map[net.Conn]bool{}
	g.since, g.opened, g.died = time.Now(), 0, nil
	g.generation++
	for _, d := range g.line {
		if g.change(d) != "Ok\n" {
			g.t.Fatalf("peers: glbd: bad destination %q", d)
		}
	}
	for _, l := range []struct {
		at    netip.AddrPort
		serve func(net.Conn)
	}{{g.listen, g.forward}, {g.control, g.serve}} {
		var made net.Listener
		g.host.Do(func() {
			var err error
			if made, err = net.Listen("tcp4", l.at.String()); err != nil {
				g.t.Fatalf("peers: glbd: %v", err)
			}
		})
		g.listeners = append(g.listeners, made)
		go func() {
			for {
				c, err := made.Accept()
				if err != nil {
					return
				}
				go l.serve(c)
			}
		}()
	}
}

// Stop ends it and all its connections.
func (g *GLBD) Stop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, l := range g.listeners {
		l.Close()
	}
	g.listeners = nil
	for c := range g.open {
		c.Close()
	}
	for c := range g.controls {
		c.Close()
	}
}

// Died returns why it ended by itself; nil if it has not.
func (g *GLBD) Died() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.died
}

// Commands returns what was read from control connections, a read each.
func (g *GLBD) Commands() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]string(nil), g.commands...)
}

// serve answers a control connection.
func (g *GLBD) serve(c net.Conn) {
	defer c.Close()
	g.mu.Lock()
	full := len(g.controls) >= glbMaxControls
	if !full {
		g.controls[c] = true
	}
	g.mu.Unlock()
	if full {
		return
	}
	defer func() {
		g.mu.Lock()
		delete(g.controls, c)
		g.mu.Unlock()
	}()
	buf := make([]byte, glbBuffer)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		g.mu.Lock()
		reply := g.answer(string(bytes.TrimRight(buf[:n], " \t\r\n\x00")))
		g.mu.Unlock()
		if _, err := io.WriteString(c, reply); errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
			g.Stop()
			g.mu.Lock()
			g.died = fmt.Errorf("SIGPIPE: %w", err)
			g.mu.Unlock()
			return
		}
	}
}

// answer carries out one command. The caller holds mu.
func (g *GLBD) answer(command string) string {
	g.commands = append(g.commands, command)
	switch low := strings.ToLower(command); {
	case strings.HasPrefix(low, "getinfo"):
		return g.info()
	case strings.HasPrefix(low, "getstat"):
		elapsed := time.Since(g.since).Seconds()
		reply := fmt.Sprintf("in: 0 out: 0 recv: 0 / 0 send: 0 / 0 conns: %d / %d poll: 0 / 0 / 0 elapsed: %.5f\n", g.opened, g.conns, elapsed)
		g.since, g.opened = time.Now(), 0
		return reply
	}
	return g.change(command)
}

func (g *GLBD) info() string {
	var b strings.Builder
	b.WriteString("Router:\n------------------------------------------------------\n        Address       :   weight   usage    map  conns\n")
	for _, d := range g.dests {
		usage := 1 / (d.weight/(float64(d.conns)+1e-9) + 1)
		fmt.Fprintf(&b, "%15s:%-5d : %8.3f %7.3f    N/A %5d\n", d.addr.Addr(), d.addr.Port(), d.weight, usage, d.conns)
	}
	fmt.Fprintf(&b, "------------------------------------------------------\nDestinations: %d, total connections: %d of %d max\n", len(g.dests), g.conns, glbMaxConns)
	return b.String()
}

// change is IP[:PORT[:WEIGHT]].
func (g *GLBD) change(command string) string {
	f := strings.Split(command, ":")
	addr, err := netip.ParseAddr(f[0])
	port, weight := uint64(g.listen.Port()), 1.0
	if err == nil && len(f) > 1 {
		port, err = strconv.ParseUint(f[1], 10, 16)
	}
	if err == nil && len(f) > 2 {
		weight, err = strconv.ParseFloat(f[2], 64)
	}
	if err != nil || !addr.Is4() || len(f) > 3 {
		return "Error\n"
	}
	if g.Ignores {
		return "Ok\n"
	}
	at := netip.AddrPortFrom(addr, uint16(port))
	for i, d := range g.dests {
		switch {
		case d.addr != at:
			continue
		case weight >= 0:
			d.weight = weight
			return "Ok\n"
		}
		g.dests = append(g.dests[:i:i], g.dests[i+1:]...)
		if !g.KeepsDeleted {
			for c, of := range g.open {
				if of == d {
					c.Close()
				}
			}
			g.conns -= d.conns
		}
		return "Ok\n"
	}
	if weight < 0 {
		return "Error\n"
	}
	g.dests = append(g.dests, &glbDest{addr: at, weight: weight})
	return "Ok\n"
}

// forward carries one connection of a client.
func (g *GLBD) forward(client net.Conn) {
	defer client.Close()
	d, generation := g.choose()
	if d == nil {
		return
	}
	var server net.Conn
	var err error
	g.host.Do(func() { server, err = net.DialTimeout("tcp4", d.addr.String(), 2*time.Second) })
	if err == nil {
		g.mu.Lock()
		g.open[client] = d
		g.mu.Unlock()
		var both sync.WaitGroup
		both.Go(func() { _, _ = io.Copy(server, client); server.(*net.TCPConn).CloseWrite() })
		both.Go(func() { _, _ = io.Copy(client, server); client.Close() })
		both.Wait()
		server.Close()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.open, client)
	if generation != g.generation {
		return
	}
	for _, left := range g.dests {
		if left == d {
			d.conns--
			g.conns--
		}
	}
}

// choose takes the destination that has the most weight for each of its connections.
func (g *GLBD) choose() (best *glbDest, generation int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	most := 0.0
	for _, d := range g.dests {
		if u := d.weight / (float64(d.conns) + 1e-9); u > most {
			best, most = d, u
		}
	}
	if best != nil {
		best.conns++
		g.conns++
		g.opened++
	}
	return best, g.generation
}
