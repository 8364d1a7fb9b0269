package carp

import (
	"net/netip"
	"testing"
)

// A preempting node whose adverts do not go out has told nobody: the end of the
// grace gives it no permit.
func TestNoPermitBeforeAnAdvertWentOut(t *testing.T) {
	r := newRig(t, preempting)
	r.sendErr = true
	r.hear(peerHigh, 1, 200)
	r.state(Master)
	r.take()
	r.run(DefaultGrace)
	r.want("")
	if r.permit.Epoch != 0 {
		t.Errorf("a permit until %v though nothing was ever sent", r.permit.Until)
	}
}

// A farewell has one packet a family; the second is no contest.
func TestSecondFormOfAFarewellIsNoContest(t *testing.T) {
	r := newRig(t, preempting, dual)
	r.hear(peerHigh, 1, 200)
	r.take()
	p := r.advert(peerHigh, 1, 200)
	r.do(r.e.Receive(r.now, p))
	r.want("permit, send 1/100, send 1/100, permit")
	r.do(r.e.Receive(r.now, p))
	r.want("drop repeat")
	p.Src, p.Dst = netip.MustParseAddr("fe80::9"), Group(IPv6)
	r.do(r.e.Receive(r.now, p))
	r.want("")
}

// What the kernel got before this node said that it preempts is no farewell.
func TestAdvertFromBeforeThePreemptionIsNoFarewell(t *testing.T) {
	r := newRig(t, preempting)
	p := r.advert(peerHigh, 1, 200)
	q := r.advert(peerHigh, 1, 200)
	p.At, q.At = r.now.Add(-2e6), r.now.Add(-1e6)
	r.do(r.e.Receive(r.now, p))
	r.state(Master)
	r.take()
	r.do(r.e.Receive(r.now, q))
	r.want("")
}
