package carp

import (
	"net/netip"
	"testing"
	"time"
)

// unheardGroup is one that has run for a while.
func unheardGroup(t *testing.T, set ...func(*Config)) *group {
	g := newGroup(t, set...)
	g.run(time.Minute)
	for _, m := range g.nodes {
		m.log = nil
	}
	return g
}

// With FamiliesEach there is a master-down timer a family.
func TestBackupOfIPv6AloneMissesNobodyItHears(t *testing.T) {
	only6 := func(c *Config) { c.Addresses, c.Families = []netip.Addr{rigAddr6}, FamiliesEach }
	g := unheardGroup(t, func(c *Config) { only6(c); c.AdvSkew = 0 }, only6)
	g.run(time.Minute)
	g.want(Master, Backup)
	g.nodes[0].wantLog(t)
	b := g.nodes[1]
	b.lost = g.nodes[0]
	g.alone(time.Minute)
	g.want(Backup, Master)
	b.wantLog(t, "BACKUP->MASTER master-timed-out")
}

// A backup that is held back does not take the role: if its master let go for it,
// nobody would have it.
func TestMasterStaysForABackupThatCannotTakeTheRole(t *testing.T) {
	g := unheardGroup(t, func(c *Config) { c.AdvSkew = 0 }, holder)
	a, b := g.nodes[0], g.nodes[1]
	b.e.clear()
	b.e.failures = 3 // held for 80 s
	b.e.holdBack(g.now)
	g.do(b, b.e.finish())
	b.lost = a
	g.run(75 * time.Second)
	g.want(Master, Backup)
	a.wantLog(t)
	g.alone(20 * time.Second) // then it can
	g.want(Backup, Master)
}

// A backup that hears nobody at all would not hear the heir either.
func TestNobodyElseTakesTheRoleThatIsLetGoForADeafBackup(t *testing.T) {
	for _, base := range []uint8{1, 10} {
		with := func(c *Config) { c.AdvBase, c.Leased = base, true }
		g := unheardGroup(t, func(c *Config) { better(c); with(c) }, func(c *Config) { holder(c); with(c) }, func(c *Config) { worst(c); with(c) })
		deaf := g.nodes[2]
		deaf.deaf = true
		silent, worstSilent := time.Duration(0), time.Duration(0)
		for end := g.now.Add(5 * time.Minute); g.now < end; {
			g.run(5 * time.Millisecond)
			masters := 0
			for _, m := range g.nodes {
				if m.e.state == Master {
					masters++
				}
			}
			if silent += 5 * time.Millisecond; masters > 0 {
				silent = 0
			}
			if worstSilent = max(worstSilent, silent); masters > 1 {
				t.Fatalf("at %v there are %d masters; they did %q, %q, %q", time.Duration(g.now), masters, g.nodes[0].log, g.nodes[1].log, deaf.log)
			}
		}
		g.want(Backup, Backup, Master)
		deaf.wantLog(t, "BACKUP->MASTER master-timed-out")
		if most := deaf.e.masterDown(bid{}) / missingEarly; worstSilent > most {
			t.Errorf("nobody was master for %v", worstSilent)
		}
	}
}

// An attacker that kept one form of a round back can bring it a little later.
func TestOneMessageOverTwoFamiliesIsNotMissedTwice(t *testing.T) {
	g := unheardGroup(t, func(c *Config) { dual(c); c.AdvSkew = 0 }, func(c *Config) { dual(c); holder(c) })
	a, b := g.nodes[0], g.nodes[1]
	b.e.plan.follows = 1
	b.e.arm(timerDown, g.now.Add(b.e.masterDown(bid{})/missingEarly))
	b.e.clear()
	b.e.tellState(g.now, b.e.timing())
	frames := b.e.finish().Send
	if len(frames) != 2 {
		t.Fatalf("%d frames", len(frames))
	}
	say := func(f Frame) {
		src := b.local.IPv4
		if FamilyOf(f.Dst) == IPv6 {
			src = b.local.IPv6
		}
		g.do(a, a.e.Receive(g.now, Packet{Src: src, Dst: f.Dst, TTL: 255, Broadcast: true, Payload: f.Payload}))
	}
	b.dead = true // says nothing else meanwhile
	say(frames[0])
	g.now = g.now.Add(a.e.fastestDown() / 8)
	say(frames[1])
	g.want(Master, Backup)
}
