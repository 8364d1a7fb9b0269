package carp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"reflect"
	"testing"
	"time"
)

// The four states and how a rig gets there.
var tableStates = []struct {
	state State
	reach func(*testing.T) *rig
}{
	{Init, func(t *testing.T) *rig {
		r := newRig(t)
		r.do(r.e.LinkDown(r.now))
		r.take()
		return r
	}},
	{Backup, func(t *testing.T) *rig {
		r := newRig(t)
		r.hear(peerHigh, 1, 50)
		r.take()
		return r
	}},
	{Master, func(t *testing.T) *rig { return newRig(t).master() }},
	{Releasing, func(t *testing.T) *rig { return newRig(t).releasing() }},
}

// tableInputs is every input there is. Own advskew is 100, own address .5.
var tableInputs = []struct {
	name  string
	input func(*rig)
	// What follows in INIT, BACKUP (following .9 at 1/50), MASTER and RELEASING.
	want [4]string
}{
	{"better advert", func(r *rig) { r.hear(peerLow, 1, 0) },
		[4]string{"drop state", "", "MASTER->BACKUP better-master", "RELEASING->BACKUP better-master"}},
	{"equal advert, lower address", func(r *rig) { r.hear(peerLow, 1, 100) },
		[4]string{"drop state", "", "MASTER->BACKUP tie-lost", "RELEASING->BACKUP better-master"}},
	{"equal advert, higher address", func(r *rig) { r.hear(peerHigh, 1, 100) },
		[4]string{"drop state", "", "MASTER->MASTER contested, permit, announce, send 1/100, permit", "RELEASING->BACKUP better-master"}},
	{"worse advert", func(r *rig) { r.hear(peerLow, 1, 200) },
		[4]string{"drop state", "", "MASTER->MASTER contested, permit, announce, send 1/100, permit", ""}},
	{"slower than dead", func(r *rig) { r.hear(peerHigh, 9, 0) },
		[4]string{"drop state", "BACKUP->MASTER master-will-time-out, send 1/100", "MASTER->MASTER contested, permit, announce, send 1/100, permit", ""}},
	{"bow-out of the master", func(r *rig) { r.hear(peerHigh, 255, 255); r.run(10 * time.Millisecond) },
		[4]string{"drop state", "BACKUP->MASTER bow-out, send 1/100, permit", "announce", ""}},
	{"bow-out of another", func(r *rig) { r.hear(peerLow, 255, 255); r.run(10 * time.Millisecond) },
		[4]string{"drop state", "drop bow-out", "announce", ""}},
	{"bad hash", func(r *rig) {
		p := r.advert(peerLow, 1, 0)
		p.Payload[35] ^= 1
		fixChecksum(p.Payload)
		r.do(r.e.Receive(r.now, p))
	}, [4]string{"drop hash", "drop hash", "drop hash", "drop hash"}},
	{"own advert", func(r *rig) {
		e := r.e
		e.recent[0], e.sent = 4711, max(e.sent, 1)
		r.counter = 4710
		r.hear(peerLow, 1, 0)
	}, [4]string{"drop own", "drop own", "drop own", "drop own"}},
	{"tick before the deadline", func(r *rig) { r.do(r.e.Tick(r.now)) }, [4]string{"", "", "", ""}},
	{"tick at the deadline", func(r *rig) { r.run(3391 * time.Millisecond) },
		[4]string{"", "BACKUP->MASTER master-timed-out, send 1/100, permit", "send 1/100, permit, send 1/100, permit", "send 1/100, permit, send 1/100, permit"}},
	{"the release budget is over", func(r *rig) { r.run(5 * time.Second); r.log = r.log[max(len(r.log)-1, 0):] },
		[4]string{"", "permit", "permit", "RELEASING->BACKUP release-failed"}},
	{"link up", func(r *rig) { r.do(r.e.LinkUp(r.now, rigLocal)) }, [4]string{"INIT->BACKUP link-up", "", "", ""}},
	{"ready", func(r *rig) { r.do(r.e.Ready(r.now)) }, [4]string{"", "", "", ""}},
	{"link down", func(r *rig) { r.do(r.e.LinkDown(r.now)) },
		[4]string{"", "BACKUP->INIT link-down", "MASTER->INIT link-down", "RELEASING->INIT link-down"}},
	{"client side cut off", func(r *rig) { r.do(r.e.ClientSide(r.now, false)) },
		[4]string{"", "", "MASTER->RELEASING client-side-down", ""}},
	{"client side good as ever", func(r *rig) { r.do(r.e.ClientSide(r.now, true)) }, [4]string{"", "", "", ""}},
	{"unfit", func(r *rig) { r.do(r.e.Unfit(r.now, true)) }, [4]string{"", "", "send 1/240, permit", ""}},
	{"fit as ever", func(r *rig) { r.do(r.e.Unfit(r.now, false)) }, [4]string{"", "", "", ""}},
	{"path up", func(r *rig) { r.do(r.e.PathUp(r.now, 1, rigLocal)) }, [4]string{"", "", "", ""}},
	{"path down", func(r *rig) { r.do(r.e.PathDown(r.now, 1)) }, [4]string{"", "", "", ""}},
	{"demote", func(r *rig) { r.do(r.e.Demote(r.now, "x", 9)) }, [4]string{"", "", "send 1/109, permit", ""}},
	{"state init", func(r *rig) { r.do(r.e.SetState(r.now, Init)) }, [4]string{"", "", "", ""}},
	{"state backup", func(r *rig) { r.do(r.e.SetState(r.now, Backup)) }, [4]string{"", "", "MASTER->RELEASING operator", ""}},
	{"state master", func(r *rig) { r.do(r.e.SetState(r.now, Master)) },
		[4]string{"", "BACKUP->MASTER operator, send 1/100", "", ""}},
	{"resign to backup", func(r *rig) { r.do(r.e.Resign(r.now, Backup, ReasonHandover)) },
		[4]string{"", "", "MASTER->RELEASING handover", ""}},
	{"resign to init", func(r *rig) { r.do(r.e.Resign(r.now, Init, ReasonStopping)) },
		[4]string{"", "BACKUP->INIT stopping", "MASTER->RELEASING stopping", ""}},
	{"released", func(r *rig) { r.do(r.e.Released(r.now, nil)) },
		[4]string{"", "", "", "RELEASING->BACKUP released, send 255/255"}},
	{"release failed", func(r *rig) { r.do(r.e.Released(r.now, errors.New("busy"))) },
		[4]string{"", "", "", "RELEASING->BACKUP release-failed"}},
	{"granted", func(r *rig) { r.do(r.e.Granted(r.now, r.e.epoch)) }, [4]string{"", "", "", ""}},
	{"denied", func(r *rig) { r.do(r.e.Denied(r.now, r.e.epoch)) }, [4]string{"", "", "", ""}},
	{"failed", func(r *rig) { r.do(r.e.Failed(r.now, r.e.epoch)) },
		[4]string{"", "", "MASTER->BACKUP failed, send 255/255", ""}},
	{"abandon", func(r *rig) { r.do(r.e.Abandon(r.now, r.e.epoch)) },
		[4]string{"", "", "MASTER->RELEASING failed", ""}},
	{"renew at once", func(r *rig) { r.do(r.e.Renew(r.now)) }, [4]string{"", "", "", ""}},
	{"renew", func(r *rig) { r.now = r.now.Add(100 * time.Millisecond); r.do(r.e.Renew(r.now)) },
		[4]string{"", "", "send 1/100, permit", ""}},
	{"sent", func(r *rig) { r.e.claimed = true; r.do(r.e.Sent(r.now)) }, [4]string{"", "", "permit", "permit"}},
	{"sent no advert", func(r *rig) { r.do(r.e.Sent(r.now)) }, [4]string{"", "", "", ""}},
	{"send failed", func(r *rig) { r.do(r.e.SendFailed(r.now)) }, [4]string{"", "", "", ""}},
	{"reconfigure", func(r *rig) {
		e, err := r.e.Reconfigure(r.now, rigConfig(skew(7)))
		if err != nil {
			r.t.Fatal(err)
		}
		r.do(e)
	}, [4]string{"", "", "send 1/7, permit", ""}},
	{"reset seal", func(r *rig) { r.do(r.e.ResetSeal(r.now, 0)) }, [4]string{"", "", "", ""}},
	{"stall", func(r *rig) { r.now = r.now.Add(2900 * time.Millisecond); r.do(r.e.Tick(r.now)) },
		[4]string{"", "", "MASTER->BACKUP stalled", "RELEASING->BACKUP stalled"}},
}

