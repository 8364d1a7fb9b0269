package main_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/carpd/carpd/cmd/daemon/api"
	"github.com/carpd/carpd/test/lab"
)

// double is three nodes on two LANs: the clients', with a gateway, and another.
type double struct {
	t           testing.TB
	front, back *lab.LAN
	wire        *lab.Capture // of the clients' LAN
	nodes       []*node      // a, b and c
	behind      []*lab.Host  // the same, on the other LAN
	gateway     *lab.Host
	more        []string // lines of every instance
}

const gatewayAddress = "192.0.2.254"

func newDouble(t testing.TB) *double {
	t.Helper()
	d := &double{t: t, front: lab.New(t, lab.Switched(1)), back: lab.New(t, lab.Switched(2))}
	d.wire = d.front.Capture()
	for i, name := range []string{"a", "b", "c"} {
		n := newNode(t, d.front, name, fmt.Sprintf("192.0.2.%d/24", i+1), fmt.Sprintf("2001:db8::%d/64", i+1))
		d.nodes = append(d.nodes, n)
		d.behind = append(d.behind, d.back.Join(n.Host, "eth1", fmt.Sprintf("198.51.100.%d/24", i+1)))
	}
	d.gateway = d.front.Host("gateway", gatewayAddress+"/24", "2001:db8::254/64")
	return d
}

func (d *double) settings(n int) settings {
	more := []string{"track: [{gateway: " + gatewayAddress + "}]"}
	if d.more == nil {
		more = append(more, "paths: [{interface: eth1}]")
	}
	return settings{advskew: 100 * n, more: append(more, d.more...)}
}

// elect starts all; a is master and the others hear it, each over every path.
func (d *double) elect() {
	d.t.Helper()
	for i, n := range d.nodes {
		n.start(d.settings(i))
		if i == 0 {
			n.promote()
		}
	}
	for _, n := range d.nodes {
		lab.Eventually(d.t, takeover, n.Name+" to hear the master over all paths, and the gateway", func() bool {
			i := n.instance()
			heard := !slices.ContainsFunc(i.Paths, func(p api.Path) bool { return p.LastHeardMS == nil })
			return (heard || n == d.nodes[0]) && i.Track[0].State == "good"
		})
	}
}

// master returns which node is master, waiting for there to be one other than old.
func (d *double) master(old *node) *node {
	d.t.Helper()
	var found *node
	lab.Eventually(d.t, takeover, "another master", func() bool {
		for _, n := range d.nodes {
			if n != old && n.instance().State == "MASTER" {
				found = n
			}
		}
		return found != nil
	})
	return found
}

func (d *double) marks() map[*node]uint64 {
	seq := map[*node]uint64{}
	for _, n := range d.nodes {
		seq[n] = n.seq()
	}
	return seq
}

// quiet checks that nobody has moved since.
func (d *double) quiet(since map[*node]uint64) {
	d.t.Helper()
	for _, n := range d.nodes {
		if moved := n.transitions(since[n]); len(moved) > 0 {
			d.t.Errorf("%s moved: %+v", n.Name, moved)
		}
	}
}

// oneHolder checks that no two nodes ever had the address at a time.
func (d *double) oneHolder() {
	d.t.Helper()
	for i, a := range d.nodes {
		for _, b := range d.nodes[i+1:] {
			for _, addr := range []netip.Addr{shared4, shared6} {
				neverBoth(d.t, a.addrs, b.addrs, addr)
			}
		}
	}
}

// links returns all between one node and the rest of a LAN.
func links(lan *lab.LAN, of *lab.Host, others ...*lab.Host) (all []*lab.Link) {
	for _, o := range others {
		all = append(all, lan.Between(of, o))
	}
	return all
}

// cutFront cuts a node off from everything on the clients' LAN, where no link goes
// down.
func (d *double) cutFront(n *node) (join func()) {
	others := []*lab.Host{d.gateway}
	for _, o := range d.nodes {
		if o != n {
			others = append(others, o.Host)
		}
	}
	all := links(d.front, n.Host, others...)
	for _, l := range all {
		l.Cut()
	}
	return func() {
		for _, l := range all {
			l.Join()
		}
	}
}

