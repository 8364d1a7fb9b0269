package daemon

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/carp/link"
	"github.com/carpd/carpd/cmd/daemon/api"
)

// wallOffset is what has to be added to a carp.Instant to get the time since
// groupEpoch by the wall clock.
func wallOffset() time.Duration { return time.Since(groupEpoch) - time.Duration(link.Now()) }

// clock reads the group clock of an instance that runs; it is 0 after its end.
func (i *instance) clock() uint64 {
	st, _ := i.speaker.Status()
	return st.Seal.Clock
}

// firstClock is where the group clock of an instance will begin.
func (i *instance) firstClock() uint64 {
	return max(uint64(max(time.Since(groupEpoch), 0)/time.Millisecond), i.plan.Load().carp.SavedClock)
}

// sealStatus shows what is known of clocks and recordings.
func (i *instance) sealStatus(p *plan, st carp.Status, now carp.Instant) *api.Seal {
	if p.VRRP() {
		return nil
	}
	s := st.Seal
	out := &api.Seal{
		Replay: s.Replay.String(), NodeID: p.carp.NodeID, Clock: clockTime(s.Clock), AheadMS: int64(s.Clock) - time.Since(groupEpoch).Milliseconds(),
		Nodes: []api.SealNode{}, Probes: s.Probes, Answers: s.Answers,
	}
	if s.Replay == carp.ReplaySealed {
		out.WindowMS = s.Window.Milliseconds()
	}
	if r := i.d.clocks.of(i.name); r != 0 {
		t := clockTime(r)
		out.Reserved = &t
	}
	for _, n := range s.Nodes {
		out.Nodes = append(out.Nodes, api.SealNode{
			NodeID: n.ID, Address: n.Address.String(), Clock: clockTime(n.Clock), LastHeardMS: now.Sub(n.At).Milliseconds(),
		})
	}
	for _, a := range s.Constant {
		out.Constant = append(out.Constant, a.String())
	}
	return out
}

// serveSealReset lets an instance begin anew with the wall clock, as if nothing had
// been saved.
func (d *Daemon) serveSealReset(_ context.Context, r api.NameRequest) (any, error) {
	i, err := d.find(r.Name)
	if err != nil {
		return nil, err
	}
	if p := i.plan.Load(); p.VRRP() {
		return nil, refusal{fmt.Sprintf("%s speaks %s, which has no clock", i.name, p.Protocol), ""}
	}
	d.clocks.forget(i.name)
	i.speaker.ResetSeal(wallOffset())
	d.keepClocks()
	text := i.name + ": clocks are forgotten; the next member that is heard sets the group clock, however far ahead it is"
	d.book.add(api.Event{Instance: i.name, Kind: "seal", Reason: "reset", Text: text})
	return api.Result{Text: text}, nil
}

// clockTime is a group clock as a time.
func clockTime(clock uint64) time.Time {
	return groupEpoch.Add(time.Duration(clock) * time.Millisecond)
}

// sealAlarms returns every alarm about recordings and clocks, those that do not
// stand included.
func sealAlarms(p *plan, st carp.Status, now carp.Instant) []condition {
	s := st.Seal
	hold := max(alarmHold, alarmIntervals*carp.Interval(p.AdvBase, p.AdvSkew))
	recent := func(at carp.Instant) bool { return at != 0 && now.Sub(at) < hold }
	var all conditions
	all.when(recent(s.TwinAt), "node-id-conflict",
		"%v sends with this node's id, %d: its adverts are heard, but the two cannot be told apart by it. Give each node an id of its own (`node_id`).",
		s.Twin, p.carp.NodeID)
	all.when(recent(s.Ahead.At), "clock-ahead",
		"the group clock of node %d at %v is ahead of this one's by %v: its adverts are refused, and the two ask each other instead. "+
			"Look at the wall clocks; if that node is right, `carpctl seal reset` here.", s.Ahead.NodeID, s.Ahead.Address, s.AheadBy.Round(time.Second))
	rewritten := st.Refused[carp.DropTiming]
	all.when(recent(rewritten.At), "rewritten",
		"adverts from %v have another advbase or advskew than they were sent with (%d so far): somebody plays them again, changed%s.",
		rewritten.Address, st.Drops[carp.DropTiming], inSealed(s.Replay, ", or a member that is not carpd is in this group"))
	unsealed := st.Refused[carp.DropUnsealed]
	all.when(recent(unsealed.At), "unsealed-peer",
		"adverts from %v are not sealed by a node with an id (%d so far) and are refused: two masters are likely. Give that node a `node_id`, or use `replay: window` on all if it is not carpd.",
		unsealed.Address, st.Drops[carp.DropUnsealed])
	var constant []string
	for _, a := range s.Constant {
		constant = append(constant, a.String())
	}
	all.when(len(constant) > 0, "constant-counter",
		"the counter of %s never changes, as OpenBSD's does not: what is played again from there cannot be told from new adverts.", strings.Join(constant, ", "))
	return append(all, memberAlarm(st))
}

func inSealed(r carp.Replay, text string) string {
	if r == carp.ReplaySealed {
		return text
	}
	return ""
}

// explainSeal says why somebody is refused, and what is asked.
func explainSeal(say sayer, p *plan, st carp.Status, now carp.Instant) {
	if p.VRRP() {
		return
	}
	s := st.Seal
	switch s.Replay {
	case carp.ReplaySealed:
		say("It accepts sealed adverts alone, none older than %v by the group clock, and none twice (replay: sealed).", s.Window)
	case carp.ReplayWindow:
		say("It refuses adverts that it has heard before (replay: window).")
	case carp.ReplayOff:
		say("It accepts recordings (replay: off).")
	}
	why := map[carp.Drop]string{
		carp.DropUnsealed: "its adverts carry no node id: it is not carpd, or has no node_id",
		carp.DropTiming:   "the advbase or advskew in its adverts are not those that they were sent with: somebody has rewritten them",
		carp.DropReplay:   "its adverts were accepted before, or are older than what was: recordings, or a node that has lost its clock",
		carp.DropOld:      "the clock in its adverts is too far behind: recordings, or a node whose clock is wrong",
		carp.DropAhead:    "the clock in its adverts is more than an hour ahead of the one here",
	}
	for _, d := range carp.Drops() {
		last, known := st.Refused[d], why[d]
		if known == "" || last.At == 0 || now.Sub(last.At) > alarmHold {
			continue
		}
		who := last.Address.String()
		if last.NodeID != 0 {
			who = fmt.Sprintf("%s (node id %d, if it is carpd)", who, last.NodeID)
		}
		say("%s was refused %v ago (%v): %s.", who, now.Sub(last.At).Round(time.Millisecond), d, known)
	}
	if s.Probes > 0 {
		say("It has asked %d times whether a node that it had refused lives, and answered %d times.", s.Probes, s.Answers)
	}
}
