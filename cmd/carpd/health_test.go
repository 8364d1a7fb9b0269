package main_test

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/carpd/carpd/cmd/daemon/api"
	"github.com/carpd/carpd/test/lab"
)

// sick makes a node unfit, and well fit again: a file that a monitor of the node wants to
// be absent.
func (n *node) sick() { n.t.Helper(); n.file("sick", "", 0o600) }

func (n *node) well() {
	n.t.Helper()
	if err := os.Remove(filepath.Join(n.dir, "sick")); err != nil {
		n.t.Fatal(err)
	}
}

// flag is the monitor, as lines of an instance.
func (n *node) flag(more string) []string {
	return []string{"hooks:", fmt.Sprintf("  - {kind: file, on: monitor, name: flag, interval: 50ms, %swith: {path: %s/sick, want: absent}}", more, n.dir)}
}

// awaitHealth waits until the node says that its instance is so.
func (n *node) awaitHealth(want string) {
	n.t.Helper()
	lab.Eventually(n.t, takeover, n.Name+" to be "+want, func() bool { return n.instance().Health == want })
}

// healthGroup is a sealed group whose members have a flag; the first is master.
func healthGroup(t *testing.T, members ...member) *sealedGroup {
	t.Helper()
	g := newSealedGroup(t, members...)
	var others []int
	for i, n := range g.nodes {
		g.members[i].more = append(g.members[i].more, n.flag("")...)
		if i > 0 {
			others = append(others, i)
		}
	}
	g.begin(0, others...)
	return g
}

func TestUnfitMasterLetsGoForAFitMember(t *testing.T) {
	for name, members := range map[string][]member{
		"two nodes":   {{}, {advskew: 100}},
		"three nodes": {{}, {advskew: 100}, {advskew: 200}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := healthGroup(t, members...)
			a, b := g.nodes[0], g.nodes[1]
			seq, mark := a.seq(), time.Now()
			a.sick()
			b.await("MASTER")
			g.answered()
			if got := steps(a, seq); !slices.Equal(got, []string{"MASTER RELEASING unfit", "RELEASING BACKUP released"}) {
				t.Errorf("a went %q", got)
			}
			if got := steps(b, 0); !slices.Equal(got, []string{"INIT BACKUP link-up", "BACKUP MASTER bow-out"}) {
				t.Errorf("b went %q", got)
			}
			if i := a.instance(); i.Health != "unfit" || !strings.Contains(a.alarm("health-flag"), "sick is there") {
				t.Errorf("a is %q: %q", i.Health, a.alarm("health-flag"))
			}
			lab.Eventually(t, takeover, "b to hear that a is unfit", func() bool { m, _ := g.said(1, 0); return m.Fitness == "unfit" })
			a.well()
			a.awaitHealth("ok")
			lab.Eventually(t, takeover, "a not to be demoted", func() bool { return a.instance().Demotion == 0 && a.alarm("health-flag") == "" })
			b.instance()
			g.oneHolder()
			out, _ := g.asking.Longest(mark)
			t.Logf("longest pause between answers %v", out.Round(time.Millisecond/10))
			if out > atOnce {
				t.Errorf("nobody answered for %v", out)
			}
		})
	}
}

// Whose demotion happens to be the least must not decide among the unfit.
func TestWhereNoNodeIsFitTheMasterStaysAndSaysSo(t *testing.T) {
	t.Parallel()
	g := healthGroup(t, member{preempt: true, advskew: 50}, member{preempt: true, advskew: 100}, member{preempt: true, advskew: 200})
	a, b, c := g.nodes[0], g.nodes[1], g.nodes[2]
	for _, n := range []*node{b, c} {
		n.sick()
		n.awaitHealth("unfit")
	}
	for of := 1; of <= 2; of++ {
		lab.Eventually(t, takeover, "a to hear that", func() bool { m, _ := g.said(0, of); return m.Fitness == "unfit" })
	}
	seq := a.seq()
	a.sick()
	lab.Eventually(t, 2*takeover, "the alarm", func() bool { return strings.Contains(a.alarm("no-fit-node"), "No other node is fit") })
	if got := steps(a, seq); len(got) != 0 {
		t.Errorf("a went %q", got)
	}
	c.well() // the least of the three
	c.await("MASTER")
	if got := steps(a, seq); !slices.Equal(got, []string{"MASTER RELEASING unfit", "RELEASING BACKUP released"}) {
		t.Errorf("a went %q", got)
	}
	lab.Eventually(t, takeover, "the alarm to end", func() bool { return a.alarm("no-fit-node") == "" })
	g.oneHolder()
}

