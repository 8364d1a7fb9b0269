package carp

import (
	"slices"
	"testing"
	"time"
)

// holder and better make a group's members of advskew 100 and 0, the second of which
// preempts.
func holder(c *Config) { c.AdvSkew = 100 }
func better(c *Config) { c.AdvSkew, c.Preempt = 0, true }
func worst(c *Config)  { c.AdvSkew = 200 }

// waitingGroup is a group whose better member has not started yet.
func waitingGroup(t *testing.T) *group {
	g := newGroup(t, holder, better, worst)
	g.nodes[1].dead = true
	g.run(10 * time.Second)
	g.want(Master, Backup, Backup)
	g.nodes[0].log, g.nodes[2].log = nil, nil
	return g
}

// lateGroup is one whose better member has just started.
func lateGroup(t *testing.T) *group {
	g := waitingGroup(t)
	g.start(g.nodes[1])
	return g
}

func (m *member) wantLog(t *testing.T, want ...string) {
	t.Helper()
	if !slices.Equal(m.log, want) {
		t.Errorf("node %d did %q, want %q", m.cfg.NodeID, m.log, want)
	}
}

func TestBetterNodeAsksAndTheHolderLetsGoFirst(t *testing.T) {
	g := lateGroup(t)
	g.run(2 * time.Second)
	g.want(Backup, Master, Backup)
	g.nodes[0].wantLog(t, "MASTER->RELEASING requested", "RELEASING->BACKUP released")
	g.nodes[1].wantLog(t, "INIT->BACKUP link-up", "BACKUP->MASTER bow-out")
	g.nodes[2].wantLog(t)
	if g.nodes[1].e.timers[timerGrace] != 0 {
		t.Error("the heir waits for a farewell though the holder has let go")
	}
	if g.nodes[0].e.demotion != 0 {
		t.Error("who was asked for the role stays demoted")
	}
	g.run(time.Minute)
	g.want(Backup, Master, Backup)
}

// It does not hear who asks, so it would stay beside it.
func TestHolderThatDoesNotAnswerKeepsTheRole(t *testing.T) {
	g := waitingGroup(t)
	g.nodes[0].deaf = true
	g.start(g.nodes[1])
	g.run(time.Minute)
	g.want(Master, Backup, Backup)
	g.nodes[0].deaf = false
	g.run(2 * time.Second)
	g.want(Backup, Master, Backup)
}

// alone runs the group and fails at an instant at which two members are master.
func (g *group) alone(d time.Duration) {
	g.t.Helper()
	for end := g.now.Add(d); g.now < end; {
		g.run(5 * time.Millisecond)
		masters := 0
		for _, m := range g.nodes {
			if !m.dead && m.e.state == Master {
				masters++
			}
		}
		if masters > 1 {
			g.t.Fatalf("at %v there are %d masters", time.Duration(g.now), masters)
		}
	}
}

func TestMasterThatABackupDoesNotHearLetsGoBeforeItIsReplaced(t *testing.T) {
	for _, base := range []uint8{1, 10} {
		with := func(c *Config) { c.AdvBase = base; c.Leased = true }
		g := newGroup(t, func(c *Config) { better(c); with(c) }, func(c *Config) { holder(c); with(c) })
		g.run(time.Minute)
		a, b := g.nodes[0], g.nodes[1]
		g.want(Master, Backup)
		a.log, b.log = nil, nil
		b.lost = a
		g.alone(10 * time.Minute) // nor does it take the role back by advert while it is not heard
		g.want(Backup, Master)
		a.wantLog(t, "MASTER->RELEASING unheard", "RELEASING->BACKUP released")
		b.wantLog(t, "BACKUP->MASTER master-timed-out")
		b.lost = nil
		g.alone(time.Minute)
		g.want(Master, Backup)
	}
}

// A few lost adverts are no reason for anything: the backup says that it misses them.
func TestBackupThatMissesAdvertsIsAnswered(t *testing.T) {
	g := newGroup(t, func(c *Config) { c.AdvSkew = 0 }, holder)
	g.run(time.Minute)
	a, b := g.nodes[0], g.nodes[1]
	a.log, b.log = nil, nil
	down := b.e.masterDown(bid{})
	b.lost = a
	for !b.missing(g.now, down/missingEarly+10*time.Millisecond) {
		g.run(time.Millisecond)
	}
	b.lost = nil
	g.run(20 * time.Millisecond)
	if b.missing(g.now, down/2) {
		t.Error("the master did not advertise as the backup missed it")
	}
	g.run(time.Minute)
	a.wantLog(t)
	b.wantLog(t)
}

