package carp

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// unfit tells a member's engine what it is.
func (g *group) unfit(m *member, is bool) { g.do(m, m.e.Unfit(g.now, is)) }

// fitGroup is a group of three that has run for a while; the first is master, and none
// preempts.
func fitGroup(t *testing.T, set ...func(*Config)) *group {
	all := []func(*Config){func(c *Config) { c.AdvSkew = 0 }, holder, worst}
	for _, f := range set {
		for i, before := range all {
			all[i] = func(c *Config) { before(c); f(c) }
		}
	}
	g := newGroup(t, all...)
	g.run(time.Minute)
	g.want(Master, Backup, Backup)
	for _, m := range g.nodes {
		m.log = nil
	}
	return g
}

func TestUnfitMasterLetsGoForAFitMemberInOrder(t *testing.T) {
	for _, base := range []uint8{1, 10} {
		g := fitGroup(t, func(c *Config) { c.AdvBase = base })
		g.unfit(g.nodes[0], true)
		g.alone(10 * time.Millisecond)
		g.want(Backup, Master, Backup)
		g.nodes[0].wantLog(t, "MASTER->RELEASING unfit", "RELEASING->BACKUP released")
		g.nodes[1].wantLog(t, "BACKUP->MASTER bow-out")
		g.nodes[2].wantLog(t)
		g.alone(10 * time.Minute)
		g.want(Backup, Master, Backup)
		g.unfit(g.nodes[0], false)
		g.alone(time.Minute)
		g.want(Backup, Master, Backup) // without preempt it stays where it is
		if s := g.nodes[0].e.Status(g.now); s.Unfit || s.Demotion != 0 {
			t.Errorf("fit again: %+v", s.Demotions)
		}
	}
}

func TestUnfitMasterTakesNoUnfitHeir(t *testing.T) {
	g := fitGroup(t)
	g.unfit(g.nodes[1], true)
	g.unfit(g.nodes[0], true)
	g.alone(time.Second)
	g.want(Backup, Backup, Master)
	g.nodes[1].wantLog(t)
}

// Whose demotion is the least among the unfit is chance.
func TestOfMembersThatAreAllUnfitTheMasterStays(t *testing.T) {
	g := fitGroup(t, func(c *Config) { c.Preempt = true })
	for _, m := range g.nodes[1:] {
		g.unfit(m, true)
	}
	g.do(g.nodes[0], g.nodes[0].e.Demote(g.now, "more", 9))
	g.unfit(g.nodes[0], true)
	g.alone(10 * time.Minute)
	g.want(Master, Backup, Backup)
	g.nodes[0].wantLog(t)
	// And lets go as soon as one is fit.
	g.unfit(g.nodes[2], false)
	g.alone(100 * time.Millisecond)
	g.want(Backup, Backup, Master)
	g.nodes[0].wantLog(t, "MASTER->RELEASING unfit", "RELEASING->BACKUP released")
}

func TestUnfitMasterStaysWithoutAMemberThatIsHeard(t *testing.T) {
	g := fitGroup(t)
	for _, m := range g.nodes[1:] {
		m.dead = true
	}
	g.run(time.Minute)
	g.unfit(g.nodes[0], true)
	g.run(time.Minute)
	g.nodes[0].wantLog(t)
	g.start(g.nodes[1]) // it becomes known
	g.alone(5 * time.Second)
	if g.nodes[1].e.state != Master || g.nodes[0].log[0] != "MASTER->RELEASING unfit" {
		t.Errorf("%q, %q", g.nodes[0].log, g.nodes[1].log)
	}
}

// A member that says that it is fit and does not take the role: the holder takes it back,
// and offers it ever more seldom.
func TestRoleThatNobodyTakesFromAnUnfitMasterIsTakenBack(t *testing.T) {
	g := fitGroup(t)
	a := g.nodes[0]
	for _, m := range g.nodes[1:] {
		m.e.cfg.StartGate = true // a node that hears nothing of being asked
		m.deaf = true
		m.e.timers[timerHold] = 0
	}
	for _, m := range g.nodes[1:] { // nor does it take the role since it is deaf
		m.e.disarm(timerDown)
	}
	start := g.now
	g.unfit(a, true)
	var let []time.Duration
	seen := 0
	for g.now < start.Add(5*time.Minute) {
		g.run(10 * time.Millisecond)
		for _, m := range g.nodes[1:] {
			m.e.disarm(timerDown)
		}
		for ; seen < len(a.log); seen++ {
			if strings.Contains(a.log[seen], "RELEASING unfit") {
				let = append(let, g.now.Sub(start))
			}
		}
	}
	if !slices.ContainsFunc(a.log, func(l string) bool { return strings.Contains(l, "nobody-took-over") }) || a.e.state != Master {
		t.Fatalf("%v: %q", a.e.state, a.log)
	}
	if len(let) < 3 || len(let) > 6 {
		t.Fatalf("let go at %v", let)
	}
	for i := 2; i < len(let); i++ {
		if let[i]-let[i-1] < let[i-1]-let[i-2]+5*time.Second {
			t.Errorf("let go at %v: not more seldom", let)
		}
	}
}

