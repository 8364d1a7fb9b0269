package peers_test

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/carpd/carpd/cmd/daemon/api"
	"github.com/carpd/carpd/test/lab"
	"github.com/carpd/carpd/test/peers"
)

// The programs that speak VRRP; ours is the third.
const (
	keepalived = "keepalived"
	frr        = "frr"
)

// The addresses of virtual routers. The client asks the last one that all have.
var (
	shared4 = []netip.Prefix{netip.MustParsePrefix("10.9.0.50/16")}
	shared6 = []netip.Prefix{netip.MustParsePrefix("fe80::9:50/64"), netip.MustParsePrefix("fd00:9::50/64")}
)

// brief is as short an interval as a loaded machine keeps.
const brief = 200 * time.Millisecond

// seat is one node of a segment: which program, and what it is told. The nth has the
// nth source address, in either family.
type seat struct {
	program string
	router  peers.VRRP
	lines   []string // carpd's: more lines of the instance
}

// segment is one LAN of VRRP speakers with a client that pings the shared address
// all the time. Its methods belong on the test's goroutine.
type segment struct {
	t       lab.TB
	lan     *lab.LAN
	wire    *lab.Capture
	client  *lab.Prober
	shared  netip.Addr
	members []*member
}

// member is one node: ours or theirs.
type member struct {
	seat
	t       lab.TB
	name    string // its host's; the program's, with a number if there are more
	host    *lab.Host
	dir     string // ours
	binary  string
	http    *http.Client
	proc    *lab.Proc
	speaker *peers.Speaker // theirs
}

// number is the last part of the addresses of the nth node, counted from 0.
func number(n int) int { return n + 1 }

func newSegment(t lab.TB, binary string, seats ...seat) *segment {
	t.Helper()
	s := &segment{t: t, lan: lab.New(t)}
	count := map[string]int{}
	for i, seat := range seats {
		m := &member{seat: seat, t: t, name: seat.program, binary: binary}
		if count[m.name]++; count[m.name] > 1 {
			m.name += fmt.Sprint(count[m.name])
		}
		m.router.VRID = vhid
		m.host = s.lan.Host(m.name, fmt.Sprintf("10.9.0.%d/16", number(i)), fmt.Sprintf("fd00:9::%d/64", number(i)))
		if m.program == ours {
			m.prepare()
		}
		s.members = append(s.members, m)
	}
	s.wire = s.lan.Capture()
	// What all have.
	fewest := slices.MinFunc(seats, func(a, b seat) int { return len(a.router.Addresses) - len(b.router.Addresses) })
	s.shared = fewest.router.Addresses[len(fewest.router.Addresses)-1].Addr()
	s.client = s.lan.Host("client", "10.9.0.200/16", "fd00:9::200/64").ProbeEvery(s.shared, probes)
	return s
}

// unicast makes every node send to all others.
func (s *segment) unicast() {
	for i, m := range s.members {
		m.router.Peers, m.router.Source = nil, s.source(i)
		for j := range s.members {
			if j != i {
				m.router.Peers = append(m.router.Peers, s.source(j))
			}
		}
	}
}

// source is the nth node's own address, in the family of the shared one.
func (s *segment) source(i int) netip.Addr {
	if s.shared.Is6() {
		return netip.MustParseAddr(fmt.Sprintf("fd00:9::%d", number(i)))
	}
	return netip.MustParseAddr(fmt.Sprintf("10.9.0.%d", number(i)))
}

// prepare makes what a carpd of ours needs. The path of a socket may have 107 bytes,
// which t.TempDir does not promise.
func (m *member) prepare() {
	m.t.Helper()
	dir, err := os.MkdirTemp("", "carpd-peers")
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { _ = os.RemoveAll(dir) })
	m.dir = dir
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(dir, "sock"))
	}}
	m.t.Cleanup(transport.CloseIdleConnections)
	m.http = &http.Client{Transport: transport, Timeout: 5 * time.Second}
}

// configuration is carpd's, from what a foreign speaker would be told.
func (m *member) configuration() string {
	v := &m.router
	var b strings.Builder
	fmt.Fprintf(&b, "node: %s\nstate_dir: %s\ncontrol: %s\ninstances:\n  - protocol: vrrp%d\n    vrid: %d\n    interface: eth0\n",
		m.name, filepath.Join(m.dir, "state"), filepath.Join(m.dir, "sock"), m.version(), v.VRID)
	line := func(format string, args ...any) { fmt.Fprintf(&b, "    "+format+"\n", args...) }
	line("priority: %d", m.priority())
	line("interval: %v", m.interval())
	line("preempt: %v", !v.NoPreempt)
	line("addresses: %s", list(v.Addresses))
	if len(v.Peers) > 0 {
		line("peers: %s", list(v.Peers))
	}
	if v.Password != "" {
		line("passphrase_file: pass")
	}
	for _, more := range m.lines {
		line("%s", more)
	}
	return b.String()
}