func (d *double) awaitAlarm(n *node, name string, standing bool) (text string) {
	d.t.Helper()
	lab.Eventually(d.t, takeover, fmt.Sprintf("the alarm %s on %s: %v", name, n.Name, standing), func() bool {
		text = n.alarm(name)
		return (text != "") == standing
	})
	return text
}

func TestSilentCutOfThePathBesideMovesNothingAndIsSaid(t *testing.T) {
	t.Parallel()
	d := newDouble(t)
	d.elect()
	since := d.marks()
	d.back.All().Cut()
	for _, n := range d.nodes[1:] {
		if text := d.awaitAlarm(n, "path-down", true); !strings.Contains(text, "eth1") {
			t.Errorf("%s: %s", n.Name, text)
		}
		if i := n.instance(); i.Paths[0].Silent || !i.Paths[1].Silent || !i.Paths[1].Up {
			t.Errorf("%s: %+v", n.Name, i.Paths)
		}
		if out, code := n.ctl("explain"); code != 0 || !strings.Contains(out, "eth1 is up, but silent") || !strings.Contains(out, gatewayAddress) {
			t.Errorf("explain: %s", out)
		}
	}
	d.back.All().Join()
	for _, n := range d.nodes[1:] {
		d.awaitAlarm(n, "path-down", false)
	}
	d.behind[1].Unplug()
	if text := d.awaitAlarm(d.nodes[1], "path-down", true); !strings.Contains(text, "down or missing") {
		t.Error(text)
	}
	d.quiet(since)
	d.oneHolder()
}

func TestAdvertsMayBeLostOnTheClientSideWhileTheProbeHolds(t *testing.T) {
	t.Parallel()
	d := newDouble(t)
	d.elect()
	since := d.marks()
	d.front.All().Only(lab.IPProtocol(112)).Loss(1) // and nothing else: a switch that filters multicast
	for _, n := range d.nodes[1:] {
		if text := d.awaitAlarm(n, "path-down", true); !strings.Contains(text, "eth0") {
			t.Errorf("%s: %s", n.Name, text)
		}
	}
	d.quiet(since)
	d.oneHolder()
}

func TestSilentCutOfTheClientSideMovesTheRole(t *testing.T) {
	t.Parallel()
	d := newDouble(t)
	d.elect()
	a, since, at := d.nodes[0], d.marks(), time.Now()
	join := d.cutFront(a)
	b := d.master(a)
	if b != d.nodes[1] {
		t.Errorf("%s is master, and b is the better one", b.Name)
	}
	if e := a.awaitEvent(since[a], "transition", "client-side-down"); e.To != "RELEASING" {
		t.Errorf("a went to %s", e.To)
	}
	if taken := b.addrs.await(t, at, shared4, true, soon); taken.At.Sub(at) > 2*time.Second {
		t.Errorf("b took over after %v", taken.At.Sub(at))
	}
	if e := b.transitions(since[b]); len(e) != 1 || e[0].Reason != "bow-out" {
		t.Errorf("b: %+v", e)
	}
	d.awaitAlarm(a, "track", true)
	if i := a.instance(); i.State != "BACKUP" || i.Demotion != 240 || i.Track[0].State != "failed" || i.Master == nil {
		t.Errorf("a: %+v", i)
	}
	now := d.marks()
	join()
	d.awaitAlarm(a, "track", false)
	lab.Eventually(t, soon, "a to be demoted no longer", func() bool { return a.instance().Demotion == 0 })
	d.quiet(now)
	d.oneHolder()
}