// Who has handed over is not asked, or the role would come back at once.
func TestUnfitMasterDoesNotGiveTheRoleBackToWhoHasHandedOver(t *testing.T) {
	g := fitGroup(t)
	g.nodes[2].dead = true
	g.run(10 * time.Second)
	a, b := g.nodes[0], g.nodes[1]
	g.unfit(b, true)
	g.do(a, a.e.Resign(g.now, Backup, ReasonHandover))
	g.alone(time.Minute)
	g.want(Backup, Master, Backup)
	g.do(a, a.e.Demote(g.now, OwnerHandover, 0)) // resume
	g.alone(5 * time.Second)
	g.want(Master, Backup, Backup)
	b.wantLog(t, "BACKUP->MASTER bow-out", "MASTER->RELEASING unfit", "RELEASING->BACKUP released")
}

func TestUnfitMasterLetsGoOnlyForWhoHearsIt(t *testing.T) {
	fit := PeerState{Node: 2, State: Backup, AdvBase: 1, AdvSkew: 100, Follows: 1, At: Instant(time.Hour)}
	for name, change := range map[string]func(*PeerState){
		"master":           func(p *PeerState) { p.State = Master },
		"starting":         func(p *PeerState) { p.State = Init },
		"unfit":            func(p *PeerState) { p.Fitness = Unfit },
		"demoted as far":   func(p *PeerState) { p.Fitness, p.AdvSkew = Degraded, 240 },
		"follows another":  func(p *PeerState) { p.Follows = 3 },
		"follows nobody":   func(p *PeerState) { p.Follows = 0 },
		"does not hear it": func(p *PeerState) { p.Missing = true },
		"gone":             func(p *PeerState) { p.At-- },
	} {
		p := fit
		change(&p)
		var m members
		if m.put(p); m.fit(1, fit.At) != nil {
			t.Errorf("%s: it is taken for fit", name)
		}
	}
	var m members
	for _, p := range []PeerState{{Node: 4}, fit} {
		m.put(p)
	}
	degraded, far := fit, fit
	degraded.Node, degraded.Fitness, degraded.AdvSkew = 3, Degraded, 0
	far.Node, far.AdvSkew = 5, 200
	m.put(degraded)
	m.put(far)
	if best := m.fit(1, fit.At); best == nil || best.Node != 2 {
		t.Errorf("the best is %+v", best)
	}
}

// Of several unfit nodes, all demoted to the same, one only takes the role of a master
// that leaves.
func TestUnfitNodesDoNotAllTakeTheRoleThatIsLeft(t *testing.T) {
	g := fitGroup(t)
	for _, m := range g.nodes {
		g.unfit(m, true)
	}
	g.alone(10 * time.Second)
	g.do(g.nodes[0], g.nodes[0].e.Resign(g.now, Init, ReasonStopping))
	g.alone(10 * time.Second)
	g.want(Init, Master, Backup)
	if len(g.nodes[2].log) != 0 {
		t.Errorf("%q", g.nodes[2].log)
	}
}

func TestUnfitNodeTakesTheRoleThatNobodyElseHas(t *testing.T) {
	g := fitGroup(t)
	for _, m := range g.nodes[1:] {
		g.unfit(m, true)
	}
	g.nodes[0].dead = true
	g.run(time.Minute)
	if g.nodes[1].e.state != Master && g.nodes[2].e.state != Master {
		t.Errorf("%q, %q", g.nodes[1].log, g.nodes[2].log)
	}
}

func TestWithoutASealedGroupUnfitIsADemotionOnly(t *testing.T) {
	r := newRig(t).master()
	r.take()
	r.do(r.e.Unfit(r.now, true))
	r.want("send 1/240, permit")
	r.hear(peerHigh, 1, 241)
	r.state(Master)
	r.do(r.e.Unfit(r.now, false))
	if s := r.e.Status(r.now); s.Demotion != 0 || s.Unfit {
		t.Errorf("%+v", s)
	}
}

// Whose configuration is the better is the first, though all are demoted to the same.
func TestUnfitBackupsTakeAnOfferedRoleOneAfterTheOther(t *testing.T) {
	wait := func(advskew uint8) time.Duration {
		r := newRig(t, skew(advskew))
		r.hear(peerHigh, 1, 50)
		r.do(r.e.Unfit(r.now, true))
		return r.e.afterBowOut(bid{})
	}
	if first, second := wait(100), wait(200); first >= second {
		t.Errorf("they wait for %v and %v", first, second)
	}
}