// missing reports whether no more than left is left of a backup's master-down time.
func (m *member) missing(now Instant, left time.Duration) bool {
	return m.e.timers[timerDown].Sub(now) < left
}

func TestRefusalHoldsForAWhile(t *testing.T) {
	g := newGroup(t, holder, better)
	g.nodes[1].dead = true
	g.run(10 * time.Second)
	g.nodes[0].e.asking = true // its guard has not answered: it cannot give what it may not have
	g.start(g.nodes[1])
	g.run(8 * time.Second)
	g.want(Master, Backup)
	g.nodes[0].e.asking = false
	g.run(5 * time.Second)
	g.want(Backup, Master)
}

func TestRoleComesBackIfWhoAskedForItDies(t *testing.T) {
	g := waitingGroup(t)
	a, b := g.nodes[0], g.nodes[1]
	g.nodes[2].dead = true
	b.deaf, b.mute = true, true
	g.start(b)
	b.mute = false
	b.e.clear()
	b.e.tellHandover(g.now, b.e.timing(), handover{step: handoverAsk, to: 1})
	g.do(b, b.e.finish())
	b.dead = true
	g.run(3 * time.Second)
	a.wantLog(t, "MASTER->RELEASING requested", "RELEASING->BACKUP released", "BACKUP->MASTER nobody-took-over")
}

func TestHandoverGoesToTheBestThatIsFit(t *testing.T) {
	g := newGroup(t, func(c *Config) { c.AdvSkew = 0 }, holder, worst)
	g.run(10 * time.Second)
	g.want(Master, Backup, Backup)
	g.do(g.nodes[1], g.nodes[1].e.Demote(g.now, "test", 50)) // degraded, though the better of the two
	g.run(2 * time.Second)
	g.do(g.nodes[0], g.nodes[0].e.Resign(g.now, Backup, ReasonHandover))
	g.want(Backup, Backup, Master) // at once
	g.run(time.Second)
	g.want(Backup, Backup, Master)
}

func TestStopTellsTheHeir(t *testing.T) {
	g := newGroup(t, func(c *Config) { c.AdvSkew = 0 }, holder)
	g.run(10 * time.Second)
	g.do(g.nodes[0], g.nodes[0].e.Resign(g.now, Init, ReasonStopping))
	g.want(Init, Master)
}

// Everything that belonged to a planned move, played again, moves nothing.
func TestRecordedHandoverMovesNothing(t *testing.T) {
	g := lateGroup(t)
	g.run(2 * time.Second)
	g.want(Backup, Master, Backup)
	tape := slices.Clone(g.tape)
	logs := len(g.nodes[0].log) + len(g.nodes[1].log) + len(g.nodes[2].log)
	for _, p := range tape {
		if n := g.inject(p, nil); n > 0 && MessageType(p.Payload[0]&0xf) >= TypePeerState {
			t.Fatalf("% x was accepted by %d", p.Payload, n)
		}
	}
	g.run(10 * time.Second)
	if len(g.nodes[0].log)+len(g.nodes[1].log)+len(g.nodes[2].log) != logs {
		t.Errorf("recordings moved the role: %v, %v, %v", g.nodes[0].log, g.nodes[1].log, g.nodes[2].log)
	}
}

func TestHandoverForAnotherNodeIsNotTaken(t *testing.T) {
	g := newGroup(t, func(c *Config) { c.AdvSkew = 0 }, holder, worst)
	g.run(10 * time.Second)
	m := g.nodes[0].e
	m.clear()
	m.tellHandover(g.now, m.timing(), handover{step: handoverLetGo, to: 3})
	m.advertise(g.now)
	g.nodes[2].dead = true
	g.do(g.nodes[0], m.finish())
	g.run(time.Second)
	g.want(Master, Backup, Backup)
}

