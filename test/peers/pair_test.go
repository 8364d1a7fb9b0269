package peers_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/cmd/daemon/api"
	"github.com/carpd/carpd/test/lab"
	"github.com/carpd/carpd/test/peers"
)

// The two speakers; their hosts have these names, and frames carry them.
const (
	ours   = "carpd"
	theirs = "ucarp"
)

const (
	vhid     = 9
	password = "two of a kind"
	// probes is how often the client asks; so fine is an outage known.
	probes = 20 * time.Millisecond
)

// vip is in the subnet of all hosts, which is wide enough for addresses whose
// order differs from both ends.
var vip = netip.MustParsePrefix("10.9.0.50/16")

// setup is how the two nodes of a pair differ.
type setup struct {
	ourAddr, theirAddr       string // default 10.9.0.1 and 10.9.0.2
	ourSkew, theirSkew       uint8
	ourPreempt, theirPreempt bool
	theirPassword            string // default: the same
	sourceMAC                string // carpd's key; default left out
}

// pair is one LAN with carpd, ucarp, and a client that pings the shared address
// all the time. Its methods belong on the test's goroutine.
type pair struct {
	t       lab.TB
	setup   setup
	binary  string
	hosts   map[string]*lab.Host
	procs   map[string]*lab.Proc // those that run
	lan     *lab.LAN
	capture *lab.Capture
	client  *lab.Prober
	dir     string
	http    *http.Client
}

func newPair(t lab.TB, binary string, s setup) *pair {
	t.Helper()
	if s.ourAddr == "" {
		s.ourAddr, s.theirAddr = "10.9.0.1", "10.9.0.2"
	}
	if s.theirPassword == "" {
		s.theirPassword = password
	}
	lan := lab.New(t)
	p := &pair{t: t, setup: s, binary: binary, lan: lan, procs: map[string]*lab.Proc{}, hosts: map[string]*lab.Host{
		ours: lan.Host(ours, s.ourAddr+"/16"), theirs: lan.Host(theirs, s.theirAddr+"/16"),
	}}
	p.capture = lan.Capture()
	p.client = lan.Host("client", "10.9.0.200/16").ProbeEvery(vip.Addr(), probes)
	p.configure()
	return p
}

// configure writes carpd's files. The path of a socket may have 107 bytes, which
// t.TempDir does not promise.
func (p *pair) configure() {
	p.t.Helper()
	dir, err := os.MkdirTemp("", "carpd-peers")
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = os.RemoveAll(dir) })
	p.dir = dir
	text := fmt.Sprintf("node: carpd\nstate_dir: %s\ncontrol: %s\ninstances:\n  - vhid: %d\n    interface: eth0\n"+
		"    passphrase_file: pass\n    advskew: %d\n    preempt: %v\n    addresses: [%v]\n",
		filepath.Join(dir, "state"), filepath.Join(dir, "sock"), vhid, p.setup.ourSkew, p.setup.ourPreempt, vip)
	if p.setup.sourceMAC != "" {
		text += "    source_mac: " + p.setup.sourceMAC + "\n"
	}
	if err := errors.Join(
		os.WriteFile(filepath.Join(dir, "pass"), []byte(password+"\n"), 0o600),
		os.WriteFile(filepath.Join(dir, "carpd.yaml"), []byte(text), 0o644),
	); err != nil {
		p.t.Fatal(err)
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", filepath.Join(dir, "sock"))
	}}
	p.t.Cleanup(transport.CloseIdleConnections)
	p.http = &http.Client{Transport: transport, Timeout: 5 * time.Second}
}

// start starts one of the two, again if it has ended.
func (p *pair) start(who string) {
	p.t.Helper()
	if who == ours {
		p.procs[ours] = p.hosts[ours].Start(exec.Command(p.binary, "run", "--config", filepath.Join(p.dir, "carpd.yaml")))
		return
	}
	proc := peers.Ucarp(p.t, p.hosts[theirs], peers.UcarpOptions{
		VHID: vhid, Password: p.setup.theirPassword, Source: netip.MustParseAddr(p.setup.theirAddr),
		Address: netip.PrefixFrom(vip.Addr(), 32), AdvSkew: p.setup.theirSkew, Preempt: p.setup.theirPreempt, Shutdown: true,
	})
	p.procs[theirs] = proc
	if p.setup.theirPassword == password {
		p.t.Cleanup(func() {
			for _, complaint := range []string{"Bad digest", "Bad TTL", "Bad version", "Bad IP checksum"} {
				if strings.Contains(proc.Output(), complaint) {
					p.t.Errorf("ucarp complains of our adverts: %s", complaint)
				}
			}
		})
	}
}