func TestClientInterfaceDownMovesTheRoleAtOnce(t *testing.T) {
	for name, down := range map[string]func(*node){
		"carrier lost": func(n *node) { n.Unplug() },
		"set down":     func(n *node) { n.SetLink(false) },
		"deleted":      func(n *node) { n.DeleteLink() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDouble(t)
			d.elect()
			a, b, since, at := d.nodes[0], d.nodes[1], d.marks(), time.Now()
			down(a)
			taken := b.addrs.await(t, at, shared4, true, soon)
			a.awaitEvent(since[a], "transition", "link-down")
			e := a.transitions(since[a])[0] // the kernel may be slower to tell than the probe
			if e.To != "RELEASING" {
				t.Errorf("a went to %s first", e.To)
			}
			// From when a knew: the kernel tells of lost carriers once a second, those of the
			// whole machine together.
			wait := taken.At.Sub(e.Time)
			t.Logf("b had the address %v after the trouble began, and %v after a knew", taken.At.Sub(at), wait)
			if wait > 500*time.Millisecond {
				t.Errorf("b had the address %v after a knew", wait)
			}
			a.await("INIT")
			b.await("MASTER")
			if e := b.transitions(since[b]); len(e) != 1 || e[0].Reason != "bow-out" {
				t.Errorf("b: %+v", e)
			}
			d.oneHolder()
		})
	}
}

func TestUnicastBesideMulticastIsHeardByAny(t *testing.T) {
	t.Parallel()
	d := newDouble(t)
	for i, n := range d.nodes {
		var peers []string
		for k := range d.nodes {
			if k != i {
				peers = append(peers, fmt.Sprintf("192.0.2.%d", k+1))
			}
		}
		s := d.settings(i)
		s.more[1] = "paths: [{peers: [" + strings.Join(peers, ", ") + "]}]"
		n.start(s)
		if i == 0 {
			n.promote()
		}
	}
	b := d.nodes[1]
	lab.Eventually(t, takeover, "b to hear both forms", func() bool {
		i := b.instance()
		return i.Paths[0].LastHeardMS != nil && i.Paths[1].LastHeardMS != nil
	})
	since := d.marks()
	multicast := func(f lab.Frame) bool { return lab.IPProtocol(112)(f) && f.Data[0]&1 == 1 }
	d.front.All().Only(multicast).Loss(1)
	if text := d.awaitAlarm(b, "path-down", true); strings.Contains(text, "192.0.2.1,") {
		t.Errorf("the alarm names the wrong path: %s", text)
	}
	d.front.All().Heal()
	d.front.All().Only(func(f lab.Frame) bool { return lab.IPProtocol(112)(f) && f.Data[0]&1 == 0 }).Loss(1)
	lab.Eventually(t, takeover, "the alarm to name the peers", func() bool { return strings.Contains(b.alarm("path-down"), "eth0 to 192.0.2.1") })
	d.quiet(since)
	d.oneHolder()
}

func TestBothPathsCutIsAPartitionThatIsSaidAndHeals(t *testing.T) {
	t.Parallel()
	d := newDouble(t)
	d.elect()
	a, b := d.nodes[0], d.nodes[1]
	all := slices.Concat(links(d.front, a.Host, b.Host, d.nodes[2].Host), links(d.back, d.behind[0], d.behind[1], d.behind[2]))
	for _, l := range all {
		l.Cut()
	}
	b.await("MASTER")
	a.await("MASTER") // its gateway answers: nothing tells it apart from a dead group
	since := d.marks()
	for _, l := range all {
		l.Join()
	}
	if e := b.awaitEvent(since[b], "transition", "better-master"); e.To != "BACKUP" {
		t.Errorf("b went to %s", e.To)
	}
	if e := a.awaitEvent(since[a], "transition", "contested"); e.Peer != "192.0.2.2" && e.Peer != "198.51.100.2" { // whichever path was first
		t.Errorf("a heard %s", e.Peer)
	}
	d.awaitAlarm(a, "contested", true)
	lab.Eventually(t, soon, "the address to leave b", func() bool { return !b.HasAddr(shared4) })
}

// A gateway that dies is seen by all: the role must not go round.
func TestDeadGatewayCostsLittle(t *testing.T) {
	t.Parallel()
	d := newDouble(t)
	d.elect()
	since := d.marks()
	d.gateway.SetLink(false)
	for _, n := range d.nodes {
		d.awaitAlarm(n, "track", true)
	}
	d.master(nil)
	<-time.After(3 * time.Second) // the promise is about what does not happen
	moves := 0
	for _, n := range d.nodes {
		for _, e := range n.transitions(since[n]) {
			if e.To == "MASTER" {
				moves++
			}
		}
	}
	if moves > len(d.nodes) {
		t.Errorf("the role moved %d times", moves)
	}
	t.Logf("the role moved %d times", moves)
	now := d.marks()
	d.gateway.SetLink(true)
	for _, n := range d.nodes {
		d.awaitAlarm(n, "track", false)
	}
	d.quiet(now)
	d.oneHolder()
}

