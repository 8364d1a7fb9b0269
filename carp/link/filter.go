package link

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/carp"
)

// maxFrame is the longest frame that is read; a longer one is refused as bad.
// CARP's payloads have carp.HeaderLen (an advert) to carp.MaxMessage bytes (a companion
// message), VRRP's at most 1448.
const maxFrame = 2048

// maxUnicast is how many own addresses of a family the filter knows. Where there are
// more it passes unicast to any address, and deliver looks.
const maxUnicast = 16

// Offsets into an Ethernet frame, of the fields that the filter looks at.
const (
	offEtherType    = 12
	offIP           = 14
	offIPv4Fragment = offIP + 6
	offIPv4Protocol = offIP + 9
	offIPv4Dst      = offIP + 16
	offIPv6Next     = offIP + 6
	offIPv6Dst      = offIP + 24
	offIPv6Ext      = offIP + 40 // next header of the first extension header
	offID           = 1          // of the vhid or vrid, into the payload
)

// idSet holds ids of virtual routers, a bit each.
type idSet [8]uint32

func (s *idSet) add(id uint8) { s[id>>5] |= 1 << (id & 31) }

// served is what an interface listens to.
type served struct {
	ids     [2]idSet        // by carp.Family
	unicast [2][]netip.Addr // the own addresses
}

// served lists what the ports and the addresses of s ask for. The caller holds mu.
func (i *Interface) served(s *state) *served {
	v := &served{}
	for p := range i.ports.all() {
		for _, family := range []carp.Family{carp.IPv4, carp.IPv6} {
			if !p.config.Protocol.VRRP() || p.config.Family == family {
				v.ids[family].add(p.config.VHID)
			}
		}
	}
	for _, a := range s.addresses {
		family := carp.FamilyOf(a.addr)
		v.unicast[family] = append(v.unicast[family], a.addr)
	}
	return v
}

// filter passes what may be for a virtual router here, on the untagged interface:
// protocol 112 over IPv4 or IPv6 with an id that is served over that family, to a
// group or to an own address. What it cannot tell in a few steps it passes, for
// carp.DecodeFrame: fragments of IPv4 (which are counted), 112 behind an
// authentication header (51), and IPv6 to a group whose first header is hop-by-hop or
// destination options and whose second may still lead to 112.
//
// It drops what was sent from here, what is for another station's MAC (an interface
// may be promiscuous), and what belongs to a VLAN on top of this interface: for the
// socket sees such frames, their tag taken out. What it drops is counted nowhere.
// Everything that an operator may want to know of a peer with one of our ids is the
// engine's: TTL, length, version, hash.
func (v *served) filter() ([]bpf.RawInstruction, error) {
	a := &assembler{labels: map[string]int{}}
	a.do(bpf.LoadExtension{Num: bpf.ExtType})
	a.when(bpf.JumpGreaterThan, unix.PACKET_MULTICAST, "drop")
	a.do(bpf.LoadExtension{Num: bpf.ExtVLANTag})
	a.when(bpf.JumpBitsSet, 0x0fff, "drop")
	a.do(bpf.LoadAbsolute{Off: offEtherType, Size: 2})
	a.when(bpf.JumpEqual, unix.ETH_P_IP, "IPv4")
	a.when(bpf.JumpEqual, unix.ETH_P_IPV6, "IPv6")
	a.jump("drop")
	v.passIPv4(a)
	v.passIPv6(a)
	a.label("pass")
	a.do(bpf.RetConstant{Val: maxFrame + 1}) // so that a longer frame shows
	a.label("drop")
	a.do(bpf.RetConstant{Val: 0})
	return a.assemble()
}

func (v *served) passIPv4(a *assembler) {
	a.label("IPv4")
	a.do(bpf.LoadAbsolute{Off: offIPv4Protocol, Size: 1})
	a.when(bpf.JumpEqual, unix.IPPROTO_AH, "AH over IPv4")
	a.when(bpf.JumpNotEqual, 112, "drop")
	a.do(bpf.LoadAbsolute{Off: offIPv4Fragment, Size: 2})
	a.when(bpf.JumpBitsSet, 0x3fff, "pass")
	a.do(bpf.LoadAbsolute{Off: offIPv4Dst, Size: 4})
	if own := v.unicast[carp.IPv4]; len(own) <= maxUnicast {
		for _, addr := range own {
			a.when(bpf.JumpEqual, word32(addr, 0), "to us over IPv4")
		}
		a.when(bpf.JumpLessThan, 0xe0000000, "drop")
		a.when(bpf.JumpGreaterOrEqual, 0xf0000000, "drop")
	}
	a.label("to us over IPv4")
	a.do(bpf.LoadMemShift{Off: offIP}) // the header's length
	a.do(bpf.LoadIndirect{Off: offIP + offID, Size: 1})
	v.ids[carp.IPv4].pass(a, "IPv4")
	a.label("AH over IPv4")
	a.do(bpf.LoadMemShift{Off: offIP})
	a.do(bpf.LoadIndirect{Off: offIP, Size: 1})
	a.when(bpf.JumpEqual, 112, "pass")
	a.jump("drop")
}