// kill ends one of the two by SIGKILL and returns the time of its last advert.
func (p *pair) kill(who string) (last time.Time) {
	p.t.Helper()
	p.hosts[who].KillAll() // carpd's guardian with it
	delete(p.procs, who)
	return p.lastAdvert(who)
}

// get asks carpd's control socket.
func (p *pair) get(path string) (io.ReadCloser, error) {
	resp, err := p.http.Get("http://carpd" + path)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		_ = resp.Body.Close()
		return nil, fmt.Errorf("GET %s: %s", path, resp.Status)
	}
	return resp.Body, nil
}

// status returns carpd's instance, the zero value while carpd does not answer.
func (p *pair) status() (i api.Instance) {
	body, err := p.get("/v1/status")
	if err != nil {
		return i
	}
	defer body.Close()
	var s api.Status
	if json.NewDecoder(body).Decode(&s) == nil && len(s.Instances) == 1 {
		i = s.Instances[0]
		i.Alarms = append(i.Alarms, s.Alarms...)
	}
	return i
}

// events returns carpd's events of one kind since it was started.
func (p *pair) events(kind string) (found []api.Event) {
	p.t.Helper()
	body, err := p.get("/v1/events")
	if err != nil {
		p.t.Fatal(err)
	}
	defer body.Close()
	for lines := json.NewDecoder(body); ; {
		var e api.Event
		err := lines.Decode(&e)
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			p.t.Fatal(err)
		}
		if e.Kind == kind {
			found = append(found, e)
		}
	}
}

const switching = "Switching to state: "

// state returns MASTER, BACKUP or whatever else a speaker says it is in.
func (p *pair) state(who string) string {
	if who == ours {
		return p.status().State
	}
	out := p.procs[theirs].Output()
	at := strings.LastIndex(out, switching)
	if at < 0 {
		return ""
	}
	word, _, whole := strings.Cut(out[at+len(switching):], "\n")
	if !whole {
		return "" // the rest of the line is on its way
	}
	return strings.TrimSpace(word)
}

// changes counts the changes of role of one speaker since it was started.
func (p *pair) changes(who string) (n int) {
	p.t.Helper()
	if who == theirs {
		return strings.Count(p.procs[theirs].Output(), switching)
	}
	for _, e := range p.events("transition") {
		if e.From != e.To { // MASTER to MASTER is a contest that was won
			n++
		}
	}
	return n
}

// holders lists the hosts that have the shared address, in the order of names.
func (p *pair) holders() (found []string) {
	p.t.Helper()
	for _, who := range []string{ours, theirs} {
		if p.hosts[who].HasAddr(vip.Addr()) {
			found = append(found, who)
		}
	}
	return found
}

// agreed reports whether everybody who runs agrees that master is the master,
// and that host alone has the address.
func (p *pair) agreed(master string) bool {
	p.t.Helper()
	if !slices.Equal(p.holders(), []string{master}) {
		return false
	}
	for who := range p.procs {
		want := "BACKUP"
		if who == master {
			want = "MASTER"
		}
		if p.state(who) != want {
			return false
		}
	}
	return true
}

// settle waits until master is the only master and the only holder.
func (p *pair) settle(master string, limit time.Duration) {
	p.t.Helper()
	lab.Eventually(p.t, limit, master+" to be the only master", func() bool { return p.agreed(master) })
}

// other is the peer of who.
func other(who string) string {
	if who == ours {
		return theirs
	}
	return ours
}

