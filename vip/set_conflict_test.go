package vip_test

import (
	"bytes"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/vip"
	"github.com/carpd/carpd/vip/viptest"
)

var stranger = carp.MAC{2, 0, 0, 0, 0, 0x99}

// claims says for n seconds, once each, that the stranger has an address. This node
// advertises meanwhile.
func (w *world) claims(addr string, mac carp.MAC, n int) {
	for range n {
		w.k.Claim(viptest.LinkName, vip.Claim{Addr: netip.MustParseAddr(addr), MAC: mac, From: mac})
		w.master(1, 1)
	}
}

func (w *world) conflicts() []vip.Conflict {
	found, _ := w.set.Conflicts(1, 3*time.Second)
	return found
}

func TestSomebodyElseWhoAnswersIsAConflict(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.up(1)
		w.claims(vip9, stranger, 2)
		if got := w.conflicts(); len(got) != 0 {
			t.Errorf("after 2 s: %v, want none: another master may still be heard", got)
		}
		w.claims(vip96, stranger, 3)
		w.claims(vip9, stranger, 2)
		got := w.conflicts()
		if len(got) != 2 || got[0].Addr.String() != vip9 || got[1].Addr.String() != vip96 || got[0].MAC != stranger {
			t.Errorf("got %v, want both addresses at %v", got, stranger)
		}
		w.master(1, 31)
		if got := w.conflicts(); len(got) != 0 {
			t.Errorf("31 s after the last claim: %v, want none", got)
		}
	})
}

func TestWhatIsNoConflict(t *testing.T) {
	for _, tc := range []struct {
		name, addr string
		mac        carp.MAC
	}{
		{"own frames that a switch sends back", vip9, carp.MAC{2, 0, 0, 0, 0, 1}},
		{"another interface of this host", vip9, carp.MAC{2, 0, 0, 0, 0, 7}},
		{"the address of somebody else", "192.0.2.77", stranger},
	} {
		inWorld(t, nil, func(w *world) {
			w.k.AddLink("eth7")
			w.k.ChangeLink("eth7", func(l *vip.Link) { l.MAC = carp.MAC{2, 0, 0, 0, 0, 7} })
			w.up(1)
			w.claims(tc.addr, tc.mac, 6)
			if got := w.conflicts(); len(got) != 0 {
				t.Errorf("%s: %v, want none", tc.name, got)
			}
		})
	}
}

func TestWatchOfNeighboursLastsAsLongAsTheAddresses(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		heard := func() int { synctest.Wait(); return w.k.Claim(viptest.LinkName, vip.Claim{}) }
		if heard() != 0 {
			t.Error("somebody listens before Up")
		}
		w.up(1)
		if heard() != 1 {
			t.Error("nobody listens after Up")
		}
		w.k.DeleteLink(viptest.LinkName)
		w.k.AddLink(viptest.LinkName, viptest.Own()...)
		w.master(1, 2)
		if heard() != 1 {
			t.Error("nobody listens on the interface that was made anew")
		}
		if err := w.set.Down(t.Context()); err != nil {
			t.Fatal(err)
		}
		if heard() != 0 || len(w.conflicts()) != 0 {
			t.Error("somebody listens after Down")
		}
	})
}

func TestDefenceAnnouncesTheClaimedAddressAlone(t *testing.T) {
	inWorld(t, func(c *vip.Config) { c.Announce.Repeat = []time.Duration{} }, func(w *world) {
		w.up(1)
		w.claims(vip9, stranger, 5)
		w.k.Sent()
		var sent []viptest.Frame
		for range 25 { // seconds
			w.set.Defend(w.conflicts())
			w.claims(vip9, stranger, 1)
			sent = append(sent, w.k.Sent()...)
		}
		if len(sent) != 3 {
			t.Errorf("%d frames in 25 s, want one each 10 s", len(sent))
		}
		for _, f := range sent {
			if f.Data[12] != 8 || f.Data[13] != 6 || !bytes.Equal(f.Data[28:32], []byte{192, 0, 2, 9}) {
				t.Errorf("sent %x, want an ARP announcement of %s", f.Data, vip9)
			}
		}
		w.set.Permit(carp.Permit{})
		w.set.Defend([]vip.Conflict{{Addr: netip.MustParseAddr(vip9), Last: w.now()}})
		synctest.Wait()
		if n := len(w.k.Sent()); n != 0 {
			t.Errorf("%d frames after the permit was withdrawn, want none", n)
		}
	})
}
