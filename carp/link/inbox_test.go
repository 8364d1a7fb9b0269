package link

import (
	"net/netip"
	"sync/atomic"
	"testing"

	"github.com/carpd/carpd/carp"
)

// from is a packet of a sender; its TTL tells packets apart.
func from(sender, n byte) carp.LinkEvent {
	return carp.LinkEvent{Packet: &carp.Packet{Src: netip.AddrFrom4([4]byte{192, 0, 2, sender}), SrcMAC: carp.MAC{2, 5: sender}, TTL: n}}
}

func TestInboxFloodedByAStrangerKeepsWhatOthersSent(t *testing.T) {
	var lost atomic.Uint64
	b := newInbox(&lost)
	b.put(up(1))
	const flood, masters = 5000, 3
	for n := range flood {
		if n%(flood/masters) == flood/masters/2 {
			b.put(from(1, byte(n/(flood/masters)))) // the master, long ago and lately
		}
		b.put(from(77, 0))
	}
	b.close()
	var got []byte
	told, kept := 0, 0
	for e := range b.events {
		switch {
		case e.Packet == nil:
			told += e.Lost
		case e.Packet.Src.As4()[3] == 1:
			got = append(got, e.Packet.TTL)
		default:
			kept++
		}
	}
	if string(got) != "\x00\x01\x02" {
		t.Errorf("of the master's adverts %v were left, want all three in their order", got)
	}
	if kept+told != flood || int(lost.Load()) != told {
		t.Errorf("%d of the stranger's are left, %d lost, %d counted; want %d in all", kept, told, lost.Load(), flood)
	}
}

func TestInboxFloodedByManySendersDropsTheOldest(t *testing.T) {
	var lost atomic.Uint64
	b := newInbox(&lost)
	b.put(up(1))
	for n := range byte(200) {
		b.put(from(n, n))
	}
	b.close()
	next := byte(200 - (inboxSize - 1))
	for e := range b.events {
		if e.Packet == nil {
			continue
		}
		if e.Packet.TTL < next-1 {
			t.Errorf("packet %d is there, though %d came later", e.Packet.TTL, 199-int(e.Packet.TTL))
		}
	}
}
