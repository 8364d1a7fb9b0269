package main_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/carpd/carpd/cmd/daemon/api"
	"github.com/carpd/carpd/test/lab"
)

var back4 = netip.MustParseAddr("198.51.100.50")

// commons is what the resources of several nodes stand for: one thing that one node may
// use at a time, and a diary of what was done to it.
type commons struct {
	t   testing.TB
	dir string
}

func newCommons(t testing.TB) *commons {
	t.Helper()
	return &commons{t, tempDir(t)}
}

// script does what its first argument says for the node of its second. promote and demote
// wait while there is a file hold-ACTION-NODE, and fail while there is a file
// fail-ACTION-NODE; fail-... of promotion leaves it half done.
const commonsScript = `#!/bin/sh
cd "$(dirname "$0")" || exit 1
action=$1 node=$2
note() { echo "$node $*" >>diary; }
case $action in
promote)
	note promote "$CARP_REASON"
	for other in state-*; do
		[ "$other" = "state-$node" ] || ! grep -qs promoted "$other" || note TWO PRIMARIES "$other"
	done
	echo half >state-$node
	while [ -e hold-promote-$node ]; do sleep 0.02; done
	[ ! -e fail-promote-$node ] || exit 78
	echo promoted >state-$node
	note promoted ;;
demote)
	note demote
	while [ -e hold-demote-$node ]; do sleep 0.02; done
	[ ! -e fail-demote-$node ] || exit 1
	echo demoted >state-$node
	note demoted ;;
monitor)
	case $(cat state-$node 2>/dev/null) in
	promoted) exit 8 ;;
	half) exit 1 ;;
	esac
	exit 7 ;;
esac
`

// entry is the resource of a node, as lines of its configuration.
func (c *commons) entry(node string, more ...string) []string {
	c.t.Helper()
	path := filepath.Join(c.dir, "script")
	if err := os.WriteFile(path, []byte(commonsScript), 0o755); err != nil {
		c.t.Fatal(err)
	}
	lines := []string{"hooks:", "  - kind: exec", "    name: thing", "    interval: 100ms", "    timeout: 20s"}
	for _, m := range more {
		lines = append(lines, "    "+m)
	}
	return append(lines, fmt.Sprintf("    with: {promote: [%[1]s, promote, %[2]s], demote: [%[1]s, demote, %[2]s], monitor: [%[1]s, monitor, %[2]s]}", path, node))
}

func (c *commons) set(file, content string) {
	c.t.Helper()
	if err := os.WriteFile(filepath.Join(c.dir, file), []byte(content), 0o644); err != nil {
		c.t.Fatal(err)
	}
}

func (c *commons) remove(file string) {
	c.t.Helper()
	if err := os.Remove(filepath.Join(c.dir, file)); err != nil {
		c.t.Fatal(err)
	}
}

func (c *commons) diary() []string {
	text, _ := os.ReadFile(filepath.Join(c.dir, "diary"))
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
}

// awaitDiary waits for the last entry that is about something to be this.
func (c *commons) awaitDiary(line string) {
	c.t.Helper()
	lab.Eventually(c.t, 2*takeover, "the diary to end with "+line, func() bool {
		d := c.diary()
		return d[len(d)-1] == line
	})
}

// onePrimary checks that no two nodes ever had it.
func (c *commons) onePrimary() {
	c.t.Helper()
	if text := strings.Join(c.diary(), "\n"); strings.Contains(text, "TWO PRIMARIES") {
		c.t.Errorf("two nodes had the resource:\n%s", text)
	}
}

// thing is what a node says of the resource.
func (n *node) thing() api.Hook {
	n.t.Helper()
	for _, h := range n.instance().Hooks {
		if h.Name == "thing" {
			return h
		}
	}
	n.t.Fatal("there is no resource")
	return api.Hook{}
}

// shareThing starts a as master, and b behind it, with a resource between them.
func shareThing(t *testing.T, set func(node string, s *settings)) (*pair, *commons) {
	t.Helper()
	p, c := newPair(t), newCommons(t)
	of := func(node string, advskew int) settings {
		s := settings{advskew: advskew, more: c.entry(node)}
		if set != nil {
			set(node, &s)
		}
		return s
	}
	p.elect(of("a", 0), of("b", 100))
	c.awaitDiary("a promoted")
	lab.Eventually(t, takeover, "a to have its address", func() bool { return p.a.HasAddr(shared4) })
	return p, c
}

