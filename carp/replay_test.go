package carp

import (
	"testing"
	"time"
)

func TestReplayConfig(t *testing.T) {
	for _, tt := range []struct {
		name string
		set  func(*Config)
		ok   bool
	}{
		{"window", func(*Config) {}, true},
		{"sealed", sealed(255), true},
		{"sealed without a node id", func(c *Config) { c.Replay = ReplaySealed }, false},
		{"sealed as the BSDs", func(c *Config) { sealed(1)(c); c.Compat = CompatBSD }, false},
		{"off as the BSDs", func(c *Config) { c.Replay, c.Compat = ReplayOff, CompatBSD }, true},
		{"no mode", func(c *Config) { c.Replay = 3 }, false},
		{"a window of a second", func(c *Config) { c.Window = time.Second }, true},
		{"a window of less", func(c *Config) { c.Window = time.Second - 1 }, false},
		{"a window of more than an hour", func(c *Config) { c.Window = time.Hour + 1 }, false},
		{"sealed VRRP", func(c *Config) {
			*c = Config{Protocol: VRRP3, VHID: 9, Addresses: c.Addresses, Replay: ReplaySealed, NodeID: 1}
		}, false},
	} {
		c := rigConfig(tt.set)
		if err := c.Validate(); (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestNothingIsAllocatedToTellARecording(t *testing.T) {
	for _, mode := range []Replay{ReplaySealed, ReplayWindow} {
		r := newRig(t, sealed(5), func(c *Config) { c.Replay, c.ClockOffset = mode, wallNow })
		r.counter = seal{r.e.guard.clock.at(r.now), 7, timing{1, 0}}.counter() - 1
		var packets []Packet
		for range 2000 {
			packets = append(packets, r.advert(peerHigh, 1, 0))
			r.counter += 1<<24 - 1
		}
		r.do(r.e.Receive(r.now, packets[0]))
		n := 0
		if a := testing.AllocsPerRun(900, func() {
			n++
			if e := r.e.Receive(r.now, packets[n]); e.Drop != Accepted {
				t.Fatalf("%v: %v", mode, e.Drop)
			}
			r.e.Receive(r.now, packets[n-1])
		}); a != 0 {
			t.Errorf("%v: %v allocations", mode, a)
		}
	}
}

// A master's answer that was recorded answers nothing else.
func TestRecordedAnswerProvesNobodyAlive(t *testing.T) {
	g := newGroup(t, skew(0), skew(100))
	g.run(10 * time.Second)
	a, b := g.nodes[0], g.nodes[1]
	g.tape = nil
	g.start(b)
	g.run(time.Second)
	var answers []Packet
	for _, p := range g.tape {
		if MessageType(p.Payload[0]&0xf) == TypeClockAnswer && p.Src == a.local.IPv4 {
			answers = append(answers, p)
		}
	}
	if len(answers) == 0 {
		t.Fatal("no answer on the tape")
	}
	a.dead = true
	g.inject(g.tape[0], b) // its own probe: no reason to ask
	for died := g.now; b.e.state != Master && g.now.Sub(died) < 10*time.Second; g.run(20 * time.Millisecond) {
		for _, p := range g.tape {
			g.inject(p, nil)
		}
		for _, p := range answers {
			if g.inject(p, nil) > 0 {
				t.Fatalf("a recorded answer was believed %v after its sender had died", g.now.Sub(died))
			}
		}
	}
	if b.e.state != Master || b.e.guard.probes < 2 {
		t.Errorf("%v after %d probes", b.e.state, b.e.guard.probes)
	}
}
