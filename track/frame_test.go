package track

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"github.com/carpd/carpd/carp"
)

var (
	ownMAC  = carp.MAC{2, 0, 0, 0, 0, 5}
	hostMAC = carp.MAC{2, 0, 0, 0, 0, 1}
	own4    = netip.MustParseAddr("192.0.2.5")
	host4   = netip.MustParseAddr("192.0.2.1")
	own6    = netip.MustParseAddr("fe80::5")
	host6   = netip.MustParseAddr("2001:db8::1:2:3")
)

func bytesOf(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestRequestsAreThoseOfTheStandards(t *testing.T) {
	for _, c := range []struct {
		name           string
		to             carp.MAC
		source, target netip.Addr
		want           string
	}{
		{"ARP", carp.MAC{}, own4, host4,
			"ffffffffffff 020000000005 0806 0001 0800 0604 0001 020000000005 c0000205 000000000000 c0000201"},
		{"ARP without an address (RFC 5227, 1.1)", carp.MAC{}, netip.Addr{}, host4,
			"ffffffffffff 020000000005 0806 0001 0800 0604 0001 020000000005 00000000 000000000000 c0000201"},
		{"ARP to one host", hostMAC, own4, host4,
			"020000000001 020000000005 0806 0001 0800 0604 0001 020000000005 c0000205 000000000000 c0000201"},
		{"neighbour solicitation", carp.MAC{}, own6, host6,
			"3333ff020003 020000000005 86dd 60000000 0020 3a ff fe800000000000000000000000000005 ff0200000000000000000001ff020003" +
				"87 00 bc31 00000000 20010db8000000000000000100020003 0101 020000000005"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := appendRequest(nil, ownMAC, c.to, c.source, c.target)
			want := bytesOf(t, c.want)
			if c.target.Is6() { // the checksum by its definition: the sum of all is 0xffff
				if sum := icmpSum(own6.As16(), [16]byte(want[38:54]), got[54:]); sum != 0xffff {
					t.Errorf("the message sums to %04x", sum)
				}
				copy(want[56:58], got[56:58])
			}
			if !bytes.Equal(got, want) {
				t.Errorf("\n got %x\nwant %x", got, want)
			}
		})
	}
}

// reply4 and advert6 are what the host answers.
func reply4() []byte {
	b := append(append([]byte{}, ownMAC[:]...), hostMAC[:]...)
	b = append(b, 0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 2)
	b = append(append(b, hostMAC[:]...), 192, 0, 2, 1)
	return append(append(b, ownMAC[:]...), 192, 0, 2, 5)
}

func advert6() []byte {
	src, dst := host6.As16(), own6.As16()
	b := append(append([]byte{}, ownMAC[:]...), hostMAC[:]...)
	b = append(b, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, 58, 255)
	b = append(append(b, src[:]...), dst[:]...)
	b = append(b, 136, 0, 0, 0, 0x60, 0, 0, 0)
	b = append(append(b, src[:]...), 2, 1)
	b = append(b, hostMAC[:]...)
	binary.BigEndian.PutUint16(b[56:], ^icmpSum(src, dst, b[54:]))
	return b
}

func TestOnlyTheHostsAnswerToUsCounts(t *testing.T) {
	change := func(b []byte, at int, to ...byte) []byte { copy(b[at:], to); return b }
	for _, c := range []struct {
		name   string
		frame  []byte
		target netip.Addr
		want   bool
	}{
		{"ARP reply", reply4(), host4, true},
		{"with Ethernet padding", append(reply4(), make([]byte, 18)...), host4, true},
		{"of another host", change(reply4(), 31, 9), host4, false},
		{"gratuitous, to everybody", change(reply4(), 0, 255, 255, 255, 255, 255, 255), host4, false},
		{"to another one's MAC within", change(reply4(), 32, 2, 0, 0, 0, 0, 9), host4, false},
		{"a request", change(reply4(), 21, 1), host4, false},
		{"of another network", change(reply4(), 15, 6), host4, false},
		{"asked for IPv6", reply4(), host6, false},
		{"neighbour advertisement", advert6(), host6, true},
		{"of another target", change(advert6(), 77, 9), host6, false},
		{"with a hop limit of 64", change(advert6(), 21, 64), host6, false},
		{"with a wrong checksum", change(advert6(), 57, 1, 1), host6, false},
		{"a solicitation", change(advert6(), 54, 135), host6, false},
		{"longer than the frame", change(advert6(), 19, 200), host6, false},
		{"asked for IPv4", advert6(), host4, false},
		{"nothing", nil, host4, false},
	} {
		from, ok := answers(c.frame, ownMAC, c.target)
		if ok != c.want || ok && from != hostMAC {
			t.Errorf("%s: %v from %v, want %v", c.name, ok, from, c.want)
		}
	}
	for _, whole := range [][]byte{reply4(), advert6()} {
		for n := range whole {
			if _, ok := answers(whole[:n], ownMAC, host4); ok {
				t.Errorf("%d of %d bytes count as an answer", n, len(whole))
			}
			if _, ok := answers(whole[:n], ownMAC, host6); ok {
				t.Errorf("%d of %d bytes count as an answer", n, len(whole))
			}
		}
	}
}

func FuzzAnswers(f *testing.F) {
	f.Add(reply4())
	f.Add(advert6())
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, target := range []netip.Addr{host4, host6} {
			if from, ok := answers(b, ownMAC, target); ok && (carp.MAC(b[:6]) != ownMAC || carp.MAC(b[6:12]) != from) {
				t.Errorf("%x counts as an answer of %v", b, target)
			}
		}
	})
}

func TestSourceIsTheAddressInTheHostsSubnet(t *testing.T) {
	addr := netip.MustParseAddr
	own := []netip.Addr{addr("10.0.0.5"), addr("fe80::5"), addr("192.0.2.5"), addr("2001:db8::5"), addr("2001:db8:1::5")}
	for target, want := range map[string]string{
		"192.0.2.1": "192.0.2.5", "10.1.0.1": "10.0.0.5", "2001:db8::1": "2001:db8::5", "2001:db8:1::1": "2001:db8:1::5", "fe80::1": "fe80::5",
	} {
		if got := sourceFor(own, addr(target)); got != addr(want) {
			t.Errorf("%s is asked from %v, want %s", target, got, want)
		}
	}
	if got := sourceFor(own[:2], addr("2001:db8::1")); got != addr("fe80::5") {
		t.Errorf("without a global address: from %v", got)
	}
	if got := sourceFor(own[1:2], addr("192.0.2.1")); got.IsValid() {
		t.Errorf("without an IPv4 address: from %v", got)
	}
}
