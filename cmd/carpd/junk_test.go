package main_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/test/lab"
)

// refused is a kind of packet that must touch no timer, and by what name it is counted.
type refused struct {
	name string
	drop carp.Drop // Accepted: the link keeps it back
	make func(n int) []byte
}

// strangerAt is a source that no node has.
var strangerAt = carp.Local{IPv4: netip.MustParseAddr("192.0.2.77"), IPv6: netip.MustParseAddr("fe80::77")}

// frameOf is an advert as it is on the wire, to the group of its family.
func frameOf(protocol carp.Protocol, from carp.Local, f carp.Family, payload []byte) []byte {
	return carp.AppendFrame(nil, carp.VirtualMAC(9), from, carp.Frame{VHID: 9, Dst: carp.Group(f), Payload: payload}, carp.IPHeader{TOS: 0x10})
}

// carpRefused are of a master better than any, but for one fault each.
func carpRefused() []refused {
	digest := carp.NewDigest(9, []byte("a secret"), []netip.Addr{shared4}, carp.DigestOptions{})
	advert := func() []byte {
		a := carp.NewAdvert(9, 1, 0)
		a.Counter = rand.Uint64()
		a.Digest = digest.Sum(a.Counter)
		return a.Append(nil)
	}
	from := func(src string) func(int) []byte {
		return func(int) []byte {
			return frameOf(carp.CARP, carp.Local{IPv4: netip.MustParseAddr(src)}, carp.IPv4, advert())
		}
	}
	changed := func(change func([]byte) []byte) func(int) []byte {
		return func(int) []byte { return frameOf(carp.CARP, strangerAt, carp.IPv4, change(advert())) }
	}
	summed := func(change func([]byte)) func(int) []byte {
		return changed(func(b []byte) []byte {
			change(b)
			b[6], b[7] = 0, 0
			binary.BigEndian.PutUint16(b[6:], internetSum(b))
			return b
		})
	}
	return []refused{
		{"ttl", carp.DropTTL, func(int) []byte { return ttl(frameOf(carp.CARP, strangerAt, carp.IPv4, advert()), 254) }},
		{"source 127.0.0.1", carp.DropSource, from("127.0.0.1")},
		{"source 224.0.0.18", carp.DropSource, from("224.0.0.18")},
		{"length", carp.DropLength, changed(func(b []byte) []byte { return b[:20] })},
		{"checksum", carp.DropChecksum, changed(func(b []byte) []byte { b[7] ^= 1; return b })},
		{"version", carp.DropVersion, summed(func(b []byte) { b[0] = 0x41 })},
		{"vrrp", carp.DropProtocol, changed(func([]byte) []byte { return vrrpAdvert(2, 9, 255, "192.0.2.50") })},
		{"vhid", carp.Accepted, summed(func(b []byte) { b[1] = 10 })},
		{"family", carp.DropFamily, func(int) []byte { return frameOf(carp.CARP, strangerAt, carp.IPv6, advert()) }},
		{"hash", carp.DropHash, summed(func(b []byte) { b[35] ^= 1 })},
		{"fragment", carp.DropFrame, func(int) []byte { return fragment(frameOf(carp.CARP, strangerAt, carp.IPv4, advert())) }},
	}
}

// vrrpAdvert is one of version 2 or 3 with the greatest priority.
func vrrpAdvert(version, id, priority uint8, addrs ...string) []byte {
	var list []netip.Addr
	for _, a := range addrs {
		list = append(list, netip.MustParseAddr(a))
	}
	every := time.Second
	if version == 3 {
		every = fast
	}
	a := carp.NewVRRPAdvert(version, id, priority, every, list)
	a.Sum = carp.ChecksumRFC9568
	return a.Append(nil, strangerAt.IPv4, carp.Group(carp.IPv4))
}

func vrrpRefused() []refused {
	changed := func(change func([]byte) []byte) func(int) []byte {
		return func(int) []byte {
			return frameOf(carp.VRRP3, strangerAt, carp.IPv4, change(vrrpAdvert(3, 9, 255, "192.0.2.50")))
		}
	}
	summed := func(change func([]byte)) func(int) []byte {
		return changed(func(b []byte) []byte {
			change(b)
			b[6], b[7] = 0, 0
			binary.BigEndian.PutUint16(b[6:], internetSum(b))
			return b
		})
	}
	from := func(src string) func(int) []byte {
		return func(int) []byte {
			return frameOf(carp.VRRP3, carp.Local{IPv4: netip.MustParseAddr(src)}, carp.IPv4, vrrpAdvert(3, 9, 255, "192.0.2.50"))
		}
	}
	good := changed(func(b []byte) []byte { return b })
	return []refused{
		{"ttl", carp.DropTTL, func(n int) []byte { return ttl(good(n), 254) }},
		{"source 127.0.0.1", carp.DropSource, from("127.0.0.1")},
		{"source 224.0.0.18", carp.DropSource, from("224.0.0.18")},
		{"length", carp.DropLength, changed(func(b []byte) []byte { return b[:10] })},
		{"checksum", carp.DropChecksum, changed(func(b []byte) []byte { b[7] ^= 1; return b })},
		{"version", carp.Accepted, summed(func(b []byte) { b[0] = 0x41 })}, // of nobody here
		{"carp", carp.DropProtocol, changed(func([]byte) []byte { a := carp.NewAdvert(9, 1, 0); return a.Append(nil) })},
		{"vrid", carp.Accepted, summed(func(b []byte) { b[1] = 10 })},
		{"another router", carp.DropForeign, changed(func([]byte) []byte { return vrrpAdvert(3, 9, 255, "192.0.2.99") })},
		{"interval 0", carp.DropInterval, summed(func(b []byte) { b[4], b[5] = 0, 0 })},
		{"fragment", carp.DropFrame, func(n int) []byte { return fragment(good(n)) }},
	}
}