// stays watches for a while that nothing moves: no change of role on either
// side, exactly one holder at every look, adverts of the master alone, and a
// client that is served.
func (p *pair) stays(master string, d time.Duration) {
	p.t.Helper()
	begin, mark := time.Now(), p.client.Mark()
	before := map[string]int{}
	for who := range p.procs {
		before[who] = p.changes(who)
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for time.Since(begin) < d {
		<-tick.C
		if got := p.holders(); !slices.Equal(got, []string{master}) {
			p.t.Fatalf("%v into the watch the address is on %v, want %s alone", time.Since(begin), got, master)
		}
	}
	for who, n := range before {
		if now := p.changes(who); now != n {
			p.t.Errorf("%s changed its role %d times within %v, want none", who, now-n, d)
		}
	}
	if !p.agreed(master) {
		p.t.Errorf("after %v %s is %q and %s %q, want %s as master", d, ours, p.state(ours), theirs, p.state(theirs), master)
	}
	heard := p.adverts(begin)
	// A loser's farewell may follow its loss of the address by a moment. carpd says it
	// again at the next two adverts of a master that does not answer.
	late := func(s sighting) bool {
		after := 100 * time.Millisecond
		if s.host == ours {
			after += 2*p.interval() + slack
		}
		return s.host != master && s.at.Sub(begin) > after
	}
	if n := len(slices.DeleteFunc(slices.Clone(heard), func(s sighting) bool { return !late(s) })); n > 0 {
		p.t.Errorf("%d adverts of %s within %v, want none", n, other(master), d)
	}
	if d >= 3*time.Second && !slices.ContainsFunc(heard, func(s sighting) bool { return s.host == master }) {
		p.t.Errorf("no advert of %s within %v", master, d)
	}
	if outage, _ := p.client.Longest(mark); outage > time.Second {
		p.t.Errorf("the client had no answer for %v while nothing moved", outage)
	}
}

// sighting is an advert on the wire.
type sighting struct {
	at   time.Time
	host string
	src  carp.MAC
	carp.Advert
}

// sight decodes an advert of our group.
func sight(f lab.Frame) (s sighting, ok bool) {
	var packet carp.Packet
	if carp.DecodeFrame(f.Data, &packet) != carp.Accepted {
		return s, false
	}
	s.at, s.host, s.src = f.Time, f.Host, packet.SrcMAC
	return s, s.Decode(packet.Payload, packet.Src, packet.Dst) == carp.Accepted && s.VHID == vhid
}

// adverts lists the adverts on the wire since an instant.
func (p *pair) adverts(since time.Time) (found []sighting) {
	p.t.Helper()
	for _, f := range p.capture.Packets() {
		if s, ok := sight(f); ok && !s.at.Before(since) {
			found = append(found, s)
		}
	}
	return found
}

// lastAdvert is the time of a host's last advert, zero if there was none.
func (p *pair) lastAdvert(who string) (at time.Time) {
	p.t.Helper()
	for _, s := range p.adverts(time.Time{}) {
		if s.host == who {
			at = s.at
		}
	}
	return at
}

// awaitAdvert waits for the first advert after since that fulfils cond.
func (p *pair) awaitAdvert(since time.Time, limit time.Duration, what string, cond func(sighting) bool) (s sighting) {
	p.t.Helper()
	_, ok := p.capture.WaitFor(limit, func(f lab.Frame) (is bool) {
		s, is = sight(f)
		return is && s.at.After(since) && cond(s)
	})
	if !ok {
		p.t.Fatalf("no %s within %v", what, limit)
	}
	return s
}

// speaks waits for the first advert of a host after since.
func (p *pair) speaks(who string, since time.Time, limit time.Duration) time.Time {
	p.t.Helper()
	return p.awaitAdvert(since, limit, "advert of "+who, func(s sighting) bool { return s.host == who }).at
}

// announces waits for the first gratuitous ARP of a host after since.
func (p *pair) announces(who string, since time.Time, limit time.Duration) time.Time {
	p.t.Helper()
	arp := lab.GratuitousARP(vip.Addr())
	f, ok := p.capture.WaitFor(limit, func(f lab.Frame) bool { return f.Host == who && f.Time.After(since) && arp(f) })
	if !ok {
		p.t.Fatalf("no gratuitous ARP of %s within %v", who, limit)
	}
	return f.Time
}
