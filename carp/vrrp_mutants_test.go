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
