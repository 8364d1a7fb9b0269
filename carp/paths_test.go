package carp

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// Two nodes with two paths: the rig's own addresses, and those of its peers, are in
// opposite orders on the two, so that a tie that is decided twice shows.
var (
	besideLocal = Local{IPv4: netip.MustParseAddr("198.51.100.5"), IPv6: netip.MustParseAddr("fe80::105"), MAC: MAC{2, 0, 0, 0, 1, 5}}
	besideLow   = netip.MustParseAddr("198.51.100.9") // peerLow's on the second path
	besideHigh  = netip.MustParseAddr("198.51.100.1") // peerHigh's
)

func twoPaths(c *Config) { c.Paths = []Path{{Link: 1}} }

// newPaths returns a rig with a second path that is up.
func newPaths(t *testing.T, set ...func(*Config)) *rig {
	t.Helper()
	r := newRig(t, append(set, twoPaths)...)
	r.do(r.e.PathUp(r.now, 1, besideLocal))
	return r
}

// over makes the packet of another path of what advert has made.
func (p Packet) over(link uint8, src netip.Addr) Packet {
	p.Link, p.Src = link, src
	return p
}

// both hears a round over both paths.
func (r *rig) both(first, second netip.Addr, base, skew uint8) {
	p := r.advert(first, base, skew)
	r.do(r.e.Receive(r.now, p))
	r.do(r.e.Receive(r.now, p.over(1, second)))
}

func (r *rig) hearBeside(src netip.Addr, base, skew uint8) {
	r.do(r.e.Receive(r.now, r.advert(src, base, skew).over(1, src)))
}

func TestRoundGoesOverEveryPathThatIsUp(t *testing.T) {
	peer := netip.MustParseAddr("192.0.2.77")
	r := newPaths(t, dual, func(c *Config) { c.Paths = append(c.Paths, Path{Link: 0, Peers: []netip.Addr{peer}}) })
	// twoPaths replaces the list, so it is the second path alone that is there.
	r.e.cfg.Paths = []Path{{Link: 1}, {Link: 0, Peers: []netip.Addr{peer}}}
	sent := func() (all []Frame) {
		e := r.e.SetState(r.now, Master)
		all = slices.Clone(e.Send)
		r.do(e)
		return all
	}
	type way struct {
		path uint8
		dst  netip.Addr
	}
	var got []way
	for _, f := range sent() {
		got = append(got, way{f.Path, f.Dst})
	}
	want := []way{{0, Group(IPv4)}, {0, Group(IPv6)}, {1, Group(IPv4)}, {1, Group(IPv6)}, {2, peer}}
	if !slices.Equal(got, want) {
		t.Errorf("a round goes to %v, want %v", got, want)
	}
	r.do(r.e.PathDown(r.now, 1))
	r.now = r.now.Add(100 * time.Millisecond)
	e := r.e.Renew(r.now)
	if slices.ContainsFunc(e.Send, func(f Frame) bool { return f.Path == 1 }) {
		t.Error("a frame for a link that is down")
	}
}

func TestBackupFollowsAMasterHeardOverAnyPath(t *testing.T) {
	r := newPaths(t)
	r.both(peerHigh, besideHigh, 1, 0)
	for range 5 { // the second path alone
		r.run(time.Second)
		r.hearBeside(besideHigh, 1, 0)
	}
	for range 5 { // the primary alone
		r.run(time.Second)
		r.hear(peerHigh, 1, 0)
	}
	r.state(Backup)
	r.run(4 * time.Second)
	r.state(Master)
}

func TestCopyOfARoundDecidesNothing(t *testing.T) {
	r := newPaths(t, preempting)
	p := r.advert(peerHigh, 1, 200)
	r.do(r.e.Receive(r.now, p)) // worse: the rig preempts and waits for the farewell
	r.state(Master)
	r.take()
	r.do(r.e.Receive(r.now, p.over(1, besideHigh))) // the round that was preempted, late: no farewell
	r.want("")
	r.run(10 * time.Millisecond)
	farewell := r.advert(besideHigh, 1, 200).over(1, besideHigh)
	r.do(r.e.Receive(r.now, farewell)) // over the other path than what was preempted
	r.want("permit, send 1/100, send 1/100, permit")
	r.do(r.e.Receive(r.now, farewell.over(0, peerHigh)))
	r.want("") // contests nothing
}

