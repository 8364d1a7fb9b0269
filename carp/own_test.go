package carp

import (
	"net/netip"
	"testing"
	"time"
)

// A BSD goes on counting from the last counter it heard, and so do we: after a
// loss in one direction both have sent the same counters, and the peer's adverts
// are not our own.
func TestBSDPeerThatCountsFromWhereWeDidIsHeard(t *testing.T) {
	vip := netip.MustParseAddr("192.0.2.50")
	e, err := NewEngine(Config{VHID: 9, AdvBase: 1, AdvSkew: 100, Passphrase: []byte("k"), Addresses: []netip.Addr{vip}, Compat: CompatBSD})
	if err != nil {
		t.Fatal(err)
	}
	now := Instant(time.Hour)
	d := NewDigest(9, []byte("k"), []netip.Addr{vip}, DigestOptions{})
	hear := func(counter uint64) Effects {
		a := NewAdvert(9, 1, 0)
		a.Counter, a.Digest = counter, d.Sum(counter)
		return e.Receive(now, Packet{Src: netip.MustParseAddr("192.0.2.2"), Dst: Group(IPv4), TTL: 255, Payload: a.Append(nil)})
	}
	e.LinkUp(now, Local{IPv4: netip.MustParseAddr("192.0.2.1")})
	now = now.Add(time.Second)
	hear(1000)
	now = now.Add(4 * time.Second) // its adverts are lost: we take over and count on
	e.Tick(now)
	e.Sent(now)
	for range 9 {
		now = now.Add(1391 * time.Millisecond)
		e.Tick(now)
		e.Sent(now)
	}
	if eff := hear(1005); e.state != Backup { // it was master all along
		t.Errorf("state %v, drop %v: a better master's advert was taken for our own", e.state, eff.Drop)
	}
}
