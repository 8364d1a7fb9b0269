package carp

import (
	"net/netip"
	"testing"
	"time"
)

// mismatch is one way in which a living master's settings differ from ours.
type mismatch struct {
	name string
	ours []func(*Config)
	set  func(*VRRPAdvert)
	ah   bool
	drop Drop
}

func toVersion(v uint8) func(*VRRPAdvert) {
	return func(a *VRRPAdvert) {
		a.Version = v
		if v == 3 {
			a.AuthType, a.Password = 0, [8]byte{}
		}
	}
}

func mismatches() []mismatch {
	return []mismatch{
		{"version 2 against 3", nil, toVersion(2), false, DropVersion},
		{"version 3 against 2", []func(*Config){version2}, toVersion(3), false, DropVersion},
		{"version 3 against 2 with a password", []func(*Config){password("s3cret")}, toVersion(3), false, DropVersion},
		{"another interval, version 2", []func(*Config){version2}, interval(2 * time.Second), false, DropInterval},
		{"a shorter interval, version 2", []func(*Config){version2, every(2 * time.Second)}, interval(time.Second), false, DropInterval},
		{"an interval far longer, version 3", nil, interval(11 * time.Second), false, DropInterval},
		{"an interval far shorter, version 3", nil, interval(90 * time.Millisecond), false, DropInterval},
		{"one address more", nil, listed("192.0.2.50", "192.0.2.51"), false, DropAddresses},
		{"one address less", []func(*Config){func(c *Config) { c.Addresses = append(c.Addresses, netip.MustParseAddr("192.0.2.51")) }},
			listed("192.0.2.50"), false, DropAddresses},
		{"another address beside", []func(*Config){func(c *Config) { c.Addresses = append(c.Addresses, netip.MustParseAddr("192.0.2.51")) }},
			listed("192.0.2.50", "192.0.2.52"), false, DropAddresses},
		{"another password", []func(*Config){password("s3cret")}, func(a *VRRPAdvert) { a.Password[0] = 'S' }, false, DropAuth},
		{"no password", []func(*Config){password("s3cret")}, func(a *VRRPAdvert) { a.AuthType, a.Password = 0, [8]byte{} }, false, DropAuth},
		{"a password", []func(*Config){version2}, func(a *VRRPAdvert) { a.AuthType, a.Password = 1, [8]byte{'x'} }, false, DropAuth},
		{"authentication header", []func(*Config){version2}, func(a *VRRPAdvert) { a.AuthType = 2 }, true, DropAuth},
	}
}

// tell makes the peer say its advert once.
func (m *mismatch) tell(r *rig, src netip.Addr, priority uint8) {
	p := r.router(src, priority, m.set)
	p.AH = m.ah
	r.do(r.e.Receive(r.now, p))
}

// every is the interval at which the peer speaks.
func (m *mismatch) every(r *rig) time.Duration {
	a := r.e.router.advert
	m.set(&a)
	return a.Interval
}

func TestABackupNeverTakesOverFromAnIncompatibleMasterThatLives(t *testing.T) {
	for _, m := range mismatches() {
		for _, theirs := range []uint8{50, 100, 200} {
			r := newVRRP(t, append(m.ours, preempting)...)
			r.take()
			for range 20 {
				m.tell(r, peerLow, theirs)
				r.run(m.every(r))
			}
			r.state(Backup)
			if got := r.e.drops[m.drop]; got != 20 {
				t.Errorf("%s, priority %d: %d drops %v; all: %v", m.name, theirs, got, m.drop, r.e.drops)
			}
			if s := r.e.Status(r.now).Master; s.Address != peerLow || s.Refused != m.drop {
				t.Errorf("%s: the status says %+v", m.name, s)
			}
			r.take()
			r.run(50 * time.Second) // it dies: silence is silence
			r.state(Master)
		}
	}
}