func list[T fmt.Stringer](values []T) string {
	words := make([]string, len(values))
	for i, v := range values {
		words[i] = `"` + v.String() + `"`
	}
	return "[" + strings.Join(words, ", ") + "]"
}

// The defaults of what a node is told.
func (m *member) version() uint8          { return cmp.Or(m.router.Version, 3) }
func (m *member) priority() uint8         { return cmp.Or(m.router.Priority, 100) }
func (m *member) interval() time.Duration { return cmp.Or(m.router.Interval, time.Second) }

// skew and down are the times of RFC 3768 and RFC 9568, 6.1.
func (m *member) skew() time.Duration {
	unit := second
	if m.version() == 3 {
		unit = m.interval()
	}
	return unit * time.Duration(256-int(m.priority())) / 256
}

func (m *member) down() time.Duration { return 3*m.interval() + m.skew() }

// start starts a node, again if it has ended.
func (m *member) start() {
	m.t.Helper()
	switch m.program {
	case keepalived:
		m.speaker = peers.Keepalived(m.t, m.host, m.router)
	case frr:
		v := m.router
		v.Addresses = slices.Clone(v.Addresses)
		for i, a := range v.Addresses { // the subnet is eth0's
			if !a.Addr().IsLinkLocalUnicast() {
				v.Addresses[i] = netip.PrefixFrom(a.Addr(), a.Addr().BitLen())
			}
		}
		m.speaker = peers.FRR(m.t, m.host, v)
	default:
		if err := errors.Join(
			os.WriteFile(filepath.Join(m.dir, "pass"), []byte(m.router.Password+"\n"), 0o600),
			os.WriteFile(filepath.Join(m.dir, "carpd.yaml"), []byte(m.configuration()), 0o644),
		); err != nil {
			m.t.Fatal(err)
		}
		m.proc = m.host.Start(exec.Command(m.binary, "run", "--config", filepath.Join(m.dir, "carpd.yaml")))
	}
}

// stop ends a node in order.
func (m *member) stop() {
	m.t.Helper()
	if m.program != ours {
		m.speaker.Stop()
		m.speaker = nil
		return
	}
	m.proc.Signal(syscall.SIGTERM)
	if err := m.proc.Wait(5 * second); err != nil {
		m.t.Errorf("%s after SIGTERM: %v", m.name, err)
	}
	m.proc = nil
}

// kill ends a node by SIGKILL.
func (m *member) kill() {
	if m.program != ours {
		m.speaker.Kill()
		m.speaker = nil
		return
	}
	m.host.KillAll() // its guardian with it: nobody speaks for it
	m.proc = nil
}

// freeze stops a node by SIGSTOP, thaw lets it run on.
func (m *member) freeze() { m.host.SignalAll(syscall.SIGSTOP) }
func (m *member) thaw()   { m.host.SignalAll(syscall.SIGCONT) }

func (m *member) running() bool { return m.proc != nil || m.speaker != nil }

// status returns the instance of a carpd of ours, the zero value while it does not
// answer.
func (m *member) status() (i api.Instance) {
	resp, err := m.http.Get("http://carpd/v1/status")
	if err != nil {
		return i
	}
	defer resp.Body.Close()
	var s api.Status
	if resp.StatusCode == http.StatusOK && json.NewDecoder(resp.Body).Decode(&s) == nil && len(s.Instances) == 1 {
		i = s.Instances[0]
		i.Alarms = append(i.Alarms, s.Alarms...)
	}
	return i
}

// state returns MASTER, BACKUP or whatever else a node says it is in.
func (m *member) state() string {
	if m.program == ours {
		return m.status().State
	}
	return m.speaker.State(vhid)
}

// holds reports whether a node's host has the shared address. FRR's always has: what
// counts is whether FRR has set its device up.
func (m *member) holds(addr netip.Addr) bool {
	if m.program == frr {
		return m.running() && m.state() == "MASTER"
	}
	return m.host.HasAddr(addr)
}

// holders lists the nodes that have the shared address.
func (s *segment) holders() (found []string) {
	for _, m := range s.members {
		if m.holds(s.shared) {
			found = append(found, m.name)
		}
	}
	return found
}

// agreed reports whether everybody who runs agrees that master is the master, and
// that of these only its host has the address.
func (s *segment) agreed(master *member) bool {
	for _, m := range s.members {
		want := "BACKUP"
		if m == master {
			want = "MASTER"
		}
		if m.running() && (m.state() != want || m.holds(s.shared) != (m == master)) {
			return false
		}
	}
	return true
}

