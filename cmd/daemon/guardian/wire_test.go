package guardian

import (
	"bytes"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/carpd/carpd/carp/link"
)

func messages() []message {
	return []message{
		{kind: kindHello},
		{kind: kindHello, text: "/sys/fs/cgroup/system.slice/carpd.service/carpd-hooks-7"},
		{kind: kindReady},
		{kind: kindReport, text: "said"},
		{kind: kindForget, slot: maxSlots - 1, generation: 1 << 40},
		{kind: kindWard, slot: 3, generation: 2, about: About{
			Name: "9@eth0", Permit: 2900 * time.Millisecond, Margin: 100 * time.Millisecond,
			BowOuts: []link.Parcel{
				{Index: 2, Data: bytes.Repeat([]byte{1, 2}, 45)},
				{Index: 2, Src: netip.MustParseAddr("192.0.2.1"), Dst: netip.MustParseAddr("192.0.2.2"), TOS: 0x10, Data: []byte{0x21, 9}},
				{Index: 2, Dst: netip.MustParseAddr("fe80::2"), Data: []byte{0x21}},
			},
		}},
		{kind: kindPlace, slot: 3, generation: 2, place: place{index: 7}},
		{kind: kindPlace, slot: 3, generation: 2, place: place{2, []netip.Prefix{
			netip.MustParsePrefix("192.0.2.50/32"), netip.MustParsePrefix("192.0.2.51/32"), netip.MustParsePrefix("192.0.2.52/24"),
			netip.MustParsePrefix("2001:db8::50/64"), netip.MustParsePrefix("192.0.2.53/24"),
		}}},
	}
}

func TestAMessageComesThroughAsItWas(t *testing.T) {
	for _, m := range messages() {
		b, err := m.encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := decode(b)
		if err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("%+v: came through as %+v, %v", m, got, err)
		}
	}
}

func TestAMessageThatIsCutIsRefused(t *testing.T) {
	for _, m := range messages() {
		b, err := m.encode()
		if err != nil {
			t.Fatal(err)
		}
		for n := range b {
			if got, err := decode(b[:n]); err == nil {
				t.Errorf("%c: the first %d of %d bytes were taken for %+v", m.kind, n, len(b), got)
			}
		}
		if _, err := decode(append(b, 0)); err == nil {
			t.Errorf("%c: a byte more was taken", m.kind)
		}
	}
}

// The most that one instance can be: 10 000 addresses in forms that alternate, 32 peers
// on each of five paths, three old passphrases.
func TestTheLargestInstanceFits(t *testing.T) {
	var where place
	for n := range 10_000 {
		where.prefixes = append(where.prefixes, netip.PrefixFrom(netip.MustParseAddr("2001:db8:0:1:2:3:4:5"), 128-n%2))
	}
	if b, err := (&message{kind: kindPlace, place: where}).encode(); err != nil {
		t.Error(err)
	} else if got, err := decode(b); err != nil || !reflect.DeepEqual(got.place, where) {
		t.Errorf("%d addresses came through as %d, %v", len(where.prefixes), len(got.place.prefixes), err)
	}
	a := About{Name: strings.Repeat("n", 64)}
	for range 4 * 5 * 32 {
		a.BowOuts = append(a.BowOuts, link.Parcel{Src: netip.IPv6Loopback(), Dst: netip.IPv6Loopback(), Data: make([]byte, 36)})
	}
	if _, err := (&message{kind: kindWard, about: a}).encode(); err != nil {
		t.Error(err)
	}
	a.BowOuts = append(a.BowOuts, link.Parcel{Data: make([]byte, maxMessage)})
	if _, err := (&message{kind: kindWard, about: a}).encode(); err == nil {
		t.Error("a message that is too long was made")
	}
}

func FuzzDecode(f *testing.F) {
	for _, m := range messages() {
		b, err := m.encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{byte(kindPlace), 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 4, 33, 0, 1, 1, 2, 3, 4})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decode(b)
		if err != nil {
			return
		}
		again, err := m.encode()
		if err != nil {
			t.Fatal(err)
		}
		if n, err := decode(again); err != nil || !reflect.DeepEqual(n, m) {
			t.Errorf("%+v came through as %+v, %v", m, n, err)
		}
	})
}