func fixChecksum(b []byte) {
	b[6], b[7] = 0, 0
	binary.BigEndian.PutUint16(b[6:], ^fold(sum(0, b[:HeaderLen])))
}

func TestEveryInputInEveryState(t *testing.T) {
	for _, in := range tableInputs {
		for i, st := range tableStates {
			t.Run(fmt.Sprintf("%s/%v", in.name, st.state), func(t *testing.T) {
				r := st.reach(t)
				r.state(st.state)
				in.input(r)
				r.want(in.want[i])
				r.checkInvariants()
			})
		}
	}
}

// The table must not fall behind the engine.
func TestTheTableHasEveryInputOfTheEngine(t *testing.T) {
	inputs := map[string]bool{}
	e := reflect.TypeFor[*Engine]()
	for m := range e.Methods() {
		if out := m.Type.NumOut(); out > 0 && m.Type.Out(0) == reflect.TypeFor[Effects]() {
			inputs[m.Name] = true
		}
	}
	for _, known := range []string{
		"Receive", "Tick", "LinkUp", "LinkDown", "Demote", "SetState", "Resign", "Released", "Ready",
		"Granted", "Denied", "Failed", "Abandon", "Sent", "SendFailed", "Reconfigure", "Renew", "ResetSeal", "ClientSide", "Unfit", "PathUp", "PathDown",
	} {
		delete(inputs, known)
	}
	if len(inputs) > 0 {
		t.Errorf("not in the table: %v", inputs)
	}
}