// Nodes that tell each other nothing: the demotion moves the role if the other preempts.
func TestUnfitMasterIsDemotedWhereNodesTellEachOtherNothing(t *testing.T) {
	for preempt, moves := range map[string]bool{"preempt: true": true, "preempt: false": false} {
		t.Run(preempt, func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			p.elect(settings{more: p.a.flag("")}, settings{advskew: 100, more: append(p.b.flag(""), preempt)})
			seq := p.a.seq()
			p.a.sick()
			p.a.awaitHealth("unfit")
			if moves {
				p.b.await("MASTER")
				if got := steps(p.a, seq); !slices.Equal(got, []string{"MASTER BACKUP better-master"}) {
					t.Errorf("a went %q", got)
				}
				return
			}
			lab.Eventually(t, 2*takeover, "the alarm", func() bool { return strings.Contains(p.a.alarm("no-fit-node"), "replay: sealed") })
			if got := steps(p.a, seq); len(got) != 0 {
				t.Errorf("a went %q", got)
			}
		})
	}
}

func TestServiceThatFlapsMovesNothingUntilItHoldsOut(t *testing.T) {
	t.Parallel()
	g := newSealedGroup(t, member{}, member{advskew: 100})
	for i, n := range g.nodes {
		g.members[i].more = n.flag("rise: 4, fall: 4, ")
	}
	g.begin(0, 1)
	a, b := g.nodes[0], g.nodes[1]
	seq := a.seq()
	looks := func() time.Time { return *a.instance().Hooks[0].Seen }
	for range 15 { // each state for two or three looks
		for _, change := range []func(){a.sick, a.well} {
			change()
			for range 2 {
				last := looks()
				lab.Eventually(t, soon, "a look", func() bool { return looks().After(last) })
			}
		}
	}
	if got := steps(a, seq); len(got) != 0 || a.alarm("health-flag") != "" {
		t.Errorf("flapping: a went %q, %q", got, a.alarm("health-flag"))
	}
	a.sick()
	b.await("MASTER")
	seq = b.seq()
	a.well()
	a.awaitHealth("ok")
	b.sick()
	a.await("MASTER")
	if got := steps(b, seq); !slices.Equal(got, []string{"MASTER RELEASING unfit", "RELEASING BACKUP released"}) {
		t.Errorf("b went %q", got)
	}
	g.oneHolder()
}

func TestProcessThatEndsMovesTheRoleAtOnce(t *testing.T) {
	t.Parallel()
	g := newSealedGroup(t, member{}, member{advskew: 100})
	service := exec.Command("sleep", "600")
	proc := g.nodes[0].Start(service)
	for i, n := range g.nodes {
		pid := os.Getpid()
		if i == 0 {
			pid = service.Process.Pid
		}
		path := n.file("pid", fmt.Sprintln(pid), 0o600)
		g.members[i].more = []string{"hooks:", "  - {kind: process, on: monitor, name: service, interval: 1h, with: {pidfile: " + path + "}}"}
	}
	g.begin(0, 1)
	if h := g.nodes[0].instance().Hooks[0]; h.Health != "ok" {
		t.Fatalf("%+v", h)
	}
	follows := time.Now()
	lab.Eventually(t, takeover, "a to hear again from b, which follows it", func() bool {
		m, _ := g.said(0, 1)
		return time.Duration(m.LastHeardMS+50)*time.Millisecond < time.Since(follows)
	})
	mark := time.Now()
	if err := service.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	lab.Eventually(t, soon, "b to be master", func() bool { return g.nodes[1].instance().State == "MASTER" })
	t.Logf("b is master %v after the kill", time.Since(mark).Round(time.Millisecond))
	g.answered()
	_ = proc.Wait(soon)
	g.oneHolder()
}

func TestDegradedNodeIsDemotedByWhatItsFileSays(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	number := p.a.file("number", "0", 0o600)
	of := []string{"preempt: true", "hooks:", "  - {kind: file, on: monitor, name: load, interval: 50ms, with: {path: " + number + ", want: number, weight: -10}}"}
	p.elect(settings{more: of}, settings{advskew: 50, more: []string{"preempt: true"}})
	p.a.file("number", "4", 0o600) // 40: still better
	lab.Eventually(t, takeover, "the demotion", func() bool { return p.a.instance().EffectiveAdvSkew == 40 })
	p.a.file("number", "6", 0o600)
	p.b.await("MASTER")
	if i := p.a.instance(); i.Health != "degraded" || i.Demotion != 60 || len(i.Demotions) != 1 || i.Demotions[0].Owner != "health load" {
		t.Errorf("%q, %+v", i.Health, i.Demotions)
	}
	p.a.file("number", "0", 0o600)
	p.a.await("MASTER")
	if p.a.alarm("health-load") != "" || p.a.alarm("no-fit-node") != "" {
		t.Errorf("%+v", p.a.instance().Alarms)
	}
}

