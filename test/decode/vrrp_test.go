package decode_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"

	"github.com/carpd/carpd/test/decode"
)

var vrrpLine = regexp.MustCompile(`(?m)^ *(\d+) .*\| (VRRP version 3 .*)$`)

// describe says of an advert what the files say of theirs.
func describe(v *decode.VRRPv3, sum string) string {
	s := fmt.Sprintf("VRRP version %d type %d vrid %d priority %d count %d interval %d cs checksum 0x%04x (%s) addresses",
		v.Version, v.Type, v.VRID, v.Priority, v.Count, v.Interval, v.Checksum, sum)
	for _, a := range v.Addresses {
		s += " " + a.String()
	}
	return s
}

var sums = map[decode.Sum]string{
	decode.SumPseudo: "right with pseudo-header",
	decode.SumPlain:  "right without pseudo-header",
	// The one wrong form that is known: see vrrp3-ipv4-unicast-oldsum.
	decode.SumWrong: "right with a pseudo-header whose destination is 224.0.0.18",
}

func TestEveryCapturedVRRPv3AdvertDecodesAsItsFileSays(t *testing.T) {
	total := 0
	for name, all := range frames(t, vrrp3Vectors) {
		said := said(t, name, vrrpLine)
		for i, f := range all {
			p := decode.Packet(f, decode.VRRPV3)
			v, ok := p.Layer(decode.LayerTypeVRRPv3).(*decode.VRRPv3)
			want, is := said[i+1]
			if ok != is {
				t.Errorf("%s, frame %d: is an advert: %v, the file says %v (%v)", name, i+1, ok, is, p.ErrorLayer())
			}
			if !ok || !is {
				continue
			}
			total++
			if got := describe(v, sums[v.Sum()]); got != want {
				t.Errorf("%s, frame %d:\n got %s\nwant %s", name, i+1, got, want)
			}
		}
	}
	if total < 100 {
		t.Errorf("%d adverts: some are not read", total)
	}
}

func TestVRRPv3IntervalHasTwelveBits(t *testing.T) {
	for name, want := range map[string]time.Duration{
		"vrrp3-ipv4-interval-10ms": 10 * time.Millisecond, "vrrp3-ipv4-interval-40.95s": 40950 * time.Millisecond, "vrrp3-ipv6": time.Second,
	} {
		for _, f := range frames(t, vectors+name+".txt")[name] {
			if v, ok := decode.Packet(f, decode.VRRPV3).Layer(decode.LayerTypeVRRPv3).(*decode.VRRPv3); ok && v.MaxInterval() != want {
				t.Errorf("%s: %v, want %v", name, v.MaxInterval(), want)
			}
		}
	}
}

func TestTruncatedVRRPv3IsAnErrorAndNoPanic(t *testing.T) {
	for name, all := range frames(t, vrrp3Vectors) {
		frame := all[len(all)-1]
		for n := range frame {
			if p := decode.Packet(frame[:n], decode.VRRPV3); p.Layer(decode.LayerTypeVRRPv3) != nil {
				t.Errorf("%s: the first %d of %d bytes are an advert", name, n, len(frame))
			}
			var v decode.VRRPv3 // directly, and without a source address
			if v.DecodeFromBytes(frame[:n], gopacket.NilDecodeFeedback) == nil {
				t.Errorf("%s: an advert of no family", name)
			}
		}
	}
}

// What is not of version 3 is refused, not guessed at.
func TestCARPIsNoVRRPv3(t *testing.T) {
	for name, all := range frames(t, carpVectors) {
		if strings.Contains(name, "oracle") || strings.HasPrefix(name, "vrrp") {
			continue // the oracle has one of version 3
		}
		for i, f := range all {
			if decode.Packet(f, decode.VRRPV3).Layer(decode.LayerTypeVRRPv3) != nil {
				t.Errorf("%s, frame %d was read as VRRPv3", name, i+1)
			}
		}
	}
}