func TestGatewayThatNeverAnsweredIsAnAlarmAndNoReason(t *testing.T) {
	t.Parallel()
	d := newDouble(t)
	d.nodes, d.behind = d.nodes[:2], d.behind[:2]
	d.gateway.SetLink(false)
	for i, n := range d.nodes {
		n.start(d.settings(i))
	}
	a := d.nodes[0]
	a.promote()
	if text := d.awaitAlarm(a, "track", true); !strings.Contains(text, "never answered") {
		t.Error(text)
	}
	if i := a.instance(); i.State != "MASTER" || i.Demotion != 0 {
		t.Errorf("a is %s, demoted by %d", i.State, i.Demotion)
	}
	d.gateway.SetLink(true)
	d.awaitAlarm(a, "track", false)
}

func TestReloadChangesWhatIsTrackedAndNotThePaths(t *testing.T) {
	t.Parallel()
	d := newDouble(t)
	d.nodes, d.behind = d.nodes[:1], d.behind[:1]
	a := d.nodes[0]
	a.start(d.settings(0))
	a.promote()
	s := d.settings(0)
	s.more[0] = "track: [{gateway: 192.0.2.77}, {gateway: \"2001:db8::254\", interval: 100ms}]"
	a.configure(s)
	var r api.ReloadResult
	a.post("/v1/reload", api.ReloadRequest{}, &r)
	lab.Eventually(t, takeover, "the new gateways", func() bool {
		tr := a.instance().Track
		return len(tr) == 2 && tr[0].State == "failed" && tr[1].State == "good"
	})
	if text := d.awaitAlarm(a, "track", true); !strings.Contains(text, "something else does") {
		t.Error(text)
	}
	s.more[1] = "paths: [{interface: eth2}]"
	a.configure(s)
	if e := a.refused("/v1/reload", api.ReloadRequest{}, 409); !strings.Contains(e.Error, "paths cannot change while the instance runs") {
		t.Errorf("%+v", e)
	}
	if i := a.instance(); i.State != "MASTER" {
		t.Errorf("a is %s", i.State)
	}
}

func TestVRRPOverTwoPaths(t *testing.T) {
	t.Parallel()
	d := newDouble(t)
	for i, n := range d.nodes {
		n.write(fmt.Sprintf("instances:\n  - protocol: vrrp3\n    vrid: 9\n    interface: eth0\n    priority: %d\n"+
			"    addresses: [192.0.2.50/24]\n    paths: [{interface: eth1}]\n    track: [{gateway: %s}]\n", 200-50*i, gatewayAddress))
		n.startWith(n.command("run", "--config", n.config()))
		if i == 0 {
			n.promote()
		}
	}
	a, b := d.nodes[0], d.nodes[1]
	lab.Eventually(t, takeover, "b to hear both paths and the gateway", func() bool {
		i := b.instance()
		return i.Paths[0].LastHeardMS != nil && i.Paths[1].LastHeardMS != nil && i.Track[0].State == "good" && a.instance().Track[0].State == "good"
	})
	since := d.marks()
	d.back.All().Cut()
	d.awaitAlarm(b, "path-down", true)
	d.back.All().Join()
	d.awaitAlarm(b, "path-down", false)
	d.quiet(since)
	at := time.Now()
	a.Unplug()
	taken := b.addrs.await(t, at, shared4, true, soon)
	if e := b.transitions(since[b]); len(e) != 1 || e[0].Reason != "bow-out" {
		t.Errorf("b: %+v", e)
	}
	t.Logf("b had the address after %v", taken.At.Sub(at))
	neverBoth(t, a.addrs, b.addrs, shared4)
}
