package decode_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"regexp"
	"testing"

	"github.com/google/gopacket"

	"github.com/carpd/carpd/test/decode"
)

var vrrp2Line = regexp.MustCompile(`(?m)^ *(\d+) .*\| (VRRP version 2 .*)$`)

// describe2 says of an advert what the files say of theirs. A checksum is the same
// without authentication data if these are zero; the files say so.
func describe2(v *decode.VRRPv2) string {
	sum := map[decode.Sum]string{decode.SumPlain: "right without pseudo-header", decode.SumWrong: "wrong"}[v.Sum()]
	if v.Auth == [8]byte{} {
		sum += ", without the authentication data"
	}
	s := fmt.Sprintf("VRRP version %d type %d vrid %d priority %d count %d auth type %d interval %d s checksum 0x%04x (%s) addresses",
		v.Version, v.Type, v.VRID, v.Priority, v.Count, v.AuthType, v.Interval, v.Checksum, sum)
	for _, a := range v.Addresses {
		s += " " + a.String()
	}
	return s + fmt.Sprintf(" trailing %x", v.Auth)
}

func TestEveryCapturedVRRPv2AdvertDecodesAsItsFileSays(t *testing.T) {
	total, behind := 0, 0
	for name, all := range frames(t, vrrp2Vectors) {
		said := said(t, name, vrrp2Line)
		for i, f := range all {
			p := decode.Packet(f, decode.VRRPV2)
			v, ok := p.Layer(decode.LayerTypeVRRPv2).(*decode.VRRPv2)
			want, is := said[i+1]
			if ok != is {
				t.Errorf("%s, frame %d: is an advert: %v, the file says %v (%v)", name, i+1, ok, is, p.ErrorLayer())
			}
			if !ok || !is {
				continue
			}
			total++
			if ah := p.Layer(decode.LayerTypeAH); ah != nil {
				behind++
			}
			if got := describe2(v); got != want {
				t.Errorf("%s, frame %d:\n got %s\nwant %s", name, i+1, got, want)
			}
		}
	}
	if total < 60 || behind < 8 {
		t.Errorf("%d adverts, %d of them behind an authentication header: some are not read", total, behind)
	}
}

func TestTruncatedVRRPv2IsAnErrorAndNoPanic(t *testing.T) {
	for name, all := range frames(t, vrrp2Vectors) {
		for n := range all[0] {
			if decode.Packet(all[0][:n], decode.VRRPV2).Layer(decode.LayerTypeVRRPv2) != nil {
				t.Errorf("%s: the first %d of %d bytes are an advert", name, n, len(all[0]))
			}
		}
	}
}

// What is made of an advert's fields are the bytes that they were read from.
func TestSerializedVRRPIsTheCaptureByteForByte(t *testing.T) {
	opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	total := 0
	for name, all := range frames(t, vectors+"vrrp*.txt") {
		for i, f := range all {
			var again gopacket.SerializableLayer
			var contents []byte
			if v, ok := decode.Packet(f, decode.VRRPV2).Layer(decode.LayerTypeVRRPv2).(*decode.VRRPv2); ok {
				again, contents = v, bytes.Clone(v.Contents)
			} else if v, ok := decode.Packet(f, decode.VRRPV3).Layer(decode.LayerTypeVRRPv3).(*decode.VRRPv3); ok {
				switch v.Sum() {
				case decode.SumPlain:
					v.Src, v.Dst = netip.Addr{}, netip.Addr{}
				case decode.SumWrong:
					v.Dst = netip.AddrFrom4([4]byte{224, 0, 0, 18}) // the one form that is known
				}
				again, contents = v, bytes.Clone(v.Contents)
			} else {
				continue
			}
			total++
			b := gopacket.NewSerializeBuffer()
			if err := again.SerializeTo(b, opts); err != nil || !bytes.Equal(b.Bytes(), contents) {
				t.Errorf("%s, frame %d: %v\n got %x\nwant %x", name, i+1, err, b.Bytes(), contents)
			}
		}
	}
	if total < 150 {
		t.Errorf("%d adverts: some are not read", total)
	}
}
