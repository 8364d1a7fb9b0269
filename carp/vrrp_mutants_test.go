package carp

import (
	"net/netip"
	"testing"
	"time"
)

// What a fault made on purpose (test/mutants) showed that no other test noticed.

// TestStrangersDoNotEvictTheFollowedMaster ends before the shortest wait does.
func TestABackupRemembersTheFollowedMasterHoweverManyStrangersComeAfterIt(t *testing.T) {
	r := newVRRP(t)
	r.hearRouter(peerHigh, 200, interval(4*time.Second))
	for i := range 2 * len(r.e.heard) {
		r.run(10 * time.Millisecond)
		r.hearRouter(netip.AddrFrom4([4]byte{192, 0, 2, byte(100 + i)}), 150, interval(100*time.Millisecond))
	}
	r.run(3500 * time.Millisecond) // the strangers are dead, and the next advert is due soon
	r.state(Backup)
	r.hearRouter(peerHigh, 0)
	r.run(2437500*time.Microsecond - 1)
	r.state(Backup)
	r.run(1)
	r.state(Master)
}

// Nobody has checked what was behind an authentication header (RFC 2402): such a
// router lives, and is none of ours.
func TestWhatWasBehindAnAuthenticationHeaderIsAliveButRefused(t *testing.T) {
	for _, of := range []func(*Config){func(*Config) {}, version2, password("secret")} {
		r := newVRRP(t, preempting, of)
		r.take()
		for range 6 {
			r.run(time.Second)
			p := r.router(peerHigh, 50)
			p.AH = true
			r.do(r.e.Receive(r.now, p))
			r.want("drop auth")
		}
		r.state(Backup)
	}
}

func TestVersion2HasWholeSecondsOnly(t *testing.T) {
	for _, every := range []time.Duration{1500 * time.Millisecond, time.Second + 1, 254990 * time.Millisecond} {
		c := rigConfig(vrrpConfig, version2)
		c.Interval = every
		if _, err := NewEngine(c); err == nil {
			t.Errorf("%v is taken, and the wire has no room for it", every)
		}
	}
	for _, every := range []time.Duration{time.Second, 2 * time.Second, MaxInterval2} {
		c := rigConfig(vrrpConfig, version2)
		c.Interval = every
		if _, err := NewEngine(c); err != nil {
			t.Errorf("%v: %v", every, err)
		}
	}
}