func TestBowOutOverAnotherPathIsThatOfTheMasterFollowed(t *testing.T) {
	for name, bow := range map[string]func(r *rig){
		"the second":  func(r *rig) { r.hearBeside(besideHigh, 255, 255) },
		"the primary": func(r *rig) { r.hear(peerHigh, 255, 255) },
		"both":        func(r *rig) { r.both(peerHigh, besideHigh, 255, 255) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newPaths(t)
			r.both(peerHigh, besideHigh, 1, 0)
			r.run(time.Second)
			r.both(peerHigh, besideHigh, 1, 0)
			r.take()
			bow(r)
			r.run(11 * time.Millisecond) // advskew 100: 10 ms
			r.want("BACKUP->MASTER bow-out, send 1/100, send 1/100, permit")
		})
	}
}

func TestBowOutIsNotTakenBackByARoundThatItOvertook(t *testing.T) {
	for name, c := range map[string]struct {
		rig  func(*testing.T) *rig
		make func(r *rig, leaves bool) Packet
		wait time.Duration
	}{
		"CARP": {func(t *testing.T) *rig { return newPaths(t) }, func(r *rig, leaves bool) Packet {
			if leaves {
				return r.advert(besideHigh, 255, 255).over(1, besideHigh)
			}
			return r.advert(peerHigh, 1, 0)
		}, 15 * time.Millisecond},
		"VRRP": {func(t *testing.T) *rig { return newVRRP(t, twoPaths) }, func(r *rig, leaves bool) Packet {
			if leaves {
				return r.router(besideHigh, 0).over(1, besideHigh)
			}
			return r.router(peerHigh, 200)
		}, 700 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			r := c.rig(t)
			for range 2 {
				p := c.make(r, false)
				r.do(r.e.Receive(r.now, p))
				r.do(r.e.Receive(r.now, p.over(1, besideHigh)))
				r.run(time.Second)
			}
			late := c.make(r, false)
			r.do(r.e.Receive(r.now, late.over(1, besideHigh)))
			r.do(r.e.Receive(r.now, c.make(r, true)))
			r.now = r.now.Add(time.Millisecond)
			r.do(r.e.Receive(r.now, late)) // over the primary path, and behind the bow-out
			r.run(c.wait)
			r.state(Master)
		})
	}
}

func TestBowOutOfAStrangerOverAnotherPathCountsForNothing(t *testing.T) {
	r := newPaths(t)
	r.both(peerHigh, besideHigh, 1, 0)
	r.take()
	r.hearBeside(besideLow, 255, 255)
	r.want("drop bow-out")
	r.run(20 * time.Millisecond)
	r.state(Backup)
}

func TestMasterIsOneHoweverManyPathsItHas(t *testing.T) {
	r := newPaths(t, dual)
	p := r.advert(besideHigh, 1, 0)
	r.do(r.e.Receive(r.now, p.over(1, besideHigh))) // the second path is quicker
	r.do(r.e.Receive(r.now, p.over(0, peerHigh)))
	if s := r.e.Status(r.now); s.Master.Address != peerHigh {
		t.Errorf("the master is called %v, want its address on the primary path", s.Master.Address)
	}
	fresh := 0
	for i := range r.e.heard {
		if r.e.fresh(r.now, &r.e.heard[i]) {
			fresh++
		}
	}
	if fresh != 1 {
		t.Errorf("%d masters are known, want 1", fresh)
	}
}

func TestMasterThatComesBackIsOneAgain(t *testing.T) {
	r := newPaths(t)
	r.both(peerHigh, besideHigh, 1, 0)
	r.run(10 * time.Second) // the rig is master meanwhile
	r.both(peerHigh, besideHigh, 1, 0)
	r.state(Backup)
	r.run(time.Second)
	p := r.advert(peerHigh, 1, 0)
	r.do(r.e.Receive(r.now, p.over(1, besideHigh)))
	r.do(r.e.Receive(r.now, p))
	if m := r.e.Status(r.now).Master; m.At != r.now {
		t.Errorf("the master that was heard right now is forgotten: %+v", m)
	}
}