func (v *served) passIPv6(a *assembler) {
	a.label("IPv6")
	a.do(bpf.LoadAbsolute{Off: offIPv6Next, Size: 1})
	a.when(bpf.JumpEqual, 112, "112 over IPv6")
	a.when(bpf.JumpEqual, unix.IPPROTO_AH, "AH over IPv6")
	a.when(bpf.JumpEqual, unix.IPPROTO_HOPOPTS, "options")
	a.when(bpf.JumpNotEqual, unix.IPPROTO_DSTOPTS, "drop")
	a.label("options")
	a.do(bpf.LoadAbsolute{Off: offIPv6Dst, Size: 1})
	a.when(bpf.JumpNotEqual, 0xff, "drop")
	a.do(bpf.LoadAbsolute{Off: offIPv6Ext, Size: 1})
	for _, header := range []uint32{unix.IPPROTO_DSTOPTS, unix.IPPROTO_ROUTING, unix.IPPROTO_HOPOPTS, 112} {
		a.when(bpf.JumpEqual, header, "pass")
	}
	a.jump("drop")
	a.label("AH over IPv6")
	a.do(bpf.LoadAbsolute{Off: offIPv6Ext, Size: 1})
	a.when(bpf.JumpEqual, 112, "pass")
	a.jump("drop")

	a.label("112 over IPv6")
	if own := v.unicast[carp.IPv6]; len(own) <= maxUnicast {
		a.do(bpf.LoadAbsolute{Off: offIPv6Dst, Size: 1})
		a.when(bpf.JumpEqual, 0xff, "to us over IPv6")
		for _, addr := range own {
			next := "not " + addr.String()
			for n := 3; n >= 0; n-- { // the last word tells most of them apart
				a.do(bpf.LoadAbsolute{Off: uint32(offIPv6Dst + 4*n), Size: 4})
				a.when(bpf.JumpNotEqual, word32(addr, n), next)
			}
			a.jump("to us over IPv6")
			a.label(next)
		}
		a.jump("drop")
	}
	a.label("to us over IPv6")
	a.do(bpf.LoadAbsolute{Off: offIPv6Ext + offID, Size: 1})
	v.ids[carp.IPv6].pass(a, "IPv6")
}

// pass passes a frame whose id, which is loaded, is in the set, and drops others.
func (s *idSet) pass(a *assembler, family string) {
	// The bit in X, the word by comparison.
	a.do(bpf.StoreScratch{Src: bpf.RegA, N: 0}, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 31}, bpf.TAX{})
	a.do(bpf.LoadScratch{Dst: bpf.RegA, N: 0}, bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: 5})
	for n, word := range s {
		if word == 0 {
			continue
		}
		next := family + " word after " + string('0'+rune(n))
		a.when(bpf.JumpNotEqual, uint32(n), next)
		a.do(bpf.LoadConstant{Dst: bpf.RegA, Val: word}, bpf.ALUOpX{Op: bpf.ALUOpShiftRight})
		a.when(bpf.JumpBitsSet, 1, "pass")
		a.jump("drop")
		a.label(next)
	}
	a.jump("drop")
}

// word32 is the nth word of an address.
func word32(a netip.Addr, n int) uint32 { return binary.BigEndian.Uint32(a.AsSlice()[4*n:]) }

// assembler makes a program of instructions and jumps forward to labels.
type assembler struct {
	code   []bpf.Instruction
	jumps  map[int]string // by the place of the jump
	labels map[string]int
}

func (a *assembler) do(code ...bpf.Instruction) { a.code = append(a.code, code...) }

func (a *assembler) label(name string) { a.labels[name] = len(a.code) }

func (a *assembler) jump(label string) {
	if a.jumps == nil {
		a.jumps = map[int]string{}
	}
	a.jumps[len(a.code)] = label
	a.do(bpf.Jump{})
}

// when jumps to a label if what is loaded compares so. A conditional jump of the
// machine reaches 255 instructions, so it skips one that reaches any.
func (a *assembler) when(cond bpf.JumpTest, value uint32, label string) {
	a.do(bpf.JumpIf{Cond: cond, Val: value, SkipFalse: 1})
	a.jump(label)
}

func (a *assembler) assemble() ([]bpf.RawInstruction, error) {
	for at, label := range a.jumps {
		a.code[at] = bpf.Jump{Skip: uint32(a.labels[label] - at - 1)}
	}
	return bpf.Assemble(a.code)
}

// dropAll passes nothing. It is for sockets that only send, or nobody listens by yet.
func dropAll() []bpf.RawInstruction { return []bpf.RawInstruction{{Op: unix.BPF_RET | unix.BPF_K}} }

// attachFilter sets the classic BPF program of a socket. It takes the place of the
// one before at once: no frame is judged by neither.
func attachFilter(fd int, program []bpf.RawInstruction) error {
	filters := make([]unix.SockFilter, len(program))
	for i, r := range program {
		filters[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(filters)), Filter: &filters[0]})
}
