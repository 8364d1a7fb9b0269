package main_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/carpd/carpd/carp"
)

// junk is one kind of packets that nobody should mind. It makes the nth frame.
type junk struct {
	name string
	make func(n int) []byte
	drop carp.Drop // what the CARP instance counts them as; Accepted: the kernel has dropped them
}

// junkFrom is a source that no node has, another one for each packet of many.
func junkFrom(n int) carp.Local {
	return carp.Local{IPv4: netip.AddrFrom4([4]byte{192, 0, 2, byte(100 + n%100)})}
}

// junkAdvert is a frame with an advert of CARP or VRRP, in turn, whose digest or
// checksum is not worth anything, and which is the best there can be otherwise.
func junkAdvert(n int, carpID, vrrpID uint8, change func(payload []byte) []byte) []byte {
	group := netip.AddrFrom4([4]byte{224, 0, 0, 18})
	if n%2 == 0 {
		a := carp.NewAdvert(carpID, 1, 0)
		a.Counter = rand.Uint64()
		binary.BigEndian.PutUint64(a.Digest[:], rand.Uint64())
		f := carp.Frame{VHID: carpID, Dst: group, Payload: change(a.Append(nil))}
		return carp.AppendFrame(nil, carp.VirtualMAC(carpID), junkFrom(n), f, carp.IPHeader{TOS: 0x10})
	}
	payload := []byte{0x31, vrrpID, 255, 1, 0, 10, byte(n), byte(n >> 8), 192, 0, 2, 60}
	f := carp.Frame{VHID: vrrpID, Dst: group, Payload: change(payload)}
	return carp.AppendFrame(nil, carp.VirtualMAC(vrrpID), junkFrom(n), f, carp.IPHeader{TOS: 0xc0})
}

func same(b []byte) []byte { return b }

// ttl sets the TTL of a frame over IPv4 and mends the header's checksum.
func ttl(frame []byte, ttl byte) []byte {
	sum := uint32(^binary.BigEndian.Uint16(frame[24:])) + uint32(^(uint16(frame[22]) << 8)) + uint32(ttl)<<8
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	frame[22] = ttl
	binary.BigEndian.PutUint16(frame[24:], ^uint16(sum))
	return frame
}

var junks = []junk{ // never changed
	{"bad TTL", func(n int) []byte { return ttl(junkAdvert(n, carpID, vrrpID, same), 254) }, carp.DropTTL},
	{"another vhid", func(n int) []byte { return junkAdvert(n, 77, 78, same) }, carp.Accepted},
	{"bad HMAC", func(n int) []byte { return junkAdvert(n, carpID, vrrpID, same) }, carp.DropHash},
	{"wrong length", func(n int) []byte {
		return junkAdvert(n, carpID, vrrpID, func(b []byte) []byte { return b[:10] })
	}, carp.DropLength},
	{"broadcast", func(n int) []byte {
		frame := append([]byte{255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 9, byte(n), byte(n >> 8)}, make([]byte, 46)...)
		for i := 14; i < len(frame); i++ {
			frame[i] = byte(rand.Uint32())
		}
		return frame
	}, carp.Accepted},
}

// junkVariety is how many different frames of a kind there are.
const junkVariety = 512

// junkRate is how many are sent a second, if this machine can. A daemon that looks for
// races takes ten times as long for each.
func junkRate() int {
	if raceDetector {
		return 10_000
	}
	return 100_000
}

// flood sends frames until ctx ends, at junkRate and not more than that for twice
// strained. It returns how many it sent.
func (s *straits) flood(ctx context.Context, frames [][]byte) (sent int) {
	s.t.Helper()
	return inject(ctx, s.t, s.stranger, frames, junkRate(), int(2*strained.Seconds())*junkRate())
}

// TestFloodOfJunkDelaysNoAdvertAndDeposesNobody sends up to 100 000 packets a second
// of each kind that is refused, for a few seconds.
func TestFloodOfJunkDelaysNoAdvertAndDeposesNobody(t *testing.T) {
	s := newStraits(t)
	s.elect(nil, s.text(0, 200))
	for _, j := range junks {
		frames := make([][]byte, junkVariety)
		for n := range frames {
			frames[n] = j.make(n)
		}
		before := s.b.counted()
		s.keepsPace(j.name, func(ctx context.Context) {
			began, cpu := time.Now(), s.b.cpu()
			sent := s.flood(ctx, frames)
			took := time.Since(began)
			t.Logf("%s: %d packets, %.0f a second; b used %.0f %% of a core", j.name, sent, float64(sent)/took.Seconds(), 100*float64(s.b.cpu()-cpu)/float64(took))
		})
		after := s.b.counted()
		for name, n := range after {
			if more := n - before[name]; more > 0 {
				t.Logf("%s: b counted %d as %s", j.name, more, name)
			}
		}
		if name := j.drop.String(); j.drop != carp.Accepted && after[name] == before[name] {
			t.Errorf("%s: b has counted none as %s", j.name, name)
		}
		if j.drop == carp.Accepted && sum(after) > sum(before) {
			t.Errorf("%s: the daemon was given packets for nobody: %v before, %v after", j.name, before, after)
		}
	}
}

// cpu is the run time of a node's daemon, good to 10 ms.
func (n *node) cpu() time.Duration {
	n.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", n.proc.Pid))
	if err != nil {
		n.t.Fatal(err)
	}
	var user, system int64
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if _, err := fmt.Sscan(fields[11]+" "+fields[12], &user, &system); err != nil {
		n.t.Fatal(err)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}

func sum(counts map[string]uint64) (all uint64) {
	for _, n := range counts {
		all += n
	}
	return all
}

// counted adds up what all instances of a node have refused, by name.
func (n *node) counted() map[string]uint64 {
	n.t.Helper()
	all := map[string]uint64{}
	for _, i := range n.status().Instances {
		for name, count := range i.Drops {
			all[name] += count
		}
	}
	return all
}