func TestTieIsDecidedOnThePrimaryPathWhereItWorks(t *testing.T) {
	r := newPaths(t).master()
	r.both(peerHigh, besideHigh, 1, 100) // wins on the primary, would lose on the other
	r.state(Master)
	r.take()
	r.run(900 * time.Millisecond)
	p := r.advert(besideHigh, 1, 100).over(1, besideHigh)
	r.do(r.e.Receive(r.now, p)) // and first over the other
	r.do(r.e.Receive(r.now, p.over(0, peerHigh)))
	r.state(Master)
	r.hear(peerLow, 1, 100)
	r.state(Backup)
	// Where the other path is quicker, the copy decides.
	r = newPaths(t).master()
	p = r.advert(besideLow, 1, 100).over(1, besideLow)
	r.do(r.e.Receive(r.now, p))
	r.state(Master)
	r.do(r.e.Receive(r.now, p.over(0, peerLow)))
	r.want("MASTER->BACKUP tie-lost")
}

func TestTieIsDecidedOnTheOtherPathWhereThePrimaryIsCut(t *testing.T) {
	r := newPaths(t).master()
	r.hearBeside(besideHigh, 1, 100) // just met: it may be heard on the primary in a moment
	r.want("")
	r.run(900 * time.Millisecond)
	r.hearBeside(besideHigh, 1, 100)
	r.want("MASTER->BACKUP tie-lost")
	r = newPaths(t).master()
	r.hearBeside(besideLow, 1, 100)
	r.run(time.Second)
	r.hearBeside(besideLow, 1, 100)
	r.state(Master)
	// The other one decides on a path where this node does not hear it, and stays.
	for range tieRounds {
		r.state(Master)
		r.run(900 * time.Millisecond)
		r.hearBeside(besideLow, 1, 100)
	}
	r.state(Backup)
}

func TestClientSideDownIsSaidOverTheOtherPath(t *testing.T) {
	r := newPaths(t).master()
	r.do(r.e.LinkDown(r.now))
	r.want("MASTER->RELEASING link-down")
	r.run(300 * time.Millisecond)
	r.do(r.e.Released(r.now, nil))
	r.want("RELEASING->INIT link-down, send 255/255") // one frame: the primary is down
	if r.permit != (Permit{}) {
		t.Error("a permit outlives INIT")
	}
	r.do(r.e.LinkUp(r.now, rigLocal))
	r.want("INIT->BACKUP link-up")
}

func TestClientSideDownCases(t *testing.T) {
	for _, c := range []struct {
		name  string
		input func(r *rig)
		want  string
	}{
		{"the last path goes too", func(r *rig) { r.do(r.e.PathDown(r.now, 1)) }, "RELEASING->INIT link-down"},
		{"it cannot let go", func(r *rig) { r.do(r.e.Released(r.now, errors.New("busy"))) }, "RELEASING->INIT release-failed"},
		{"it comes back before all is let go", func(r *rig) {
			r.do(r.e.LinkUp(r.now, rigLocal))
			r.do(r.e.Released(r.now, nil))
		}, "RELEASING->BACKUP released, send 255/255, send 255/255"},
		{"a handover meanwhile", func(r *rig) {
			r.do(r.e.Resign(r.now, Backup, ReasonHandover))
			r.do(r.e.Released(r.now, nil))
		}, "RELEASING->INIT link-down, send 255/255"},
		{"a better master meanwhile", func(r *rig) { r.hearBeside(besideHigh, 1, 0) }, "RELEASING->INIT better-master"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newPaths(t).master()
			r.do(r.e.LinkDown(r.now))
			r.take()
			c.input(r)
			r.want(c.want)
		})
	}
}

func TestStalledMasterSaysNothingWhenItsClientSideGoes(t *testing.T) {
	r := newPaths(t).master()
	r.now = r.now.Add(2900 * time.Millisecond)
	r.do(r.e.LinkDown(r.now))
	r.want("MASTER->INIT link-down")
}

