package carp

import (
	"net/netip"
	"testing"
)

// A bow-out is one packet a family: that of IPv4 makes the follower master, and
// that of IPv6 finds it so.
func TestBowOutOverTheOtherFamilyIsNoContest(t *testing.T) {
	r := newRig(t, dual, skew(0))
	peer6 := netip.MustParseAddr("fe80::9")
	for range 2 {
		r.hear(peerHigh, 1, 0)
		r.hear(peer6, 1, 0)
	}
	r.take()
	four, six := r.advert(peerHigh, 255, 255), r.advert(peer6, 255, 255)
	r.do(r.e.Receive(r.now, four))
	r.do(r.e.Tick(r.now))
	r.want("BACKUP->MASTER bow-out, send 1/0, send 1/0, permit")
	epoch := r.e.epoch
	r.do(r.e.Receive(r.now, six))
	r.want("announce")
	if r.e.epoch != epoch {
		t.Errorf("epoch %d became %d", epoch, r.e.epoch)
	}
}