// checkInvariants holds after every input.
func (r *rig) checkInvariants() {
	r.t.Helper()
	e := r.e
	armed := func(x timer) bool { return e.timers[x] != 0 }
	down := armed(timerDown) || armed(timerDown6)
	switch {
	case e.state == Master && !armed(timerAdvert):
		r.t.Errorf("a master without a next advert")
	case e.state == Backup && !down:
		r.t.Errorf("a backup that would wait for ever")
	case e.state == Init && (down || armed(timerAdvert) || armed(timerBowOut) || armed(timerGrace)):
		r.t.Errorf("timers run in INIT: %v", e.timers)
	case e.state != Master && (armed(timerGrace) || e.asking):
		r.t.Errorf("%v is in grace or asks the guard", e.state)
	case e.state != Master && e.state != Releasing && r.permit.Epoch != 0:
		r.t.Errorf("%v holds a permit", e.state)
	case r.permit.Until > e.lastSent.Add(PermitTime(fastestDown(timing{e.cfg.AdvBase, MaxDemotedSkew}))):
		r.t.Errorf("the permit outlives the fastest backup's patience")
	}
	total := 0
	for _, n := range e.demotions {
		total += n
	}
	if total != e.demotion {
		r.t.Errorf("demotion %d, owners %v", e.demotion, e.demotions)
	}
}

