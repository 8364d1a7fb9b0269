package carp

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

// Two nodes that differ in nothing, have no node id and clocks in step send in the
// same millisecond: neither may take the other's adverts for its own, or both stay
// master for good.
func TestEqualMastersWithClocksInStepKnowEachOther(t *testing.T) {
	var nodes [2]*Engine
	for i := range nodes {
		e, err := NewEngine(rigConfig(func(c *Config) { c.Rand = rand.New(rand.NewPCG(uint64(i), 9)).Uint64 }))
		if err != nil {
			t.Fatal(err)
		}
		e.LinkUp(Instant(time.Second), Local{IPv4: netip.AddrFrom4([4]byte{192, 0, 2, byte(1 + i)})})
		nodes[i] = e
	}
	now := Instant(time.Second).Add(masterDown(timing{1, 100}, timing{}))
	for range 10 {
		var sent [2][]byte
		for i, e := range nodes {
			for eff := e.Tick(now); len(eff.Send) > 0; eff = e.Sent(now) {
				sent[i] = append([]byte(nil), eff.Send[0].Payload...)
			}
		}
		for i, e := range nodes {
			if from := 1 - i; sent[from] != nil {
				e.Receive(now, Packet{Src: nodes[from].local.IPv4, Dst: Group(IPv4), TTL: 255, Broadcast: true, Payload: sent[from]})
			}
		}
		if nodes[0].state == Master && nodes[1].state == Backup {
			return
		}
		now = now.Add(timing{1, 100}.interval())
	}
	t.Errorf("states %v and %v, drops %v and %v: want MASTER and BACKUP", nodes[0].state, nodes[1].state, nodes[0].drops, nodes[1].drops)
}