func TestAResourceMovesBetweenTheAddressesOfOldAndNewMaster(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(p *pair){
		"handover": func(p *pair) { p.a.post("/v1/handover", map[string]string{}, nil) },
		"stop":     func(p *pair) { p.a.stop() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, c := shareThing(t, nil)
			if h := p.a.thing(); h.Role != "promoted" || h.Wished != "promoted" || h.Epoch != p.a.instance().Epoch || h.Phase != "resource" {
				t.Errorf("a says %+v", h)
			}
			mark := time.Now()
			c.set("hold-demote-a", "")
			done := make(chan struct{})
			go func() { leave(p); close(done) }()
			c.awaitDiary("a demote")
			// The address is off, b is told nothing yet, and adverts go on.
			p.a.addrs.await(t, mark, shared4, false, takeover)
			lab.Eventually(t, takeover, "adverts to go on", func() bool { return len(adverts(p.wire, "a", 9, mark)) >= 2 })
			if b := p.b.instance(); b.State != "BACKUP" || b.Hooks[0].Role != "demoted" {
				t.Errorf("b is %s, and its resource %s, while a lets go", b.State, b.Hooks[0].Role)
			}
			c.remove("hold-demote-a")
			<-done
			p.b.await("MASTER")
			c.awaitDiary("b promoted")
			p.b.addrs.await(t, mark, shared4, true, takeover)
			neverBoth(t, p.a.addrs, p.b.addrs, shared4)
			if got := strings.Join(c.diary(), ", "); got != "a promote operator, a promoted, a demote, a demoted, b promote bow-out, b promoted" {
				t.Errorf("it went %s", got)
			}
			c.onePrimary()
		})
	}
}

func TestTheGiverTakesBackWhatTheTakerCannotPromote(t *testing.T) {
	t.Parallel()
	p, c := shareThing(t, nil)
	c.set("fail-promote-b", "")
	seq := p.b.seq()
	p.a.post("/v1/handover", map[string]string{}, nil)
	p.b.awaitEvent(seq, "transition", "failed")
	p.a.await("MASTER")
	c.awaitDiary("a promoted")
	if h := p.b.thing(); h.Role != "demoted" || p.b.alarm("not-served") == "" {
		t.Errorf("b says %+v, and has no alarm", h)
	}
	if p.b.HasAddr(shared4) {
		t.Error("b has the address without the resource")
	}
	c.onePrimary()
}

func TestAGiverThatDiesWhileItLetsGoIsReplacedAfterTheMasterDownTime(t *testing.T) {
	t.Parallel()
	p, c := shareThing(t, nil)
	c.set("hold-demote-a", "")
	go p.a.try("POST", "/v1/handover", map[string]string{}, nil)
	c.awaitDiary("a demote")
	p.a.KillAll()
	p.b.await("MASTER")
	c.awaitDiary("b promoted")
	c.remove("hold-demote-a")
}

func TestWhatAKilledRunLeftIsLetGoBeforeTheElection(t *testing.T) {
	t.Parallel()
	for name, killed := range map[string]func(t *testing.T, p *pair, c *commons){
		"promoted": func(*testing.T, *pair, *commons) {},
		"half way": func(t *testing.T, p *pair, c *commons) {
			p.a.post("/v1/handover", map[string]string{}, nil)
			p.b.await("MASTER")
			c.awaitDiary("b promoted")
			c.set("hold-promote-a", "")
			p.b.post("/v1/handover", map[string]string{}, nil)
			c.awaitDiary("a promote bow-out")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, c := shareThing(t, nil)
			killed(t, p, c)
			p.a.KillAll()
			c.set("fail-demote-a", "")
			p.a.start(settings{more: c.entry("a")})
			lab.Eventually(t, takeover, "the alarm", func() bool { return p.a.alarm("unsettled") != "" })
			if s := p.a.instance().State; s != "INIT" {
				t.Errorf("a is %s with a resource that it cannot let go", s)
			}
			c.remove("fail-demote-a")
			lab.Eventually(t, 2*takeover, "a to stand for election", func() bool { return p.a.instance().State != "INIT" })
			if h := p.a.thing(); h.Role != "demoted" && p.a.instance().State != "MASTER" {
				t.Errorf("a says %+v", h)
			}
		})
	}
}

// What one instance does not know of its resource is no reason for the others to stay away.
func TestADamagedJournalKeepsItsInstanceOutAndNoOther(t *testing.T) {
	t.Parallel()
	p, c := shareThing(t, nil)
	p.a.KillAll()
	journal := filepath.Join(p.a.dir, "state", "journal-9@eth0")
	text, err := os.ReadFile(journal)
	if err != nil {
		t.Fatal(err)
	}
	text[0] ^= 1
	if err := os.WriteFile(journal, text, 0o600); err != nil {
		t.Fatal(err)
	}
	p.b.await("MASTER")
	c.awaitDiary("b promoted")
	const second = "vhid: 10\ninterface: eth0\npassphrase: other\naddresses: [192.0.2.60/24]"
	p.a.start(settings{more: c.entry("a"), others: []string{second}})
	p.a.awaitNamed("10@eth0", "MASTER")
	lab.Eventually(t, takeover, "the alarm", func() bool { return p.a.alarm("unsettled") != "" })
	if alarm := p.a.alarm("unsettled"); !strings.Contains(alarm, journal) || !strings.Contains(alarm, "move the file away") {
		t.Errorf("the alarm names neither the file nor what to do: %s", alarm)
	}
	if i := p.a.named("9@eth0"); i.State != "INIT" || p.a.thing().Role != "promoted" {
		t.Errorf("it is %s, and its resource, which nobody has looked after, %s", i.State, p.a.thing().Role)
	}
	if err := os.Rename(journal, journal+".damaged"); err != nil {
		t.Fatal(err)
	}
	p.a.awaitNamed("9@eth0", "BACKUP")
	if alarm, role := p.a.alarm("unsettled"), p.a.thing().Role; alarm != "" || role != "demoted" {
		t.Errorf("the alarm is %q, the resource %s", alarm, role)
	}
}

