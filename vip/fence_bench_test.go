package vip_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/carpd/carpd/test/lab"
	"github.com/carpd/carpd/vip"
)

// BenchmarkFenceRenewal is what one renewal of this many gates costs the kernel: their
// tags staged, and their marks set to them. The number of addresses does not matter.
func BenchmarkFenceRenewal(b *testing.B) {
	for _, gates := range []int{1, 10, 255} {
		for _, each := range []int{1, 100} {
			b.Run(fmt.Sprintf("gates=%d/addresses=%d", gates, each), func(b *testing.B) {
				f := fenceOn(b, lab.New(b).Host("a", "192.0.2.1/24"), vip.OpenFence)
				for mark := range gates {
					var addrs []netip.Addr
					for i := range each {
						addrs = append(addrs, netip.AddrFrom4([4]byte{10, byte(mark), byte(i >> 8), byte(i)}))
					}
					if err := f.Protect(uint32(mark+1), nil, addrs); err != nil {
						b.Fatal(err)
					}
				}
				stages, points := make([]vip.Stage, gates), make([]vip.Point, gates)
				tag := uint32(0)
				for b.Loop() {
					for i := range gates {
						tag++
						stages[i], points[i] = vip.Stage{Tag: tag, Life: 250 * time.Millisecond}, vip.Point{Mark: uint32(i + 1), Tag: tag}
					}
					if err := f.Stage(stages); err != nil {
						b.Fatal(err)
					}
					if err := f.Set(points); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*gates), "us/gate")
			})
		}
	}
}
