package link

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/carp"
)

func packet(n byte) carp.LinkEvent {
	return carp.LinkEvent{Packet: &carp.Packet{TTL: n}}
}

func up(last byte) carp.LinkEvent {
	return carp.LinkEvent{Up: &carp.Local{IPv4: netip.AddrFrom4([4]byte{192, 0, 2, last})}}
}

var down = carp.LinkEvent{Down: true}

// shown is an event as a short word.
func shown(e carp.LinkEvent) any {
	switch {
	case e.Packet != nil:
		return int(e.Packet.TTL)
	case e.Up != nil:
		return "up " + e.Up.IPv4.String()
	case e.Down:
		return "down"
	}
	return -e.Lost
}

func TestInboxKeepsChangesAndNewestPackets(t *testing.T) {
	fill := func(from, to int) (events []carp.LinkEvent) {
		for n := from; n <= to; n++ {
			events = append(events, packet(byte(n)))
		}
		return events
	}
	join := func(parts ...[]carp.LinkEvent) (all []carp.LinkEvent) {
		for _, p := range parts {
			all = append(all, p...)
		}
		return all
	}
	one := func(e carp.LinkEvent) []carp.LinkEvent { return []carp.LinkEvent{e} }
	tests := []struct {
		name        string
		put         []carp.LinkEvent
		first, last []any
		size, lost  int
	}{
		{"nothing lost", join(one(up(1)), fill(1, 63)), []any{"up 192.0.2.1", 1}, []any{63}, 64, 0},
		{"one too many", join(one(up(1)), fill(1, 64)), []any{"up 192.0.2.1", -2, 3}, []any{63, 64}, 64, 2},
		{"many too many", join(one(up(1)), fill(1, 200)), []any{"up 192.0.2.1", -138, 139}, []any{199, 200}, 64, 138},
		{"changes become one", join(one(up(1)), fill(1, 30), one(down), one(up(2)), fill(31, 61), one(up(3))), []any{1, 2}, []any{61, "up 192.0.2.3"}, 62, 0},
		{"down survives", join(one(up(1)), fill(1, 63), one(down)), []any{1, 2}, []any{63, "down"}, 64, 0},
		{"nothing after down", join(one(up(1)), one(down), fill(1, 9)), []any{"up 192.0.2.1", "down"}, []any{"down"}, 2, 0},
		{"nothing before the first change", fill(1, 9), nil, nil, 0, 0},
		{"no news twice", join(one(up(1)), one(up(1)), one(down), one(down)), []any{"up 192.0.2.1", "down"}, nil, 2, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var lost atomic.Uint64
			b := newInbox(&lost)
			for _, e := range tt.put {
				b.put(e)
			}
			b.close()
			b.close()
			b.put(down)
			var got []any
			for e := range b.events {
				got = append(got, shown(e))
			}
			if len(got) != tt.size || int(lost.Load()) != tt.lost {
				t.Fatalf("%d events and %d lost, want %d and %d: %v", len(got), lost.Load(), tt.size, tt.lost, got)
			}
			for i, want := range tt.first {
				if got[i] != want {
					t.Errorf("begins %v, want %v", got[:len(tt.first)], tt.first)
					break
				}
			}
			for i, want := range tt.last {
				if tail := got[len(got)-len(tt.last):]; tail[i] != want {
					t.Errorf("ends %v, want %v", tail, tt.last)
					break
				}
			}
		})
	}
}

func TestInboxLastChangeSeenIsTheNewest(t *testing.T) {
	var lost atomic.Uint64
	b := newInbox(&lost)
	done := make(chan any)
	go func() {
		var last any
		for e := range b.events {
			if isChange(e) {
				last = shown(e)
			}
		}
		done <- last
	}()
	for n := range 20_000 {
		b.put(up(byte(n)))
		b.put(packet(byte(n)))
		b.put(down)
	}
	b.put(up(7))
	b.close()
	if last := <-done; last != "up 192.0.2.7" {
		t.Errorf("the reader was left with %v", last)
	}
}