func TestAnIncompatibleMasterThatLeavesIsFollowedByTheNext(t *testing.T) {
	for _, m := range mismatches() {
		r := newVRRP(t, m.ours...)
		m.tell(r, peerLow, 200)
		m.tell(r, peerLow, 0)
		r.run(10 * time.Second)
		r.state(Master)
		if r.e.reason != ReasonBowOut {
			t.Errorf("%s: master because of %v", m.name, r.e.reason)
		}
	}
}

func TestAMasterYieldsToABetterIncompatibleOneAndElseStays(t *testing.T) {
	for _, m := range mismatches() {
		for _, test := range []struct {
			src    netip.Addr
			theirs uint8
			reason Reason // of yielding, or none
		}{
			{peerLow, 101, ReasonIncompatible},
			{peerHigh, 100, ReasonTieLost},
			{peerLow, 100, ReasonNone},
			{peerHigh, 99, ReasonNone},
		} {
			r := newVRRP(t, m.ours...).master()
			r.run(r.e.cfg.Interval / 2)
			m.tell(r, test.src, test.theirs)
			switch {
			case test.reason != ReasonNone && (r.e.state != Backup || r.e.reason != test.reason):
				t.Errorf("%s, priority %d of %v: %v because of %v, want %v", m.name, test.theirs, test.src, r.e.state, r.e.reason, test.reason)
			case test.reason == ReasonNone && r.e.state != Master:
				t.Errorf("%s, priority %d of %v: %v", m.name, test.theirs, test.src, r.e.state)
			case test.reason == ReasonNone && r.e.contested == 0:
				t.Errorf("%s, priority %d of %v: stays, and says nothing", m.name, test.theirs, test.src)
			}
			if r.e.drops[m.drop] != 1 {
				t.Errorf("%s: drops %v", m.name, r.e.drops)
			}
		}
	}
}

func TestANodeThatLetsGoIsDoneWhenABetterIncompatibleOneIsThere(t *testing.T) {
	for _, m := range mismatches() {
		r := newVRRP(t, m.ours...).releasing()
		m.tell(r, peerLow, 50)
		r.state(Releasing)
		m.tell(r, peerLow, 200)
		r.state(Backup)
	}
}

func TestAdvertsInAnyFormOfChecksumAreHeard(t *testing.T) {
	for _, form := range []Checksum{ChecksumPseudo, ChecksumRFC9568} {
		r := newVRRP(t)
		r.hearRouter(peerHigh, 200, func(a *VRRPAdvert) { a.Sum = form })
		if s := r.e.Status(r.now).Master; s.Address != peerHigh || s.Sum != form {
			t.Errorf("%v: the status says %+v", form, s)
		}
	}
}

func TestTheOrderOfAddressesAndTheReservedBitsAreNoMismatch(t *testing.T) {
	two := func(c *Config) { c.Addresses = append(c.Addresses, netip.MustParseAddr("192.0.2.51")) }
	r := newVRRP(t, two)
	r.take()
	r.hearRouter(peerHigh, 200, listed("192.0.2.51", "192.0.2.50"))
	r.want("")
	p := r.router(peerHigh, 200)
	p.Payload[4] |= 0xf0
	putVRRPSum(p.Payload, 0)
	r.do(r.e.Receive(r.now, p))
	r.want("")
}

func TestCARPNamesVRRPOnItsID(t *testing.T) {
	v := newVRRP(t)
	for name, set := range map[string]func(*VRRPAdvert){
		"version 3": func(*VRRPAdvert) {},
		"version 2": toVersion(2),
		"version 2 in 36 bytes": func(a *VRRPAdvert) {
			listed("192.0.2.50", "192.0.2.51", "192.0.2.52", "192.0.2.53", "192.0.2.54")(a)
			a.Version = 2
		},
	} {
		r := newRig(t)
		if got := r.e.Receive(r.now, v.router(peerHigh, 200, set)).Drop; got != DropProtocol {
			t.Errorf("%s: %v", name, got)
		}
	}
}
