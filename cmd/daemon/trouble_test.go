package daemon

import (
	"errors"
	"log/slog"
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
	i.addressEvent(vip.Event{Kind: vip.EventFailed, Text: "addresses could not be looked after", Err: errors.New("make on vrrp4-51: no (do this)")})
	if text := alarm(carp.Master); !strings.Contains(text, "without all of its addresses") || !strings.Contains(text, "no (do this)") {
		t.Errorf("got %q, want the cause and the hint", text)
	}
	if events, _ := i.d.book.since(0); !strings.Contains(events[0].Text, "looked after: make on vrrp4-51: no (do this)") {
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
