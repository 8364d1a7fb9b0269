package vip_test

import (
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/carp/link"
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

// BenchmarkFenceHolds is how well living masters keep their gates open: 10 s (-benchtime
// 1x; ten runs are made at most) of groups whose adverts leave on a thread in real time,
// as the daemon's, idle and with every core kept busy twice over. It reports how many
// renewals found their gate closed though the permit lived (cut), the least that was left
// of one's life (least_ms), how many masterships ended because the adverts themselves were
// late (lapsed), and what the renewals take of a processor.
func BenchmarkFenceHolds(b *testing.B) {
	const maxRuns, each = 10, 10 * time.Second
	for _, busy := range []bool{false, true} {
		for _, down := range []time.Duration{60 * ms, 90 * ms, 120 * ms, 300 * ms} {
			for _, gates := range []int{1, 255} {
				b.Run(fmt.Sprintf("busy=%v/down=%v/gates=%d", busy, down, gates), func(b *testing.B) {
					var all vip.GatesStats
					used, lapsed := time.Duration(0), int64(0)
					for n := range min(b.N, maxRuns) {
						s, cpu, late := holds(b, down, gates, busy, each)
						if all.Cut, all.Renewals, used, lapsed = all.Cut+s.Cut, all.Renewals+s.Renewals, used+cpu, lapsed+late; n == 0 || s.Least < all.Least {
							all.Least = s.Least
						}
					}
					b.ReportMetric(float64(lapsed), "lapsed")
					b.ReportMetric(float64(all.Cut), "cut")
					b.ReportMetric(float64(all.Renewals)/each.Seconds()/float64(min(b.N, maxRuns)), "renewals/s")
					b.ReportMetric(float64(all.Least.Microseconds())/1000, "least_ms")
					b.ReportMetric(100*used.Seconds()/each.Seconds()/float64(min(b.N, maxRuns)), "cpu_%")
					b.ReportMetric(0, "ns/op")
				})
			}
		}
	}
}

// holds runs sets behind gates as masters for a time, and returns what their gates met,
// the processor time of the thread that renews them, and how many sets lapsed.
func holds(b *testing.B, down time.Duration, count int, busy bool, length time.Duration) (stats vip.GatesStats, used time.Duration, lapsed int64) {
	lan := lab.New(b)
	h := lan.Host("a", "192.0.2.1/24")
	f := fenceOn(b, h, vip.OpenFence)
	defer f.Close()
	k := openOn(b, h)
	gates := vip.NewGates(f, nil, func(e vip.GatesEvent) { b.Errorf("%s: %v", e.Text, e.Err) })
	waiter, err := link.OpenWaiter()
	if err != nil {
		b.Fatal(err)
	}
	defer waiter.Close()
	gates.WaitWith(waiter)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(runtime.NumCPU() + 2)) // as the daemon has it
	ctx, stop := context.WithCancel(context.Background())
	var all sync.WaitGroup
	defer all.Wait()
	defer stop()
	var late atomic.Int64
	ran := make(chan struct{})
	go func() {
		defer close(ran)
		runtime.LockOSThread()
		_ = link.RealTime()
		gates.Run(ctx)
		var t unix.Timespec
		_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t)
		used = time.Duration(t.Nano())
	}()
	working, stopWork := context.WithCancel(context.Background())
	sets := make([]*vip.Set, count)
	for i := range sets {
		sets[i] = vip.New(k, vip.Config{Interface: "eth0", VHID: uint8(i), Fence: gates, Lease: vip.FencedLease(0),
			Observe: func(e vip.Event) {
				if e.Kind == vip.EventLapsed {
					late.Add(1)
				}
			},
			Addresses: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 32)}})
		all.Go(func() { _ = sets[i].Run(working) })
	}
	permit := func() {
		until := bootTime().Add(down - min(100*ms, down/10))
		for _, s := range sets {
			s.Permit(carp.Permit{Epoch: 1, Until: until})
		}
	}
	var loop sync.WaitGroup
	loop.Go(func() { adverts(ctx, down/3, permit) })
	var up sync.WaitGroup
	for _, s := range sets {
		up.Go(func() {
			if err := s.Up(ctx, 1); err != nil {
				late.Add(1)
			}
		})
	}
	up.Wait()
	if busy {
		defer burn(h)()
	}
	<-time.After(length)
	stats, lapsed = gates.Stats(), late.Load()
	stopWork()
	for _, s := range sets {
		_ = s.Down(context.Background())
	}
	stop()
	loop.Wait()
	<-ran
	return stats, used, lapsed
}

// adverts calls f each interval, on a thread that goes before others as the loop's does.
func adverts(ctx context.Context, interval time.Duration, f func()) {
	runtime.LockOSThread()
	_ = link.RealTime()
	var at unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &at)
	for ctx.Err() == nil {
		f()
		at = unix.NsecToTimespec(at.Nano() + int64(interval))
		for unix.ClockNanosleep(unix.CLOCK_MONOTONIC, unix.TIMER_ABSTIME, &at, nil) == unix.EINTR {
		}
	}
}

// burn keeps every core busy twice over with other processes, a minute at most.
func burn(h *lab.Host) (stop func()) {
	var all []*lab.Proc
	for range 2 * runtime.NumCPU() {
		all = append(all, h.Start(exec.Command("timeout", "60", "sh", "-c", "while :; do :; done")))
	}
	return func() {
		for _, p := range all {
			p.Signal(syscall.SIGTERM)
		}
	}
}