// settle waits until master is the only master and the only holder of those who run.
func (s *segment) settle(master *member, limit time.Duration) {
	s.t.Helper()
	begun, tick := time.Now(), time.NewTicker(5*time.Millisecond)
	defer tick.Stop()
	for ; !s.agreed(master); <-tick.C {
		if time.Since(begun) > limit {
			var words []string
			for _, m := range s.members {
				if m.running() {
					words = append(words, fmt.Sprintf("%s is %q", m.name, m.state()))
				}
			}
			s.t.Fatalf("after %v %s, the address is on %v; want %s as the only master", limit, strings.Join(words, ", "), s.holders(), master.name)
		}
	}
}

// stays watches for a while that nothing moves: exactly one master at every look,
// adverts of it alone, and a client that is served.
func (s *segment) stays(master *member, d time.Duration) {
	s.t.Helper()
	begin, mark := time.Now(), s.client.Mark()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for ; time.Since(begin) < d; <-tick.C {
		if !s.agreed(master) {
			s.t.Fatalf("%v into the watch %s is not the only master: the address is on %v", time.Since(begin), master.name, s.holders())
		}
	}
	heard := 0
	for _, a := range s.adverts(begin) {
		// A loser's farewell may follow its loss of the address by a moment. carpd says it
		// again at the next two adverts of a master that does not answer.
		late := 100 * time.Millisecond
		if a.Host == ours {
			late += 2*master.interval() + late
		}
		if a.Host != master.name && a.At.Sub(begin) > late {
			s.t.Errorf("an advert of %s, priority %d, while %s is master", a.Host, a.Priority, master.name)
		} else if a.Host == master.name {
			heard++
		}
	}
	if d > 2*master.interval() && heard == 0 {
		s.t.Errorf("no advert of %s within %v", master.name, d)
	}
	// What clients get of a foreign master is its own affair.
	if outage, _ := s.client.Longest(mark); outage > second && master.program == ours {
		s.t.Errorf("the client had no answer for %v while nothing moved", outage)
	}
}

// adverts lists the adverts of VRRP on the wire since an instant.
func (s *segment) adverts(since time.Time) (found []peers.Advert) {
	for _, f := range s.wire.Packets() {
		if a, ok := peers.Heard(f); ok && a.VRID == vhid && !a.At.Before(since) {
			found = append(found, a)
		}
	}
	return found
}

// last is a node's last advert so far; the zero value if there was none.
func (s *segment) last(m *member) (last peers.Advert) {
	for _, a := range s.adverts(time.Time{}) {
		if a.Host == m.name {
			last = a
		}
	}
	return last
}

// speaks waits for the first advert of a node after since that fulfils cond.
func (s *segment) speaks(m *member, since time.Time, limit time.Duration, cond func(peers.Advert) bool) (a peers.Advert) {
	s.t.Helper()
	_, ok := s.wire.WaitFor(limit, func(f lab.Frame) (is bool) {
		a, is = peers.Heard(f)
		return is && a.Host == m.name && a.VRID == vhid && a.At.After(since) && cond(a)
	})
	if !ok {
		s.t.Fatalf("no such advert of %s within %v", m.name, limit)
	}
	return a
}

func anything(peers.Advert) bool { return true }

// farewell is an advert of priority 0.
func farewell(a peers.Advert) bool { return a.Leaves() }

// serves waits until the client is answered by a node of ours. Whether a foreign
// master can be reached is its own affair: it is noted only.
func (s *segment) serves(m *member) {
	s.t.Helper()
	mark := s.wire.Len()
	_, ok := s.wire.WaitAfter(mark, second, func(f lab.Frame) bool { return f.Host == m.name && echoReply(f.Data, s.shared) })
	switch {
	case ok:
	case m.program == ours:
		s.t.Errorf("the client was not answered by %s, which is master, within a second", m.name)
	default:
		s.result("the client is not answered by %s within a second", m.name)
	}
}

// echoReply reports whether a frame is an answer to a ping from an address.
func echoReply(frame []byte, from netip.Addr) bool {
	const ether = 14
	if len(frame) < ether {
		return false
	}
	b := frame[ether:]
	switch kind := binary.BigEndian.Uint16(frame[12:]); {
	case kind == 0x0800 && len(b) > 20:
		return b[0] == 0x45 && b[9] == 1 && b[20] == 0 && netip.AddrFrom4([4]byte(b[12:])) == from
	case kind == 0x86dd && len(b) > 40:
		return b[6] == 58 && b[40] == 129 && netip.AddrFrom16([16]byte(b[8:])) == from
	}
	return false
}

// result prints a line of the tables in docs/interop-vrrp.md.
func (s *segment) result(format string, args ...any) {
	s.t.Helper()
	_, part, _ := strings.Cut(s.t.Name(), "/")
	s.t.Logf("RESULT %s: %s", part, fmt.Sprintf(format, args...))
}

// within checks a time against its bounds.
func (s *segment) within(what string, got, least, most time.Duration) {
	s.t.Helper()
	if got < least || got > most {
		s.t.Errorf("%s took %v, want %v to %v", what, got, least, most)
	}
}