func TestMembersAreKnownAndForgotten(t *testing.T) {
	g := newGroup(t, func(c *Config) { c.AdvSkew = 0 }, holder, func(c *Config) { worst(c); c.Window = time.Minute })
	g.run(10 * time.Second)
	all := g.nodes[0].e.Status(g.now).Members
	if len(all) != 2 || all[0].Node != 2 || all[0].State != Backup || all[0].AdvSkew != 100 || all[0].Differs || all[0].Gone ||
		all[0].Address != g.nodes[1].local.IPv4 || !all[1].Differs {
		t.Fatalf("members %+v", all)
	}
	backup := g.nodes[1].e.Status(g.now).Members
	if len(backup) != 2 || backup[0].State != Master || backup[0].Epoch != g.nodes[0].e.epoch {
		t.Fatalf("a backup knows %+v", backup)
	}
	g.nodes[1].dead = true
	g.run(5 * time.Second)
	if all := g.nodes[0].e.Status(g.now).Members; !all[0].Gone || all[1].Gone {
		t.Errorf("after the death of node 2: %+v", all)
	}
}

func TestNextEpochIsAboveWhatMembersNamed(t *testing.T) {
	g := newGroup(t, holder, worst)
	g.nodes[0].e.epoch = 1 << 60
	g.run(10 * time.Second)
	g.nodes[0].dead = true
	g.run(10 * time.Second)
	if got := g.nodes[1].e.epoch; got <= 1<<60 {
		t.Errorf("epoch %d of the second mastership, after 2^60", got)
	}
}

// What a backup says does not count as an advert: it neither permits anything nor
// keeps a master-down timer from firing.
func TestPeerStateIsNoAdvert(t *testing.T) {
	g := newGroup(t, holder, worst)
	g.run(10 * time.Second)
	permits := g.nodes[1].e.permitted
	down := g.nodes[0].e.timers[timerDown]
	n := g.nodes[1].e
	n.clear()
	n.tellState(g.now, n.timing())
	e := n.finish()
	if len(e.Send) == 0 {
		t.Fatal("nothing was said")
	}
	g.do(g.nodes[1], e)
	if n.permitted != permits || n.out.Permit != (Permit{}) || g.nodes[0].e.timers[timerDown] != down {
		t.Error("a peer state counts as an advert")
	}
	third := newGroup(t, holder, worst, worst)
	third.run(10 * time.Second)
	third.nodes[0].dead = true
	third.run(3*time.Second + 900*time.Millisecond)
	if third.nodes[1].e.state != Master && third.nodes[2].e.state != Master {
		t.Error("a backup that says what it is keeps another one from taking over")
	}
}

func TestBodiesAreRead(t *testing.T) {
	s := PeerState{State: Releasing, Fitness: Unfit, Held: 3, Epoch: 1<<63 - 5, Config: 0xfeedface01020304}
	var got PeerState
	if d := got.decode(s.append(nil)); d != Accepted || got != s {
		t.Errorf("%v: %+v, want %+v", d, got, s)
	}
	h := handover{handoverLetGo, 200, 77}
	var back handover
	if d := back.decode(h.append(nil)); d != Accepted || back != h {
		t.Errorf("%v: %+v, want %+v", d, back, h)
	}
	for n := range peerStateLen {
		if d := got.decode(s.append(nil)[:n]); d != DropLength {
			t.Errorf("%d bytes of a peer state: %v", n, d)
		}
	}
	for n := range handoverLen {
		if d := back.decode(h.append(nil)[:n]); d != DropLength {
			t.Errorf("%d bytes of a handover: %v", n, d)
		}
	}
	for _, bad := range [][2]byte{{0, 2}, {1, 9}, {2, 7}} {
		b := s.append(nil)
		b[bad[0]] = bad[1]
		if d := got.decode(b); d != DropVersion {
			t.Errorf("byte %d is %d: %v", bad[0], bad[1], d)
		}
	}
	for _, step := range []byte{0, 5} {
		b := h.append(nil)
		b[1] = step
		if d := back.decode(b); d != DropVersion {
			t.Errorf("step %d: %v", step, d)
		}
	}
}

func TestMemoryOfMembersIsBounded(t *testing.T) {
	var m members
	for i := range 255 {
		m.put(PeerState{Node: uint8(i + 1), State: Backup, At: Instant(i + 1)})
	}
	if m.n != MaxMembers || m.get(255) == nil || m.get(255-MaxMembers) != nil {
		t.Errorf("%d members, the last is %+v", m.n, m.get(255))
	}
}