func TestOwnAddressesAreChosenByRank(t *testing.T) {
	const tentative, failed, optimistic = unix.IFA_F_TENTATIVE, unix.IFA_F_DADFAILED, unix.IFA_F_OPTIMISTIC
	list := func(pairs ...any) (out []address) {
		for i := 0; i < len(pairs); i += 2 {
			out = append(out, address{netip.MustParseAddr(pairs[i].(string)), uint32(pairs[i+1].(int))})
		}
		return out
	}
	tests := []struct {
		name       string
		have       []address
		avoid      string
		ipv4, ipv6 string
	}{
		{"none", nil, "", "", ""},
		{"the first", list("10.0.0.1", 0, "10.0.0.2", 0), "", "10.0.0.1", ""},
		{"not a virtual one", list("10.0.0.1", 0, "10.0.0.2", 0), "10.0.0.1", "10.0.0.2", ""},
		{"a virtual one if there is no other", list("10.0.0.1", 0), "10.0.0.1", "10.0.0.1", ""},
		{"link-local first", list("2001:db8::1", 0, "fe80::1", 0), "", "", "fe80::1"},
		{"not a virtual link-local one", list("2001:db8::1", 0, "fe80::1", 0), "fe80::1", "", "2001:db8::1"},
		{"a virtual link-local one before a virtual one", list("2001:db8::1", 0, "fe80::1", 0), "fe80::1 2001:db8::1", "", "fe80::1"},
		{"not a tentative one", list("fe80::1", tentative, "2001:db8::1", 0), "", "", "2001:db8::1"},
		{"an optimistic one", list("fe80::1", tentative|optimistic, "2001:db8::1", 0), "", "", "fe80::1"},
		{"not a duplicate", list("fe80::1", failed), "", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var s state
			s.addresses = tt.have
			s.choose(func(a netip.Addr) bool {
				for _, v := range splitWords(tt.avoid) {
					if v == a.String() {
						return true
					}
				}
				return false
			})
			if got := [2]string{text(s.local.IPv4), text(s.local.IPv6)}; got != [2]string{tt.ipv4, tt.ipv6} {
				t.Errorf("got %q, want %q and %q", got, tt.ipv4, tt.ipv6)
			}
		})
	}
}

func splitWords(s string) (words []string) {
	for len(s) > 0 {
		i := 0
		for i < len(s) && s[i] != ' ' {
			i++
		}
		words, s = append(words, s[:i]), s[min(i+1, len(s)):]
	}
	return words
}

