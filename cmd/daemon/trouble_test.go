package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/vip"
	"github.com/carpd/carpd/vip/viptest"
)

func TestAMasterThatCannotHoldItsAddressesIsAnAlarmWithTheCause(t *testing.T) {
	p := planned(t, oneRouter)
	i := &instance{d: &Daemon{book: newBook(slog.New(slog.DiscardHandler))}, name: p.Name, set: vip.New(viptest.NewFakeKernel(), p.addresses)}
	i.plan.Store(p)
	const now = carp.Instant(100 * time.Second)
	alarm := func(state carp.State) string {
		i.lookForLost(state, now)
		for _, a := range i.d.book.standing(i.name) {
			if a.Name == "address-lost" {
				return a.Text
			}
		}
		return ""
	}
	if text := alarm(carp.Master); text != "" {
		t.Errorf("before anything failed, such as while a gate runs: %s", text)
	}
	i.addressEvent(vip.Event{Kind: vip.EventFailed, Text: "the device could not be made", Err: errors.New("no")})
	if text := alarm(carp.Master); text != "" {
		t.Errorf("of what failed before the election: %s", text)
	}
	i.addressEvent(vip.Event{Kind: vip.EventFailed, Epoch: 1, Text: "addresses could not be looked after", Err: errors.New("make on vrrp4-51: no (do this)")})
	if text := alarm(carp.Master); !strings.Contains(text, "without all of its addresses") || !strings.Contains(text, "no (do this)") {
		t.Errorf("got %q, want the cause and the hint", text)
	}
	if events, _ := i.d.book.since(0); !strings.Contains(events[1].Text, "looked after: make on vrrp4-51: no (do this)") {
		t.Errorf("events %+v, want the cause", events)
	}
	if text := alarm(carp.Backup); text != "" {
		t.Errorf("of a backup, which has none: %s", text)
	}
	i.addressEvent(vip.Event{Kind: vip.EventRestored, Text: "back", At: now - carp.Instant(alarmHold)})
	if text := alarm(carp.Master); text != "" {
		t.Errorf("after all are back: %s", text)
	}
	i.addressEvent(vip.Event{Kind: vip.EventRestored, Text: "back", At: now})
	if text := alarm(carp.Master); !strings.Contains(text, "2 times") {
		t.Errorf("just put back: %q", text)
	}
}

func TestAnAlarmAboutASlowPeerDoesNotComeAndGoWithItsAdverts(t *testing.T) {
	const now = carp.Instant(100 * time.Second)
	for ago, want := range map[time.Duration]bool{89 * time.Second: true, 90 * time.Second: false} {
		st := carp.Status{Refused: map[carp.Drop]carp.Sighting{carp.DropInterval: heardAs(100, 30*time.Second, now.Add(-ago))}}
		stands := false
		for _, a := range packetAlarms(planned(t, oneRouter), st, now, false) {
			stands = stands || a.text != ""
		}
		if stands != want {
			t.Errorf("%v after an advert of a peer that sends one each 30 s: alarm %v", ago, stands)
		}
	}
}

func TestAnAddressThatMovesIsLetGoBeforeItIsTaken(t *testing.T) {
	const file = "instances:\n  - {protocol: vrrp3, vrid: 1, interface: eth0, addresses: [192.0.2.1/24%s]}\n" +
		"  - {protocol: vrrp3, vrid: 2, interface: eth0, addresses: [192.0.2.2/24%s]}\n  - {protocol: vrrp3, vrid: 3, interface: eth1, addresses: [192.0.2.3/24%s]}\n"
	plans := func(more ...any) []plan {
		_, all, err := load(write(t, fmt.Sprintf(file, more...)))
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	const x, y = ", 192.0.2.8/24", ", 192.0.2.9/24"
	for name, c := range map[string]struct {
		was, is []plan
		want    string
	}{
		"up":              {plans("", x, ""), plans(x, "", ""), "map[2@eth0:[192.0.2.2/24]]"},
		"down":            {plans(x, "", ""), plans("", x, ""), "map[1@eth0:[192.0.2.1/24]]"},
		"elsewhere":       {plans("", "", x), plans(x, "", ""), "map[3@eth1:[192.0.2.3/24]]"},
		"exchanged":       {plans(x, y, ""), plans(y, x, ""), "map[1@eth0:[192.0.2.1/24] 2@eth0:[192.0.2.2/24]]"},
		"one after other": {plans(x, y, ""), plans("", x, y), "map[1@eth0:[192.0.2.1/24] 2@eth0:[192.0.2.2/24]]"},
		"one of two":      {plans(x+y, "", ""), plans(x, y, ""), "map[1@eth0:[192.0.2.1/24 192.0.2.8/24]]"},
		"new":             {plans("", "", ""), plans("", x, ""), "map[]"},
		"given up":        {plans("", x, ""), plans("", "", ""), "map[]"},
	} {
		r := reloading{keep: map[*instance]plan{}}
		for n := range c.was {
			i := &instance{name: c.was[n].Name}
			i.plan.Store(&c.was[n])
			r.keep[i] = c.is[n]
		}
		got := map[string][]netip.Prefix{}
		for i, rest := range r.moving() {
			got[i.name] = rest
		}
		if fmt.Sprint(got) != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestExplainDoesNotPromiseATakeoverWhileOneThatFailedHoldsItBack(t *testing.T) {
	const now = carp.Instant(100e9)
	p := planned(t, oneRouter)
	p.Preempt = true
	st := carp.Status{State: carp.Backup, Protocol: carp.VRRP3, EffectivePriority: 150, Deadline: now + 2e8, HeldUntil: now + 7e9}
	if got := told(func(say sayer) { explainOthers(say, p, st, now) }); !strings.Contains(got, "takes the role in 7s") {
		t.Errorf("nobody heard: %s", got)
	}
	st.Master = heardAs(100, time.Second, now-1e9)
	if got := told(func(say sayer) { explainOthers(say, p, st, now) }); strings.Contains(got, "takes the role") || strings.Contains(got, "preempt is off") {
		t.Errorf("a worse master: %s", got)
	}
}