// play feeds a seeded mix of inputs to an engine and returns what it did.
func play(t *testing.T, seed uint64, steps int, set ...func(*Config)) uint64 {
	t.Helper()
	r := newRig(t, set...)
	random := seed
	next := func(n uint64) uint64 { // SplitMix64
		random += 0x9e3779b97f4a7c15
		z := random
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		return (z ^ z>>31) % n
	}
	trace := fnv.New64a()
	peers := []netip.Addr{peerLow, peerHigh, netip.MustParseAddr("fe80::1")}
	for range steps {
		switch next(16) {
		case 0:
			r.do(r.e.LinkUp(r.now, rigLocal))
		case 1:
			if next(4) == 0 {
				r.do(r.e.LinkDown(r.now))
			}
		case 2:
			r.do(r.e.Demote(r.now, fmt.Sprint(next(3)), int(next(481))-240))
		case 3:
			r.do(r.e.SetState(r.now, State(next(4))))
		case 4:
			r.do(r.e.Resign(r.now, Backup, ReasonHandover))
		case 5, 6:
			r.do(r.e.Released(r.now, nil))
		case 7:
			r.do(r.e.Released(r.now, errors.New("x")))
		case 8:
			r.do(r.e.Failed(r.now, r.e.epoch))
		case 9:
			r.sendErr = !r.sendErr && next(4) == 0
		case 10:
			r.now = r.now.Add(time.Duration(next(uint64(5 * time.Second))))
			r.do(r.e.Tick(r.now))
		case 11:
			r.hear(peers[next(3)], 255, 255)
		case 12:
			r.hear(peers[next(3)], uint8(next(5)), uint8(next(256)))
		default:
			r.run(time.Duration(next(uint64(2 * time.Second))))
		}
		r.checkInvariants()
		fmt.Fprintln(trace, r.now, r.take(), r.deadline(), r.permit)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	return trace.Sum64()
}

func TestRandomInputsKeepTheInvariants(t *testing.T) {
	for seed := range uint64(200) {
		play(t, seed, 300)
		play(t, seed, 300, preempting, dual)
		play(t, seed, 300, func(c *Config) { c.Compat = CompatBSD }, dual)
		play(t, seed, 300, func(c *Config) { c.AdvBase, c.Leased = 0, true })
	}
}

func TestTheSameInputsGiveTheSameTrace(t *testing.T) {
	for seed := range uint64(20) {
		if one, two := play(t, seed, 500, preempting), play(t, seed, 500, preempting); one != two {
			t.Fatalf("seed %d: traces differ", seed)
		}
	}
	if play(t, 1, 500) == play(t, 2, 500) {
		t.Error("the trace says nothing")
	}
}

func TestReceivingAGoodAdvertDoesNotAllocate(t *testing.T) {
	r := newRig(t)
	packets := make([]Packet, 2000)
	for i := range packets {
		packets[i] = r.advert(peerLow, 1, 0)
	}
	i := 0
	if n := testing.AllocsPerRun(1000, func() {
		r.now = r.now.Add(time.Millisecond)
		if r.e.Receive(r.now, packets[i]).Drop != Accepted {
			t.Fatal("dropped")
		}
		i++
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzDecodeAdvert(f *testing.F) {
	r, err := NewEngine(rigConfig())
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte{0x21, 9, 0, 7, 0, 1}, byte(255), true)
	r.LinkUp(1, rigLocal)
	for _, e := range r.Tick(Instant(4 * time.Second)).Send {
		f.Add(append([]byte(nil), e.Payload...), byte(255), true)
	}
	f.Fuzz(func(t *testing.T, b []byte, ttl byte, multicast bool) {
		var a Advert
		if a.Decode(b, peerLow, Group(IPv4)) == Accepted {
			again := a.Append(nil)
			if string(again) != string(b[:HeaderLen]) && a.Checksum != 0xffff && a.Checksum != 0 {
				t.Errorf("decoded and encoded again:\n%x\n%x", b[:HeaderLen], again)
			}
		}
		e, err := NewEngine(rigConfig())
		if err != nil {
			t.Fatal(err)
		}
		e.LinkUp(1, rigLocal)
		p := Packet{Src: peerLow, Dst: Group(IPv4), TTL: ttl, Broadcast: multicast, Payload: b}
		e.Receive(2, p)
	})
}