func text(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func TestSourceIsWhatAPeerKnowsUsBy(t *testing.T) {
	var own []netip.Addr
	for _, a := range []string{"10.0.0.1", "192.168.1.1", "fe80::1", "2001:db8::1", "fd00::1"} {
		own = append(own, netip.MustParseAddr(a))
	}
	for peer, want := range map[string]string{
		"192.168.1.2": "192.168.1.1", "10.0.0.9": "10.0.0.1", "fe80::2": "fe80::1",
		"2001:db8::2": "2001:db8::1", "fd00::2": "fd00::1", "fc00::2": "fd00::1",
	} {
		if got := sourceFor(own, netip.MustParseAddr(peer)); got.String() != want {
			t.Errorf("to %s from %v, want %s", peer, got, want)
		}
	}
	if got := sourceFor(own[:3], netip.MustParseAddr("2001:db8::2")); got.IsValid() {
		t.Errorf("a link-local source for a global peer: %v", got)
	}
}

func TestArrivalIsTheAgeOfTheStamp(t *testing.T) {
	now := carp.Instant(100 * time.Second)
	for _, tt := range []struct {
		name        string
		wall, stamp int64
		want        carp.Instant
	}{
		{"no stamp", 5e9, 0, 0},
		{"a second old", 5e9, 4e9, carp.Instant(99 * time.Second)},
		{"wall clock set back", 4e9, 5e9, now},
	} {
		if got := arrival(now, tt.wall, tt.stamp); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
	if a, b := Now(), Now(); a <= 0 || b < a {
		t.Errorf("Now gave %d, then %d", a, b)
	}
}

// linkNote and addressNote build notes as the kernel does.
func linkNote(kind uint16, family byte, index int, flags uint32, attributes ...[]byte) syscall.NetlinkMessage {
	data := make([]byte, unix.SizeofIfInfomsg)
	data[0] = family
	binary.NativeEndian.PutUint32(data[4:], uint32(index))
	binary.NativeEndian.PutUint32(data[8:], flags)
	return note(kind, data, attributes)
}

func addressNote(kind uint16, index int, flags byte, attributes ...[]byte) syscall.NetlinkMessage {
	data := make([]byte, unix.SizeofIfAddrmsg)
	data[2] = flags
	binary.NativeEndian.PutUint32(data[4:], uint32(index))
	return note(kind, data, attributes)
}

func note(kind uint16, data []byte, attributes [][]byte) syscall.NetlinkMessage {
	for _, a := range attributes {
		data = append(data, a...)
	}
	return syscall.NetlinkMessage{Header: syscall.NlMsghdr{Type: kind}, Data: data}
}

func attribute(kind uint16, value ...byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(value)))
	b = append(binary.NativeEndian.AppendUint16(b, kind), value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func TestLinkIsUpByFlagAndOperationalState(t *testing.T) {
	for _, tt := range []struct {
		name  string
		flags uint32
		oper  byte
		up    bool
	}{
		{"up", unix.IFF_UP, operUp, true},
		{"unknown counts as up", unix.IFF_UP, operUnknown, true},
		{"no carrier", unix.IFF_UP, 2, false},
		{"lower layer down", unix.IFF_UP, 3, false},
		{"dormant", unix.IFF_UP, 5, false},
		{"administratively down", 0, operUp, false},
	} {
		found, ok := linkOf(linkNote(unix.RTM_NEWLINK, 0, 7, tt.flags, attribute(unix.IFLA_IFNAME, []byte("eth0\x00")...),
			attribute(unix.IFLA_OPERSTATE, tt.oper), attribute(unix.IFLA_ADDRESS, 2, 0, 0, 0, 0, 9)))
		if want := (foundLink{7, "eth0", tt.up, carp.MAC{2, 0, 0, 0, 0, 9}}); !ok || found != want {
			t.Errorf("%s: %+v, want %+v", tt.name, found, want)
		}
	}
}

func TestNotesThatConcernTheInterface(t *testing.T) {
	own := netip.MustParseAddr("192.0.2.1")
	known := &state{index: 7, flags: map[netip.Addr]uint32{own: unix.IFA_F_PERMANENT}}
	name := func(s string) []byte { return attribute(unix.IFLA_IFNAME, append([]byte(s), 0)...) }
	addr := func(last byte) []byte { return attribute(unix.IFA_LOCAL, 192, 0, 2, last) }
	for _, tt := range []struct {
		name              string
		note              syscall.NetlinkMessage
		concerns, deletes bool
	}{
		{"its own link", linkNote(unix.RTM_NEWLINK, 0, 7, 0, name("renamed")), true, false},
		{"a link of its name", linkNote(unix.RTM_NEWLINK, 0, 9, 0, name("eth0")), true, false},
		{"another link", linkNote(unix.RTM_NEWLINK, 0, 9, 0, name("eth1")), false, false},
		{"deleted", linkNote(unix.RTM_DELLINK, 0, 7, 0, name("eth0")), true, true},
		{"left a bridge", linkNote(unix.RTM_DELLINK, unix.AF_BRIDGE, 7, 0, name("eth0")), true, false},
		{"another deleted", linkNote(unix.RTM_DELLINK, 0, 9, 0, name("eth1")), false, false},
		{"renewed address", addressNote(unix.RTM_NEWADDR, 7, unix.IFA_F_PERMANENT, addr(1)), false, false},
		{"address with other flags", addressNote(unix.RTM_NEWADDR, 7, 0, addr(1)), true, false},
		{"flags of 32 bits count", addressNote(unix.RTM_NEWADDR, 7, unix.IFA_F_PERMANENT, addr(1), attribute(unix.IFA_FLAGS, 0x80, 2, 0, 0)), true, false},
		{"new address", addressNote(unix.RTM_NEWADDR, 7, 0, addr(2)), true, false},
		{"address elsewhere", addressNote(unix.RTM_NEWADDR, 9, 0, addr(2)), false, false},
		{"address gone", addressNote(unix.RTM_DELADDR, 7, 0, addr(1)), true, false},
		{"address gone elsewhere", addressNote(unix.RTM_DELADDR, 9, 0, addr(1)), false, false},
		{"too short to be read", syscall.NetlinkMessage{Header: syscall.NlMsghdr{Type: unix.RTM_NEWLINK}}, true, false},
		{"a route", syscall.NetlinkMessage{Header: syscall.NlMsghdr{Type: unix.RTM_NEWROUTE}}, false, false},
	} {
		if got := concerns(tt.note, "eth0", known); got != tt.concerns {
			t.Errorf("%s: concerns %v, want %v", tt.name, got, tt.concerns)
		}
		if got := deletes(tt.note, known); got != tt.deletes {
			t.Errorf("%s: deletes %v, want %v", tt.name, got, tt.deletes)
		}
	}
}

func TestPointToPointAddressIsTheLocalEnd(t *testing.T) {
	m := addressNote(unix.RTM_NEWADDR, 7, 0, attribute(unix.IFA_ADDRESS, 10, 0, 0, 2), attribute(unix.IFA_LOCAL, 10, 0, 0, 1))
	if _, a, ok := addressOf(m); !ok || a.addr != netip.MustParseAddr("10.0.0.1") {
		t.Errorf("got %+v", a)
	}
}

// FuzzNotes looks for panics in what reads the kernel's notes.
func FuzzNotes(f *testing.F) {
	f.Add(uint16(unix.RTM_NEWLINK), linkNote(0, 0, 7, 1, attribute(unix.IFLA_IFNAME, 'x', 0)).Data)
	f.Add(uint16(unix.RTM_DELADDR), addressNote(0, 7, 1, attribute(unix.IFA_LOCAL, 1, 2, 3, 4)).Data)
	known := &state{index: 7}
	f.Fuzz(func(t *testing.T, kind uint16, data []byte) {
		m := syscall.NetlinkMessage{Header: syscall.NlMsghdr{Type: kind}, Data: data}
		concerns(m, "x", known)
		deletes(m, known)
	})
}

func TestFrameThatIsTooLongShowsAndIsRefused(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	v := &served{}
	v.ids[carp.IPv4].add(9)
	program, err := v.filter()
	if err == nil {
		err = attachFilter(fds[1], program)
	}
	if err != nil {
		t.Fatal(err)
	}
	i := &Interface{}
	i.state.Store(&state{index: 1, up: true})
	// An advert in the beginning of a frame: the rest would pass for padding.
	advert := carp.AppendFrame(nil, carp.VirtualMAC(9), carp.Local{}, carp.Frame{
		Dst: netip.AddrFrom4([4]byte{224, 0, 0, 18}), Payload: append([]byte{0x21, 9}, make([]byte, 34)...)}, carp.IPHeader{})
	for _, tt := range []struct {
		length, shown int
		bad           uint64
	}{{maxFrame, maxFrame, 0}, {maxFrame + 1, maxFrame + 1, 1}, {2 * maxFrame, maxFrame + 1, 2}} {
		if _, err := unix.Write(fds[0], append(advert, make([]byte, tt.length-len(advert))...)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 4*maxFrame)
		n, _, err := unix.Recvfrom(fds[1], buf, unix.MSG_DONTWAIT)
		if err != nil || n != tt.shown {
			t.Fatalf("of %d bytes %d were read, %v, want %d", tt.length, n, err, tt.shown)
		}
		if i.deliver(1, buf[:n], 1); i.counts.badFrames.Load() != tt.bad {
			t.Errorf("%d bytes: %d bad frames, want %d", tt.length, i.counts.badFrames.Load(), tt.bad)
		}
	}
}

func TestADumpThatFailsHalfWayIsAnError(t *testing.T) {
	for code, want := range map[int32]error{0: nil, -int32(unix.ENOBUFS): unix.ENOBUFS} {
		b := binary.NativeEndian.AppendUint32(nil, 20)
		b = binary.NativeEndian.AppendUint16(b, unix.NLMSG_DONE)
		b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_MULTI)
		b = binary.NativeEndian.AppendUint32(b, 7)
		b = binary.NativeEndian.AppendUint32(b, 0)
		b = binary.NativeEndian.AppendUint32(b, uint32(code))
		if done, err := (&reader{seq: 7}).answer(b, true, nil); !done || err != want {
			t.Errorf("code %d: %v, %v, want %v", code, done, err, want)
		}
	}
}

func TestAFamilyThatTheKernelLacksIsNoTrouble(t *testing.T) {
	for missed, want := range map[error]error{unix.EAFNOSUPPORT: nil, unix.EMFILE: unix.EMFILE} {
		g := &groups{missed: [2]error{carp.IPv6: os.NewSyscallError("socket", missed)}}
		if err := g.set(carp.IPv6, 1, false); !errors.Is(err, want) {
			t.Errorf("%v gives %v, want %v", missed, err, want)
		}
	}
}

func BenchmarkDeliver(b *testing.B) {
	i := &Interface{}
	i.state.Store(&state{index: 1, up: true})
	p := &port{i: i, inbox: newInbox(&i.counts.lost)}
	p.inbox.put(up(1))
	<-p.inbox.events
	i.ports[9][KindCARP].Store(p)
	frame := carp.AppendFrame(nil, carp.VirtualMAC(9), carp.Local{}, carp.Frame{
		Dst: netip.AddrFrom4([4]byte{224, 0, 0, 18}), Payload: append([]byte{0x21, 9}, make([]byte, 34)...)}, carp.IPHeader{})
	b.ReportAllocs()
	for b.Loop() {
		i.deliver(1, frame, 1)
		if (<-p.inbox.events).Packet == nil {
			b.Fatal("not delivered")
		}
	}
}

func TestClaimsAreFoundByTheirNames(t *testing.T) {
	for name, want := range map[string]Claim{
		"eth0/9":       {"eth0", 9, KindCARP},
		"eth0/vrrp4/9": {"eth0", 9, KindVRRP4},
		"eth0/vrrp6/9": {"eth0", 9, KindVRRP6},
		"vrrp4/255":    {"vrrp4", 255, KindCARP},
		"eth0.7/1":     {"eth0.7", 1, KindCARP},
	} {
		if c, ok := parseClaim(name); !ok || c != want || c.String() != name {
			t.Errorf("%s: %+v, %v, want %+v", name, c, ok, want)
		}
	}
	for _, name := range []string{"", "eth0", "eth0/0", "eth0/256", "eth0/09", "eth0/+9", "eth0/9/", "eth0/vrrp4/0", "eth0/vrrp5/9", "eth0/vrrp4", "eth0/carp/9", "eth0/vrrp4/vrrp6/9"} {
		if c, ok := parseClaim(name); ok {
			t.Errorf("%q is taken for %+v", name, c)
		}
	}
}

func TestPortConfigSaysWhatItsZeroValuesStandFor(t *testing.T) {
	for _, tt := range []struct {
		config PortConfig
		mac    SourceMAC
		tos    uint8
	}{
		{PortConfig{}, Virtual, 0x10},
		{PortConfig{Protocol: carp.VRRP2}, InterfaceMAC, 0xc0},
		{PortConfig{Protocol: carp.VRRP3, Family: carp.IPv6}, InterfaceMAC, 0xc0},
		{PortConfig{Protocol: carp.VRRP3, SourceMAC: Virtual, TOS: 4}, Virtual, 4},
		{PortConfig{SourceMAC: InterfaceMAC, TOS: 0xe0}, InterfaceMAC, 0xe0},
	} {
		if got := tt.config.withDefaults(); got.SourceMAC != tt.mac || got.TOS != tt.tos {
			t.Errorf("%+v: MAC %v, TOS %#x, want %v and %#x", tt.config, got.SourceMAC, got.TOS, tt.mac, tt.tos)
		}
	}
}

func TestPortConfigThatCannotBeIsRefused(t *testing.T) {
	for want, c := range map[string]PortConfig{
		"vhid 0 is not allowed":                  {},
		"vrid 0 is not allowed":                  {Protocol: carp.VRRP3},
		"version 2 of VRRP knows IPv4 only":      {Protocol: carp.VRRP2, Family: carp.IPv6, VHID: 1},
		"there is no such protocol: Protocol(3)": {Protocol: carp.VRRP3 + 1, VHID: 1},
		"there is no such family: Family(2)":     {Family: carp.IPv6 + 1, VHID: 1},
	} {
		if _, err := c.check(); err == nil || err.Error() != want {
			t.Errorf("%+v: %v, want %s", c, err, want)
		}
	}
}