func TestCutOfTheOtherPathMovesNothing(t *testing.T) {
	r := newPaths(t).master()
	r.do(r.e.PathDown(r.now, 1))
	r.run(3 * time.Second)
	r.state(Master)
	r = newPaths(t)
	r.both(peerHigh, besideHigh, 1, 0)
	r.do(r.e.PathDown(r.now, 1))
	r.run(time.Second)
	r.hear(peerHigh, 1, 0)
	r.run(3 * time.Second)
	r.state(Backup)
}

func TestBackupWithoutClientSideWaitsInINIT(t *testing.T) {
	r := newPaths(t)
	r.both(peerHigh, besideHigh, 1, 0)
	r.take()
	r.do(r.e.LinkDown(r.now))
	r.want("BACKUP->INIT link-down")
	r.hearBeside(besideHigh, 1, 0)
	r.want("drop state")
	r.run(10 * time.Second)
	r.state(Init)
}

func TestFailingProbeMovesTheRoleOnce(t *testing.T) {
	r := newPaths(t).master()
	r.do(r.e.ClientSide(r.now, false))
	r.do(r.e.Released(r.now, nil))
	r.want("MASTER->RELEASING client-side-down, RELEASING->BACKUP released, send 255/255, send 255/255")
	if s := r.e.Status(r.now); s.Demotions[OwnerTrack] != 240 || !s.CutOff {
		t.Errorf("demotions %v, cut off %v", s.Demotions, s.CutOff)
	}
	r.run(2*time.Second + 900*time.Millisecond) // nobody took over
	r.state(Master)
	r.take()
	r.do(r.e.ClientSide(r.now, false)) // as before: no edge
	r.want("")
	r.do(r.e.ClientSide(r.now, true))
	r.want("send 1/100, send 1/100, permit")
	r.do(r.e.ClientSide(r.now, false)) // the next episode
	r.want("MASTER->RELEASING client-side-down")
}

func TestNodeWhoseProbeFailsTakesTheRoleOnlyIfNobodyHasIt(t *testing.T) {
	r := newPaths(t, preempting, skew(0))
	r.do(r.e.ClientSide(r.now, false))
	for range 5 {
		r.both(peerHigh, besideHigh, 2, 254) // worse even than a node demoted by 240
		r.run(time.Second)
	}
	r.state(Backup)
	r.both(peerHigh, besideHigh, 255, 255)
	r.run(25 * time.Millisecond) // advskew 240: 24 ms
	r.state(Master)
	// Two that are demoted alike do not take it at once.
	for _, c := range []struct {
		r    *rig
		want time.Duration
	}{
		{newPaths(t, skew(100)), 34 * time.Millisecond},
		{newVRRP(t, twoPaths, priority(100)), 255*time.Second/256 + 156*time.Second/512},
	} {
		c.r.do(c.r.e.ClientSide(c.r.now, false))
		if got := c.r.e.afterBowOut(c.r.e.bid()); got.Round(10*time.Millisecond) != c.want.Round(10*time.Millisecond) {
			t.Errorf("%v waits %v after a bow-out, want %v", c.r.e.cfg.Protocol, got, c.want)
		}
	}
}

func TestSilentPathIsToldFromADeadMaster(t *testing.T) {
	r := newPaths(t)
	silent := func() []bool {
		var all []bool
		for _, p := range r.e.Status(r.now).Paths {
			all = append(all, p.Silent)
		}
		return all
	}
	r.both(peerHigh, besideHigh, 1, 0)
	for range 4 {
		r.run(time.Second)
		r.hear(peerHigh, 1, 0)
	}
	if got := silent(); !slices.Equal(got, []bool{false, true}) {
		t.Errorf("with the second path cut, silent is %v", got)
	}
	for range 4 {
		r.run(time.Second)
		r.hearBeside(besideHigh, 1, 0)
	}
	if got := silent(); !slices.Equal(got, []bool{true, false}) {
		t.Errorf("with the primary path cut, silent is %v", got)
	}
	r.do(r.e.PathDown(r.now, 1))
	r.run(4 * time.Second)
	if got := silent(); !slices.Equal(got, []bool{false, false}) {
		t.Errorf("with no master, silent is %v", got)
	}
}

