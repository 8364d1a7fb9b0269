package carp

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
	"time"
)

// counterOf reads the counter of a CARP advert.
func counterOf(f Frame) uint64 { return binary.BigEndian.Uint64(f.Payload[8:]) }

func TestBowOutsForLaterAreNewerThanWhatIsSentUntilThen(t *testing.T) {
	const ahead = 20 * time.Second
	r := newRig(t, dual, skew(0))
	if got := r.e.BowOuts(r.now, ahead); len(got) > 0 {
		t.Fatalf("a backup has %d bow-outs", len(got))
	}
	r.run(4 * time.Second)
	if r.e.state != Master {
		t.Fatal("not master")
	}
	bows := r.e.BowOuts(r.now, ahead)
	if len(bows) != 2 || bows[0].Dst != Group(IPv4) || bows[1].Dst != Group(IPv6) {
		t.Fatalf("%d bow-outs: %+v", len(bows), bows)
	}
	kept := bytes.Clone(bows[0].Payload)
	counter, end := counterOf(bows[0]), r.now.Add(ahead)
	for r.now < end.Add(-2*time.Second) {
		e := r.e.Tick(r.deadline())
		r.now = r.deadline()
		for _, f := range e.Send {
			if c := counterOf(f); c >= counter {
				t.Fatalf("%v before the end an advert has counter %#x, and the bow-out %#x", end.Sub(r.now), c, counter)
			}
		}
		r.do(e)
	}
	if !bytes.Equal(kept, bows[0].Payload) {
		t.Error("a payload was written over")
	}
	// Who hears it takes over as from any bow-out.
	b := newRig(t, dual, skew(0))
	b.counter = 1 // below that of the bow-out
	b.hear(peerHigh, 1, 0)
	p := b.advert(peerHigh, 255, 255)
	p.Payload = bows[0].Payload
	b.take()
	b.do(b.e.Receive(b.now, p))
	b.do(b.e.Tick(b.now))
	if b.e.state != Master {
		t.Errorf("a backup that heard it is %v: %v", b.e.state, b.log)
	}
}

// Somebody may have sent them while this node stood still: what it says then must be
// newer, or receivers refuse it.
func TestAfterAStallTheCounterIsAboveTheBowOuts(t *testing.T) {
	r := newRig(t, skew(0))
	r.run(4 * time.Second)
	reserved := counterOf(r.e.BowOuts(r.now, 20*time.Second)[0])
	r.now = r.now.Add(5 * time.Second)
	r.do(r.e.Tick(r.now))
	if r.e.state != Backup {
		t.Fatalf("%v after a stall", r.e.state)
	}
	r.do(r.e.SetState(r.now, Master))
	if got := r.e.nextCounter(r.now, r.e.timing()); got <= reserved {
		t.Errorf("counter %#x, and %#x may have been sent", got, reserved)
	}
}

func TestBowOutsForLaterOfVRRPHavePriorityZero(t *testing.T) {
	r := newRig(t, func(c *Config) {
		*c = Config{Protocol: VRRP3, VHID: 9, Priority: 255, Interval: time.Second, Addresses: c.Addresses, Rand: c.Rand}
	})
	bows := r.e.BowOuts(r.now, time.Second)
	if len(bows) != 1 || bows[0].Payload[2] != 0 || !bows[0].Pseudo {
		t.Errorf("%+v", bows)
	}
	r.log = nil
	r.run(time.Second)
	if said := strings.Join(r.log, ", "); strings.Contains(said, "send 0") || !strings.Contains(said, "send 255") {
		t.Errorf("what follows: %s", said)
	}
}
