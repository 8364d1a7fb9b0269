package link

import (
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// maxFrame is the longest frame that is read; a longer one is refused as bad.
// CARP's payloads have carp.HeaderLen (an advert) to carp.MaxMessage bytes (a companion
// message), VRRP's at most 1448.
const maxFrame = 2048

// Offsets into an Ethernet frame, of the fields that the filter looks at.
const (
	offEtherType    = 12
	offIP           = 14
	offIPv4Protocol = offIP + 9
	offIPv6Next     = offIP + 6
	offIPv6Dst      = offIP + 24
	offIPv6Ext      = offIP + 40 // next header of the first extension header
)

// advertFilter passes what may hold an advert for this node on the untagged
// interface: IPv4 with protocol 112, IPv6 with next header 112; either with an
// authentication header (51) before 112; and IPv6 to a group whose first header is
// hop-by-hop or destination options and whose second may still lead to 112, which
// carp.DecodeFrame decides. It drops what was sent from here, what is for another
// station's MAC (an interface may be promiscuous), and what belongs to a VLAN on
// top of this interface: for the socket sees such frames, their tag taken out.
var advertFilter = []bpf.Instruction{
	bpf.LoadExtension{Num: bpf.ExtType},
	bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: unix.PACKET_MULTICAST, SkipTrue: 25}, // drop
	bpf.LoadExtension{Num: bpf.ExtVLANTag},
	bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 0x0fff, SkipTrue: 23}, // drop
	bpf.LoadAbsolute{Off: offEtherType, Size: 2},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.ETH_P_IP, SkipTrue: 6}, // IPv6?
	bpf.LoadAbsolute{Off: offIPv4Protocol, Size: 1},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: 112, SkipTrue: 18},                // pass
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_AH, SkipTrue: 18}, // drop
	bpf.LoadMemShift{Off: offIP},                                           // the header's length
	bpf.LoadIndirect{Off: offIP, Size: 1},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: 112, SkipTrue: 14, SkipFalse: 15}, // pass, drop
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.ETH_P_IPV6, SkipTrue: 14}, // drop
	bpf.LoadAbsolute{Off: offIPv6Next, Size: 1},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: 112, SkipTrue: 11}, // pass
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.IPPROTO_AH, SkipTrue: 8},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.IPPROTO_HOPOPTS, SkipTrue: 1},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_DSTOPTS, SkipTrue: 9}, // drop
	bpf.LoadAbsolute{Off: offIPv6Dst, Size: 1},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0xff, SkipTrue: 7}, // drop
	bpf.LoadAbsolute{Off: offIPv6Ext, Size: 1},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.IPPROTO_DSTOPTS, SkipTrue: 4}, // pass
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.IPPROTO_ROUTING, SkipTrue: 3}, // pass
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.IPPROTO_HOPOPTS, SkipTrue: 2}, // pass
	bpf.LoadAbsolute{Off: offIPv6Ext, Size: 1},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 112, SkipTrue: 1}, // drop
	bpf.RetConstant{Val: maxFrame + 1},                        // so that a longer frame shows
	bpf.RetConstant{Val: 0},
}

// dropFilter passes nothing. It is for sockets that only send.
var dropFilter = []bpf.Instruction{bpf.RetConstant{Val: 0}}

// attachFilter sets the classic BPF program of a socket.
func attachFilter(fd int, program []bpf.Instruction) error {
	raw, err := bpf.Assemble(program)
	if err != nil {
		return err
	}
	filters := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		filters[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(filters)), Filter: &filters[0]})
}