func TestPathsTakeTheFormThatTheyAreFor(t *testing.T) {
	peer := netip.MustParseAddr("192.0.2.77")
	r := newRig(t, func(c *Config) { c.Paths = []Path{{Link: 1}, {Link: 0, Peers: []netip.Addr{peer}}} })
	p := r.advert(peer, 1, 0)
	p.Dst, p.Broadcast, p.TTL = rigLocal.IPv4, false, 61
	for _, c := range []struct {
		name string
		p    Packet
		want Drop
	}{
		{"unicast of a peer beside multicast, routed", p, Accepted},
		{"unicast of a stranger", p.over(0, peerHigh), DropPeer},
		{"unicast where there is none", p.over(1, peer), DropTTL},
	} {
		e := r.e.Receive(r.now, c.p)
		if e.Drop != c.want {
			t.Errorf("%s: %v, want %v", c.name, e.Drop, c.want)
		}
	}
	m := r.advert(besideHigh, 1, 0).over(1, besideHigh)
	m.TTL = 254
	if e := r.e.Receive(r.now, m); e.Drop != DropTTL {
		t.Errorf("multicast on the second path from behind a router: %v", e.Drop)
	}
}

// Multicast and unicast of one interface come from one address, with one counter.
func TestUnicastBesideMulticastIsNoRepeat(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Replay, c.Paths = ReplayWindow, []Path{{Link: 0, Peers: []netip.Addr{peerHigh}}} })
	for range 3 {
		p := r.advert(peerHigh, 1, 0)
		u := p
		u.Dst, u.Broadcast = rigLocal.IPv4, false
		for _, c := range []struct {
			p    Packet
			want Drop
		}{{p, Accepted}, {u, Accepted}, {u, DropRepeat}} {
			if e := r.e.Receive(r.now, c.p); e.Drop != c.want {
				t.Errorf("to %v: %v, want %v", c.p.Dst, e.Drop, c.want)
			}
		}
		r.run(time.Second)
	}
}

func TestVRRPMasterIsOneOverTwoPaths(t *testing.T) {
	r := newVRRP(t, twoPaths)
	r.do(r.e.PathUp(r.now, 1, besideLocal))
	round := func(priority uint8, apart time.Duration) {
		p := r.router(peerHigh, priority)
		r.do(r.e.Receive(r.now, p))
		r.now = r.now.Add(apart)
		r.do(r.e.Receive(r.now, p.over(1, besideHigh)))
	}
	round(200, time.Millisecond)
	r.run(time.Second)
	round(200, time.Millisecond)
	r.take()
	p := r.router(peerHigh, 0)
	r.do(r.e.Receive(r.now, p.over(1, besideHigh))) // priority 0, over the second path alone
	r.run(700 * time.Millisecond)
	r.state(Master)
	if r.e.reason != ReasonBowOut {
		t.Errorf("master by %v, want %v", r.e.reason, ReasonBowOut)
	}
}

func TestPathsThatCannotBe(t *testing.T) {
	for name, set := range map[string]func(*Config){
		"too many":                    func(c *Config) { c.Paths = []Path{{Link: 1}, {Link: 2}, {Link: 3}, {Link: 4}, {Link: 5}} },
		"a link that there cannot be": func(c *Config) { c.Paths = []Path{{Link: 5}} },
		"the primary again":           func(c *Config) { c.Paths = []Path{{Link: 0}} },
		"a path twice":                func(c *Config) { c.Paths = []Path{{Link: 1}, {Link: 1}} },
		"a peer that is none":         func(c *Config) { c.Paths = []Path{{Link: 1, Peers: []netip.Addr{Group(IPv4)}}} },
		"compat bsd":                  func(c *Config) { c.Paths, c.Compat = []Path{{Link: 1}}, CompatBSD },
	} {
		if _, err := NewEngine(rigConfig(set)); !errors.Is(err, ErrConfig) {
			t.Errorf("%s: %v", name, err)
		}
	}
	r := newPaths(t)
	if err := r.e.CheckReconfigure(r.now, rigConfig()); !errors.Is(err, ErrConfig) {
		t.Errorf("the paths of a running engine changed: %v", err)
	}
}