func TestHeir(t *testing.T) {
	at := Instant(time.Hour)
	for _, tt := range []struct {
		name string
		all  []PeerState
		want uint8
	}{
		{"nobody", nil, 0},
		{"the only one", []PeerState{{Node: 4, State: Backup, At: at}}, 4},
		{"no master", []PeerState{{Node: 4, State: Master, At: at}}, 0},
		{"none that is leaving", []PeerState{{Node: 4, State: Releasing, At: at}, {Node: 5, State: Init, At: at}}, 0},
		{"none that is gone", []PeerState{{Node: 4, State: Backup, At: at - 1}}, 0},
		{"none that is unfit", []PeerState{{Node: 4, State: Backup, Fitness: Unfit, At: at}}, 0},
		{"the fit before the better", []PeerState{
			{Node: 4, State: Backup, Fitness: Degraded, AdvBase: 1, At: at},
			{Node: 5, State: Backup, AdvBase: 1, AdvSkew: 9, At: at}}, 5},
		{"the shorter interval", []PeerState{
			{Node: 4, State: Backup, AdvBase: 1, AdvSkew: 9, At: at},
			{Node: 5, State: Backup, AdvBase: 1, AdvSkew: 8, At: at}}, 5},
		{"who hears the master before who does not", []PeerState{
			{Node: 4, State: Backup, AdvBase: 1, Missing: true, At: at},
			{Node: 5, State: Backup, AdvBase: 1, AdvSkew: 9, Fitness: Degraded, At: at}}, 5},
		{"of equals the lower id", []PeerState{{Node: 6, State: Backup, At: at}, {Node: 5, State: Backup, At: at}}, 5},
	} {
		var m members
		for _, p := range tt.all {
			m.put(p)
		}
		got := uint8(0)
		if best := m.heir(at); best != nil {
			got = best.Node
		}
		if got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}

// A third node hears all: it is the heir, and must not just give the role back.
func TestMasterThatOneOfThreeDoesNotHearLetsGo(t *testing.T) {
	for name, third := range map[string]func(*Config){
		"the third is the worst": worst, "the third is the second best": func(c *Config) { c.AdvSkew = 50 },
		"the third preempts": func(c *Config) { c.AdvSkew, c.Preempt = 50, true },
	} {
		t.Run(name, func(t *testing.T) {
			g := newGroup(t, better, holder, third)
			g.run(time.Minute)
			g.want(Master, Backup, Backup)
			a, b := g.nodes[0], g.nodes[1]
			a.log = nil
			b.lost = a
			g.alone(20 * time.Second)
			if a.e.state == Master || len(a.log) != 2 || a.log[0] != "MASTER->RELEASING unheard" {
				t.Errorf("the master that is not heard did %q", a.log)
			}
			g.alone(10 * time.Minute) // it tries again, once a minute
			if len(a.log) > 3*11 {
				t.Errorf("the role moved %d times in 10 minutes", len(a.log))
			}
			b.lost = nil
			g.alone(2 * time.Minute)
			g.want(Master, Backup, Backup)
		})
	}
}

// Whoever has the role lets go before the deaf node takes it, and so does the heir.
func TestDeafBackupOfThreeIsAloneAsItTakesTheRole(t *testing.T) {
	g := newGroup(t, better, holder, func(c *Config) { c.AdvSkew, c.Preempt = 50, true })
	g.run(time.Minute)
	g.want(Master, Backup, Backup)
	g.nodes[1].deaf = true
	g.alone(10 * time.Minute)
	g.want(Backup, Master, Backup)
	g.nodes[1].deaf = false
	g.alone(2 * time.Minute)
	g.want(Master, Backup, Backup)
}

// It has followed nobody, so it misses nobody in particular.
func TestNodeThatStartsDeafIsAloneAsItTakesTheRole(t *testing.T) {
	g := newGroup(t, better, holder, worst)
	late := g.nodes[2]
	late.dead = true
	g.run(time.Minute)
	late.deaf = true
	g.start(late)
	g.alone(10 * time.Minute)
	g.want(Backup, Backup, Master)
}

// All backups of one weight have waited equally long when their master is silent: without
// an order all of them would take the role at one instant.
func TestEqualMembersTakeTheRoleOfASilentMasterInTurn(t *testing.T) {
	equal := func(c *Config) { c.AdvSkew = 0 }
	g := newGroup(t, equal, equal, equal, equal)
	g.run(10 * time.Second)
	g.want(Master, Backup, Backup, Backup)
	for first := range 3 {
		for _, m := range g.nodes {
			m.log = nil
		}
		g.nodes[first].dead = true
		g.alone(10 * time.Second)
		for n := range g.nodes {
			if n > first+1 {
				g.nodes[n].wantLog(t)
			}
		}
		g.nodes[first+1].wantLog(t, "BACKUP->MASTER master-timed-out")
	}
}
