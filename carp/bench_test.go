package carp

import (
	"testing"
	"time"
)

func BenchmarkReceiveGoodAdvert(b *testing.B) {
	e, p := benchEngine(b)
	b.ReportAllocs()
	now := Instant(2 * time.Second)
	for b.Loop() {
		now++
		if e.Receive(now, p).Drop != Accepted {
			b.Fatal("dropped")
		}
	}
}

func BenchmarkReceiveForgedAdvert(b *testing.B) {
	e, p := benchEngine(b)
	p.Payload[35] ^= 1
	fixChecksum(p.Payload)
	b.ReportAllocs()
	now := Instant(2 * time.Second)
	for b.Loop() {
		now++
		if e.Receive(now, p).Drop != DropHash {
			b.Fatal("accepted")
		}
	}
}

func BenchmarkBuildAdvert(b *testing.B) {
	e, _ := benchEngine(b)
	b.ReportAllocs()
	now := Instant(2 * time.Second)
	for b.Loop() {
		now++
		e.frames, e.wire = e.frames[:0], e.wire[:0]
		e.emit(now, e.bid())
	}
}

func benchEngine(b *testing.B) (*Engine, Packet) {
	b.Helper()
	e, err := NewEngine(rigConfig(func(c *Config) { c.Replay = ReplayOff })) // BenchmarkReplay has what that costs
	if err != nil {
		b.Fatal(err)
	}
	e.LinkUp(Instant(time.Second), rigLocal)
	a := NewAdvert(9, 1, 0)
	a.Counter = 1 << 50
	a.Digest = e.secret.send.Sum(a.Counter)
	return e, Packet{Src: peerLow, Dst: Group(IPv4), TTL: 255, Broadcast: true, Payload: a.Append(nil)}
}