func TestAResourceInAnotherRoleThanItsNodeIsAnAlarm(t *testing.T) {
	t.Parallel()
	p, c := shareThing(t, func(node string, s *settings) {
		s.more = append(s.more[:4], append([]string{"    grace: 300ms"}, s.more[4:]...)...)
	})
	c.set("state-a", "demoted")
	lab.Eventually(t, takeover, "the alarm on the master", func() bool { return strings.Contains(p.a.alarm("role-mismatch-thing"), "demoted") })
	c.set("state-a", "promoted")
	lab.Eventually(t, takeover, "the alarm to end", func() bool { return p.a.alarm("role-mismatch-thing") == "" })
	c.set("state-b", "promoted")
	lab.Eventually(t, takeover, "the alarm on the backup", func() bool { return strings.Contains(p.b.alarm("role-mismatch-thing"), "promoted") })
}

func TestABetterMemberOfASealedGroupWaitsForTheResource(t *testing.T) {
	t.Parallel()
	c := newCommons(t)
	g := newSealedGroup(t, member{preempt: true, more: c.entry("a")}, member{advskew: 100, more: c.entry("b")})
	g.start(1)
	g.nodes[1].promote()
	c.awaitDiary("b promoted")
	c.set("hold-demote-b", "")
	g.start(0)
	c.awaitDiary("b demote")
	if s := g.nodes[0].instance().State; s != "BACKUP" {
		t.Errorf("a is %s while b lets go", s)
	}
	lab.Eventually(t, takeover, "a to know what b holds", func() bool {
		m, known := g.said(0, 1)
		return known && m.Held == 1
	})
	c.remove("hold-demote-b")
	c.awaitDiary("a promoted")
	g.nodes[0].await("MASTER")
	c.onePrimary()
}

func TestInstancesOfAGroupMoveTogether(t *testing.T) {
	t.Parallel()
	c := newCommons(t)
	front, back := lab.New(t, lab.Switched(1)), lab.New(t, lab.Switched(2))
	var nodes []*node
	for i, name := range []string{"a", "b"} {
		n := newNode(t, front, name, fmt.Sprintf("192.0.2.%d/24", i+1))
		back.Join(n.Host, "eth1", fmt.Sprintf("198.51.100.%d/24", i+1))
		n.file("pass", "a secret\n", 0o600)
		var entry strings.Builder
		for _, line := range c.entry(name) {
			fmt.Fprintf(&entry, "    %s\n", line)
		}
		var instances strings.Builder
		for vhid, addr := range []string{"192.0.2.50/24", "198.51.100.50/24"} {
			fmt.Fprintf(&instances, "  - {vhid: %d, interface: eth%d, passphrase_file: pass, advskew: %d, addresses: [%s], groups: [site]}\n", vhid+1, vhid, 100*i, addr)
		}
		n.write("groups:\n  site:\n    together: true\n" + entry.String() + "instances:\n" + instances.String())
		n.startWith(n.command("run", "--config", n.config()))
		if i == 0 {
			n.awaitNamed("1@eth0", "MASTER")
			n.awaitNamed("2@eth1", "MASTER")
			c.awaitDiary("a promoted")
		}
		nodes = append(nodes, n)
	}
	a, b := nodes[0], nodes[1]
	b.awaitNamed("1@eth0", "BACKUP")
	b.awaitNamed("2@eth1", "BACKUP")
	if g := a.status().Groups; len(g) != 1 || g[0].State != "up" || len(g[0].Members) != 2 || g[0].Hooks[0].Role != "promoted" {
		t.Errorf("a says %+v", g)
	}
	lab.Eventually(t, takeover, "both addresses", func() bool { return a.HasAddr(shared4) && a.HasAddr(back4) })
	mark := time.Now()
	a.Run("ip", "link", "set", "eth1", "down")
	b.awaitNamed("1@eth0", "MASTER")
	b.awaitNamed("2@eth1", "MASTER")
	c.awaitDiary("b promoted")
	b.addrs.await(t, mark, shared4, true, takeover)
	b.addrs.await(t, mark, back4, true, takeover)
	a.addrs.await(t, mark, shared4, false, takeover)
	if got := strings.Join(c.diary(), ", "); got != "a promote master-timed-out, a promoted, a demote, a demoted, b promote "+b.named("2@eth1").Reason+", b promoted" &&
		got != "a promote master-timed-out, a promoted, a demote, a demoted, b promote "+b.named("1@eth0").Reason+", b promoted" {
		t.Errorf("it went %s", got)
	}
	neverBoth(t, a.addrs, b.addrs, shared4)
	c.onePrimary()
}
