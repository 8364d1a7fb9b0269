package lab

import (
	"encoding/binary"
	"slices"
	"testing"
	"time"
)

// onBothWires runs a benchmark with veths and with taps.
func onBothWires(b *testing.B, run func(b *testing.B, opts ...Option)) {
	b.Run("veth", func(b *testing.B) { run(b, Switched(1)) })
	b.Run("tap", func(b *testing.B) { run(b, Switched(1), Tap()) })
}

func stations(b *testing.B, opts ...Option) (lan *LAN, from, to *station) {
	lan = New(b, opts...)
	return lan, newStation(b, lan.Host("a")), newStation(b, lan.Host("b"))
}

// BenchmarkSwitchLatency is one frame at a time, from one host's send to the
// other's receive.
func BenchmarkSwitchLatency(b *testing.B) {
	onBothWires(b, func(b *testing.B, opts ...Option) {
		_, from, to := stations(b, opts...)
		frame := from.frame(0, 60)
		var took []time.Duration
		for b.Loop() {
			began := time.Now()
			from.send(frame)
			if to.await(time.Second) == nil {
				b.Fatal("a frame was lost")
			}
			took = append(took, time.Since(began))
		}
		slices.Sort(took)
		for name, at := range map[string]int{"p50-µs": len(took) / 2, "p99-µs": len(took) * 99 / 100} {
			b.ReportMetric(float64(took[min(at, len(took)-1)].Nanoseconds())/1000, name)
		}
	})
}

// BenchmarkSwitchDelay is how much later than the delay that was set a frame comes.
func BenchmarkSwitchDelay(b *testing.B) {
	const delay = 2 * time.Millisecond
	_, from, to := stations(b, Switched(1))
	from.h.lan.Link(from.h, to.h).Delay(delay, 0)
	frame := from.frame(0, 60)
	var late []time.Duration
	for b.Loop() {
		began := time.Now()
		from.send(frame)
		if to.await(time.Second) == nil {
			b.Fatal("a frame was lost")
		}
		late = append(late, time.Since(began)-delay)
	}
	slices.Sort(late)
	b.ReportMetric(float64(late[len(late)/2].Nanoseconds())/1000, "late-p50-µs")
	b.ReportMetric(float64(late[len(late)*99/100].Nanoseconds())/1000, "late-p99-µs")
}

// BenchmarkSwitchFlood is as many frames as one sender can send: how many of them
// the switch carries in a second, with all chances in use.
func BenchmarkSwitchFlood(b *testing.B) {
	for name, change := range map[string]func(*Link){
		"good": func(*Link) {},
		"bad":  func(k *Link) { k.Loss(0.1).Corrupt(0.1).Duplicate(0.1, 0).Reorder(0.1, time.Microsecond) },
	} {
		b.Run(name, func(b *testing.B) {
			onBothWires(b, func(b *testing.B, opts ...Option) { flood(b, change, opts...) })
		})
	}
}

func flood(b *testing.B, change func(*Link), opts ...Option) {
	lan, from, to := stations(b, opts...)
	k := lan.Link(from.h, to.h)
	change(k)
	frame := from.frame(0, 60)
	began := time.Now()
	for i := 0; b.Loop(); i++ {
		binary.BigEndian.PutUint32(frame[14:], uint32(i))
		from.send(frame)
	}
	took := time.Since(began).Seconds()
	b.ReportMetric(float64(k.Stats().Offered)/took, "frames/s")
	b.ReportMetric(float64(lan.Overruns())/took, "overruns/s")
}