// fragment makes a frame over IPv4 the first of several fragments.
func fragment(frame []byte) []byte {
	const header = 14
	frame[header+6], frame[header+10], frame[header+11] = 0x20, 0, 0
	binary.BigEndian.PutUint16(frame[header+10:], internetSum(frame[header:header+20]))
	return frame
}

// internetSum is the Internet checksum (RFC 1071) of an even number of bytes.
func internetSum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// TestRefusedPacketsKeepNoBackupWaitingAndSilenceNoMaster sends packets of every kind
// of refusal, each twice a second or all together 20 000 times, to a master and its
// backup. The master goes on as ever; then it dies in silence, and the backup takes
// over when it would have done so anyway. Two refused packets a second keep a backup
// of other software waiting, and silence a master.
func TestRefusedPacketsKeepNoBackupWaitingAndSilenceNoMaster(t *testing.T) {
	for name, kinds := range map[string][]refused{"carp": carpRefused(), "vrrp3": vrrpRefused()} {
		for _, rate := range []int{2 * len(kinds), 20_000} {
			t.Run(fmt.Sprintf("%s, %d a second", name, rate), func(t *testing.T) {
				if rate < 1000 {
					t.Parallel()
				} else if raceDetector {
					t.Skip("the daemon as it is delivered: the race detector makes it ten times slower")
				}
				refusedPackets(t, name, kinds, rate)
			})
		}
	}
}

func refusedPackets(t *testing.T, protocol string, kinds []refused, rate int) {
	lan := lab.New(t)
	p := &pair{lan: lan, a: newNode(t, lan, "a", "192.0.2.1/24"), b: newNode(t, lan, "b", "192.0.2.2/24")}
	p.client = lan.Host("client", "192.0.2.9/24")
	stranger := lan.Host("stranger", "192.0.2.77/24")
	hearA, hearB := listen(t, p.client, [4]byte{192, 0, 2, 1}), listen(t, p.client, [4]byte{192, 0, 2, 2})
	every, down := time.Second, 3*time.Second+100*time.Second/256
	if protocol == "carp" {
		p.elect(settings{addresses: []string{"192.0.2.50/24"}}, settings{addresses: []string{"192.0.2.50/24"}, advskew: 100})
	} else {
		every, down = fast, 3*fast+(256-100)*fast/256
		p.route(router{}.with(200), router{}.with(100))
	}
	var frames [][]byte
	for n := range 16 {
		for _, k := range kinds {
			frames = append(frames, k.make(n))
		}
	}
	before, seq := p.b.counted(), p.b.seq()

	ctx, stop := context.WithCancel(t.Context())
	var sending sync.WaitGroup
	sent := 0
	sending.Go(func() { sent = inject(ctx, t, stranger, frames, rate, 20*rate) })
	defer sending.Wait()
	defer stop()

	mark := hearA.mark()
	const watched = 6
	lab.Eventually(t, takeover, "a to have sent for a while", func() bool { return hearA.gaps(mark, 9).n >= watched })
	pace := hearA.gaps(mark, 9).max
	if pace > every+lateAdvert-time.Second {
		t.Errorf("adverts of the master were %v apart", pace)
	}
	if moved := p.b.transitions(seq); len(moved) > 0 {
		t.Errorf("b moved: %+v", moved)
	}
	p.a.Unplug()
	lab.Eventually(t, takeover, "b to take over", func() bool { return hearB.last(9).After(hearA.last(9)) })
	silence := hearB.first(9, hearA.last(9)).Sub(hearA.last(9))
	if early, late := down-50*time.Millisecond, down+lateAdvert-time.Second; silence < early || silence > late {
		t.Errorf("b took over %v after the last advert, %v is its time", silence, down)
	}
	stop()
	sending.Wait()
	after := p.b.counted()
	for _, k := range kinds {
		if name := k.drop.String(); k.drop != carp.Accepted && after[name] == before[name] {
			t.Errorf("%s: b has counted none as %s of %v", k.name, name, slices.Sorted(maps.Keys(after)))
		}
	}
	t.Logf("%d packets; the master's adverts at most %v apart; b took over %v after the last one, due after %v", sent, pace, silence, down)
}

// last is when the last advert of an id was heard, and first the first after an instant.
func (e *ear) last(id uint8) time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	if all := e.heard[id]; len(all) > 0 {
		return all[len(all)-1]
	}
	return time.Time{}
}

func (e *ear) first(id uint8, after time.Time) time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, at := range e.heard[id] {
		if at.After(after) {
			return at
		}
	}
	return time.Time{}
}

// inject sends frames from a host, in turn, at a rate, until ctx ends or most are sent,
// and returns how many it sent.
func inject(ctx context.Context, t *testing.T, h *lab.Host, frames [][]byte, rate, most int) (sent int) {
	t.Helper()
	err := h.DoErr(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		i, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		to := &unix.SockaddrLinklayer{Ifindex: i.Index}
		for began := time.Now(); ctx.Err() == nil && sent < most; {
			for range max(rate/1000, 1) {
				if unix.Sendto(fd, frames[sent%len(frames)], 0, to) == nil { // a full queue is no fault
					sent++
				}
			}
			if wait := time.Duration(sent)*time.Second/time.Duration(rate) - time.Since(began); wait > 0 {
				ts := unix.NsecToTimespec(int64(wait))
				_ = unix.Nanosleep(&ts, nil)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return sent
}
