package daemon

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/cmd/daemon/api"
	"github.com/carpd/carpd/hooks"
)

// sayer takes one sentence.
type sayer func(format string, a ...any)

// explain says who is master and why, one sentence a line.
func (i *instance) explain() api.Explanation {
	st, now := i.speaker.Status()
	p := i.plan.Load()
	var lines []string
	say := func(format string, a ...any) { lines = append(lines, fmt.Sprintf(format, a...)) }
	if waits := i.waitsFor(); waits != "" {
		say("%s is in INIT: it stands for election when %s.", i.name, waits)
	} else if st.Since == 0 {
		say("%s is in INIT: its interface %s has not been up yet, or does not exist.", i.name, p.Interface)
	} else {
		say("%s is %v since %s (%v): %s.", i.name, st.State, wall(st.Since, now).Format("2006-01-02 15:04:05.000"),
			now.Sub(st.Since).Round(time.Millisecond), st.Reason.Text())
	}
	if !st.LinkUp {
		then := "BACKUP"
		if st.EffectivePriority == carp.OwnerPriority {
			then = "MASTER"
		}
		say("The interface %s is down or missing; with it up the node would be %s at once.", p.Interface, then)
	}
	explainWeight(say, p, st)
	for _, owner := range slices.Sorted(maps.Keys(st.Demotions)) {
		say("It is demoted by %d: %s.", st.Demotions[owner], owner)
	}
	if grade, why, _ := i.health(); len(why) > 0 {
		say("For what is watched here it is %v: %s.", grade, strings.Join(why, "; "))
	}
	i.explainGates(say, st)
	explainOthers(say, p, st, now)
	explainPaths(say, p, st, now)
	_, probed := i.side.status()
	explainTrack(say, p, probed)
	if st.HeldUntil != 0 {
		say("After a takeover that failed it does not try again for %v.", st.HeldUntil.Sub(now).Round(time.Second))
	}
	explainSeal(say, p, st, now)
	explainMembers(say, st)
	for _, drop := range carp.Drops() {
		if n := st.Drops[drop]; n > 0 {
			last := st.Refused[drop]
			if last.At == 0 {
				say("%d packets were refused: %s.", n, drop)
				continue
			}
			say("%d packets were refused: %s. The last came from %v, %v ago.", n, drop, last.Address, now.Sub(last.At).Round(time.Millisecond))
		}
	}
	say("Lease: %s", p.lease.Note+".")
	say("Fence: %s", p.fenceText())
	for _, a := range i.d.book.standing(i.name) {
		say("Alarm %s: %s", a.Name, a.Text)
	}
	return api.Explanation{Name: i.name, State: st.State.String(), Lines: lines}
}

// explainGates says what the addresses of a master wait for, and what is let go of.
func (i *instance) explainGates(say sayer, st carp.Status) {
	runners := []*hooks.Runner{i.runner.Load()}
	if i.group != nil {
		runners = append(runners, i.group.runner)
		if g := i.group.status(); st.State == carp.Master && g.Missing != "" {
			say("Its addresses wait for the others of group %s: %s.", g.Name, g.Missing)
		}
	}
	for _, r := range runners {
		for _, h := range r.Status() {
			if h.State != hooks.Running {
				continue
			}
			what := "is running"
			switch {
			case h.Place == hooks.PlaceResource && h.Wished == hooks.RolePromoted:
				what = "is being promoted; the addresses come after it"
			case h.Place == hooks.PlaceResource:
				what = "is being demoted"
			case h.Place == hooks.BeforeUp.String():
				what = "is running; the addresses come after it"
			}
			if h.Current != "" {
				what += ", at " + h.Current
			}
			say("Hook %s (%s, %s) %s.", h.Name, h.Kind, h.Place, what)
		}
	}
}

// explainWeight says what this node stands for election with.
func explainWeight(say sayer, p *plan, st carp.Status) {
	if !p.VRRP() {
		say("This node weighs %v: advbase %d, advskew %d, with its demotion of %d an advskew of %d. Less is better.",
			carp.Interval(st.AdvBase, st.EffectiveAdvSkew), st.AdvBase, st.AdvSkew, st.Demotion, st.EffectiveAdvSkew)
		return
	}
	say("This node has priority %d, with its demotion of %d a priority of %d, and an interval of %v. Greater is better; "+
		"of two equal ones the node with the higher address is.", st.Priority, st.Demotion, st.EffectivePriority, st.Interval)
	if st.EffectivePriority == carp.OwnerPriority {
		say("With 255 it counts as the owner of the addresses: it takes the role whoever is master.")
	}
}

// explainOthers says who else is there, and how the two compare.
func explainOthers(say sayer, p *plan, st carp.Status, now carp.Instant) {
	m := st.Master
	switch {
	case m.At == 0 && st.State == carp.Master:
		say("No other master has been heard lately.")
	case m.At == 0 && st.State == carp.Backup:
		say("No master is heard. This node takes the role in %v.", max(st.Deadline, st.HeldUntil).Sub(now).Round(time.Millisecond))
	case m.At != 0 && p.VRRP():
		explainPriority(say, p, st, now)
	case m.At != 0:
		own, theirs := carp.Interval(st.AdvBase, st.EffectiveAdvSkew), carp.Interval(m.AdvBase, m.AdvSkew)
		word := "worse than"
		if theirs < own {
			word = "better than"
		} else if theirs == own {
			word = "equal to"
		}
		say("The master %v was last heard %v ago. It weighs %v (advbase %d, advskew %d), which is %s this node.",
			m.Address, now.Sub(m.At).Round(time.Millisecond), theirs, m.AdvBase, m.AdvSkew, word)
		if st.State == carp.Backup && theirs > own && !p.Preempt {
			say("This node would be the better one, but preempt is off: it waits until the master is silent for %v.", st.MasterDown)
		}
	}
}

// explainPriority compares this node with another master of VRRP.
func explainPriority(say sayer, p *plan, st carp.Status, now carp.Instant) {
	m := st.Master
	word := "worse than"
	if m.Priority > st.EffectivePriority {
		word = "better than"
	} else if m.Priority == st.EffectivePriority {
		word = "equal to"
	}
	form := ""
	if p.Checksum != "" {
		form = ", checksum " + m.Sum.String()
	}
	say("The master %v was last heard %v ago. It has priority %d, which is %s this node, and an interval of %v%s.",
		m.Address, now.Sub(m.At).Round(time.Millisecond), m.Priority, word, m.Interval, form)
	backup := st.State == carp.Backup && m.Priority < st.EffectivePriority
	switch {
	case m.Refused != carp.Accepted && st.State == carp.Backup:
		say("It is alive but incompatible (%v): %s. This node does not take it for silent, and takes no role from it while it is heard.",
			m.Refused, differences(p, m.Refused, m).what)
	case m.Refused != carp.Accepted:
		say("It is alive but incompatible (%v): %s.", m.Refused, differences(p, m.Refused, m).what)
	case st.HeldUntil != 0: // a takeover failed, and explain says how long it waits
	case backup && (p.Preempt || st.EffectivePriority == carp.OwnerPriority):
		say("This node takes the role in %v, for its adverts do not put that off.", st.Deadline.Sub(now).Round(time.Millisecond))
	case backup:
		say("This node would be the better one, but preempt is off: it waits until the master is silent for %v.", st.MasterDown)
	}
}
