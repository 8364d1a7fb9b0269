package link_test

import (
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/carp/link"
	"github.com/carpd/carpd/test/lab"
)

// BenchmarkLabReceive is what 255 virtual routers at 10 ms cost the receiver:
// 25 500 packets a second, once evenly and once as a busy master sends them, all
// at each tick. It reports the CPU time a packet takes in this process (all but
// the sender's thread, on which the kernel carries the frame to the socket's
// queue), and how long packets wait for their port.
func BenchmarkLabReceive(b *testing.B) {
	for name, burst := range map[string]int{"even": 1, "bursts": 255} {
		b.Run(name, func(b *testing.B) { benchmarkReceive(b, burst) })
	}
}

func benchmarkReceive(b *testing.B, burst int) {
	const ports, rate = 255, 25_500
	_, from, to := hosts(b)
	i := open(b, to)
	var got atomic.Int64
	var all sync.WaitGroup
	waits := make([][]time.Duration, ports)
	for n := range ports {
		l := attach(b, to, i, link.PortConfig{VHID: uint8(n + 1), IPv4: true})
		awaitUp(b, l, func(l carp.Local) bool { return l.IPv4.IsValid() })
		waits[n] = make([]time.Duration, 0, b.N/ports+1)
		all.Go(func() {
			for e := range l.Events() {
				if e.Packet != nil {
					waits[n] = append(waits[n], l.Now().Sub(e.Packet.At))
					got.Add(1)
				}
			}
		})
	}
	var sender, before, after unix.Rusage
	runtime.GC()
	b.ReportAllocs()
	b.ResetTimer()
	from.Do(func() {
		fd, to := rawSender(b)
		defer unix.Close(fd)
		frames := benchmarkFrames()
		var start, done unix.Rusage
		_ = unix.Getrusage(unix.RUSAGE_THREAD, &start)
		_ = unix.Getrusage(unix.RUSAGE_SELF, &before)
		began := time.Now()
		for n := 0; n < b.N; {
			for range burst {
				for unix.Sendto(fd, frames[n%ports], 0, to) == unix.ENOBUFS {
				}
				n++
			}
			if wait := time.Until(began.Add(time.Duration(n) * time.Second / rate)); wait > 0 {
				ts := unix.NsecToTimespec(int64(wait))
				_ = unix.Nanosleep(&ts, nil)
			}
		}
		_ = unix.Getrusage(unix.RUSAGE_THREAD, &done)
		sender = difference(start, done)
	})
	lab.Eventually(b, wait, "the packets", func() bool {
		s := i.Stats()
		return s.Received+s.KernelDropped >= uint64(b.N) && uint64(got.Load())+s.Lost >= s.Received
	})
	_ = unix.Getrusage(unix.RUSAGE_SELF, &after)
	b.StopTimer()
	dropped := i.Stats().KernelDropped
	i.Close()
	all.Wait()
	used := difference(before, after)
	cpu := used.Utime.Nano() + used.Stime.Nano() - sender.Utime.Nano() - sender.Stime.Nano()
	b.ReportMetric(float64(cpu)/float64(b.N), "cpu-ns/packet")
	sorted := slices.Concat(waits...)
	slices.Sort(sorted)
	if len(sorted) > 0 {
		b.ReportMetric(float64(sorted[len(sorted)/2].Microseconds()), "p50-us")
		b.ReportMetric(float64(sorted[len(sorted)*99/100].Microseconds()), "p99-us")
	}
	b.ReportMetric(float64(dropped), "dropped")
}

func difference(a, b unix.Rusage) (d unix.Rusage) {
	d.Utime = unix.NsecToTimeval(b.Utime.Nano() - a.Utime.Nano())
	d.Stime = unix.NsecToTimeval(b.Stime.Nano() - a.Stime.Nano())
	return d
}

// rawSender opens a packet socket on eth0 of the current namespace.
func rawSender(t testing.TB) (int, *unix.SockaddrLinklayer) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	i, err := net.InterfaceByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	return fd, &unix.SockaddrLinklayer{Ifindex: i.Index}
}

// benchmarkFrames are adverts of CARP's size, one for each vhid.
func benchmarkFrames() (frames [][]byte) {
	for n := 1; n <= 255; n++ {
		payload := advert(0)
		payload[1] = byte(n)
		frames = append(frames, carp.AppendFrame(nil, carp.VirtualMAC(byte(n)), carp.Local{IPv4: addrA},
			carp.Frame{Dst: group4, Payload: payload}, carp.IPHeader{TOS: 0x10}))
	}
	return frames
}
