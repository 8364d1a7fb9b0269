package carp

import (
	"net/netip"
	"testing"
	"time"
)

// parted is a master that has heard a better one, has let go, and has said farewell.
func parted(t *testing.T, vrrp bool) (r *rig, better, worse func()) {
	t.Helper()
	if r = newRig(t); vrrp {
		r = newVRRP(t)
	}
	say := func(priority, skew uint8) func() {
		return func() {
			if vrrp {
				r.hearRouter(peerHigh, priority)
			} else {
				r.hear(peerHigh, 1, skew)
			}
		}
	}
	better, worse = say(200, 0), say(50, 200)
	r.master()
	better()
	r.take()
	r.run(5 * time.Millisecond)
	r.do(r.e.Released(r.now, nil))
	r.want(map[bool]string{false: "send 1/100", true: "send 100"}[vrrp])
	return r, better, worse
}

func TestAFarewellThatWasNotHeardIsSaidAgainAtTheWinnersNextAdverts(t *testing.T) {
	for name, vrrp := range map[string]bool{"CARP": false, "VRRP": true} {
		t.Run(name, func(t *testing.T) {
			r, better, _ := parted(t, vrrp)
			again := map[bool]string{false: "send 1/100", true: "send 100"}[vrrp]
			r.run(995 * time.Millisecond)
			r.want("") // nobody says it before the winner was heard: it may be gone
			better()
			r.want(again)
			r.run(time.Second)
			better()
			r.want(again)
			for range 3 {
				r.run(time.Second)
				better()
			}
			r.want("") // thrice is all
			r.state(Backup)
		})
	}
}

func TestAFarewellThatWasHeardIsNotSaidAgain(t *testing.T) {
	for name, vrrp := range map[string]bool{"CARP": false, "VRRP": true} {
		for _, answered := range []time.Duration{time.Millisecond, 250 * time.Millisecond} {
			t.Run(name, func(t *testing.T) {
				r, better, _ := parted(t, vrrp)
				r.run(answered)
				better() // out of turn
				for range 3 {
					r.run(time.Second)
					better()
				}
				r.want("")
			})
		}
	}
}

// A farewell that is said to a weaker master would depose it, and nobody would be left.
func TestAFarewellIsNotSaidAgainToAMasterThatWouldYieldToIt(t *testing.T) {
	for name, vrrp := range map[string]bool{"CARP": false, "VRRP": true} {
		t.Run(name, func(t *testing.T) {
			r, better, worse := parted(t, vrrp)
			r.run(995 * time.Millisecond)
			worse()
			r.run(time.Second)
			better()
			r.want("")
		})
	}
}

func TestAFarewellIsForTheWinnerAlone(t *testing.T) {
	r, _, _ := parted(t, false)
	r.run(995 * time.Millisecond)
	r.hear(peerLow, 1, 10)
	r.want("")
}

// The one who lost a tie for sure says it again; the winner wins once more.
func TestTheLoserOfATieSaysFarewellAgain(t *testing.T) {
	r := newRig(t).master()
	r.hear(peerLow, 1, 100)
	r.state(Backup)
	r.do(r.e.Released(r.now, nil))
	r.take()
	r.run(time.Second)
	r.hear(peerLow, 1, 100)
	r.want("send 1/100")
}

// Of two families the winner is heard twice a round.
func TestAFarewellIsSaidOnceARound(t *testing.T) {
	r := newRig(t, dual).master()
	round := func() {
		p := r.advert(peerHigh, 1, 0)
		r.do(r.e.Receive(r.now, p))
		six := p
		six.Src = netip.MustParseAddr("fe80::9")
		six.Dst = Group(IPv6)
		a := Advert{}
		if d := a.Decode(p.Payload, p.Src, p.Dst); d != Accepted {
			t.Fatal(d)
		}
		six.Payload = a.Append(nil)
		r.do(r.e.Receive(r.now, six))
	}
	round()
	r.do(r.e.Released(r.now, nil))
	r.take()
	r.run(time.Second)
	round()
	r.want("send 1/100, send 1/100") // one a family
}

func TestANewRoleEndsTheFarewells(t *testing.T) {
	r, better, _ := parted(t, false)
	r.do(r.e.SetState(r.now, Master))
	r.state(Master)
	better()
	r.state(Backup)
	r.take()
	r.run(time.Second)
	better()
	r.want("") // this mastership's addresses are not gone yet
}