// A node that has not looked yet does not know whether it could serve.
func TestNodeStaysInInitUntilEachMonitorHasBeenLookedAt(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	hold := p.a.file("hold", "", 0o600)
	script := p.a.file("monitor.sh", fmt.Sprintf("#!/bin/sh\nwhile [ -e %s ]; do sleep 0.02; done\nexit 2\n", hold), 0o755)
	more := append(p.a.flag(""), "  - {kind: script, on: monitor, name: slow, with: {command: ["+script+"]}}")
	p.a.start(settings{more: more})
	p.a.awaitHealth("ok") // of what is known
	p.b.start(settings{advskew: 100})
	p.b.await("MASTER")
	if i := p.a.instance(); i.State != "INIT" {
		t.Fatalf("a is %s", i.State)
	}
	if out, _ := p.a.ctl("explain", "9@eth0"); !strings.Contains(out, "when each of its monitors has been looked at once") {
		t.Errorf("explain says %s", out)
	}
	if err := os.Remove(hold); err != nil {
		t.Fatal(err)
	}
	p.a.await("BACKUP")
	if i := p.a.instance(); i.Health != "unfit" || i.EffectiveAdvSkew != 240 {
		t.Errorf("a is %q, advskew %d", i.Health, i.EffectiveAdvSkew)
	}
}

// What a reload removes is not waited for, whether or not something else is looked at.
func TestReloadEndsTheWaitForAMonitorThatIsNotThereAnyMore(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	hold := p.a.file("hold", "", 0o600)
	script := p.a.file("monitor.sh", fmt.Sprintf("#!/bin/sh\nwhile [ -e %s ]; do sleep 0.02; done\n", hold), 0o755)
	p.a.start(settings{more: []string{"hooks:", "  - {kind: script, on: monitor, name: slow, look_timeout: 1m, with: {command: [" + script + "]}}"}})
	lab.Eventually(t, soon, "the interface", func() bool {
		out, _ := p.a.ctl("explain", "9@eth0")
		return strings.Contains(out, "when each of its monitors has been looked at once")
	})
	p.a.reload(settings{})
	p.a.await("BACKUP")
}

func TestReloadForgetsWhatIsNotWatchedAnyMore(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.a.sick()
	p.a.start(settings{})
	p.a.await("BACKUP")
	p.a.reload(settings{more: p.a.flag("")}) // the first thing to look at
	if out, _ := p.a.ctl("explain", "9@eth0"); strings.Contains(out, "stands for election when") {
		t.Errorf("explain says %s", out)
	}
	p.a.awaitHealth("unfit")
	p.a.await("MASTER") // nobody else is there
	p.a.reload(settings{more: p.a.flag("if_it_fails: alarm, ")})
	p.a.awaitHealth("ok")
	if i := p.a.instance(); i.Demotion != 0 || p.a.alarm("health-flag") == "" {
		t.Errorf("%+v, %+v", i.Demotions, i.Alarms)
	}
	p.a.reload(settings{more: p.a.flag("if_it_fails: demote, weight: 33, ")})
	p.a.awaitHealth("degraded")
	lab.Eventually(t, soon, "the demotion", func() bool { return p.a.instance().Demotion == 33 })
	p.a.reload(settings{})
	if i := p.a.instance(); i.Demotion != 0 || i.Health != "" || p.a.alarm("health-flag") != "" {
		t.Errorf("%q, %+v, %+v", i.Health, i.Demotions, i.Alarms)
	}
}

// What one member cannot do without, none can.
func TestGroupMovesWhenItsMonitorIsUnfit(t *testing.T) {
	t.Parallel()
	lan := lab.New(t)
	const instance = "  - {vhid: %d, interface: eth0, passphrase_file: pass, replay: sealed, advskew: %d, addresses: [192.0.2.5%d/24], groups: [site]}\n"
	var nodes []*node
	for i, name := range []string{"a", "b"} {
		n := newNode(t, lan, name, fmt.Sprintf("192.0.2.%d/24", i+1))
		n.file("pass", "a secret\n", 0o600)
		text := &strings.Builder{}
		fmt.Fprintf(text, "node_id: %d\ngroups:\n  site:\n    together: true\n", i+1)
		for _, line := range n.flag("") {
			fmt.Fprintf(text, "    %s\n", line)
		}
		text.WriteString("instances:\n")
		for _, vhid := range []int{1, 2} {
			fmt.Fprintf(text, instance, vhid, 100*i, vhid)
		}
		n.write(text.String())
		n.startWith(n.command("run", "--config", n.config()))
		for _, instance := range []string{"1@eth0", "2@eth0"} {
			n.awaitNamed(instance, []string{"MASTER", "BACKUP"}[i])
		}
		nodes = append(nodes, n)
	}
	a, b := nodes[0], nodes[1]
	for _, instance := range []string{"1@eth0", "2@eth0"} {
		lab.Eventually(t, takeover, "a to know b", func() bool { return len(a.named(instance).Members) == 1 })
	}
	a.sick()
	for _, instance := range []string{"1@eth0", "2@eth0"} {
		b.awaitNamed(instance, "MASTER")
		if i := a.named(instance); i.Health != "unfit" || !slices.ContainsFunc(i.Alarms, func(x api.Alarm) bool { return x.Name == "health-site/flag" }) {
			t.Errorf("%s on a: %q, %+v", instance, i.Health, i.Alarms)
		}
	}
	neverBoth(t, a.addrs, b.addrs, netip.MustParseAddr("192.0.2.51"))
}
