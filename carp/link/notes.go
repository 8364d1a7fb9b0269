package link

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// ifaProto is the attribute IFA_PROTO of an address (Linux 5.18), and sharedMark its
// value in the addresses that package vip moves.
const (
	ifaProto   = 11
	sharedMark = 112
)

// muteShared keeps notes about the addresses that move with the role from a netlink
// socket: ports avoid those anyway, thousands of them come at a takeover, each is
// renewed several times a second, and the kernel would wake us for every one of them.
func muteShared(fd int) error {
	// The filter loads in network order; nlmsg_type is in the host's.
	kind := func(k uint16) uint32 {
		var b [2]byte
		binary.NativeEndian.PutUint16(b[:], k)
		return uint32(binary.BigEndian.Uint16(b[:]))
	}
	const attribute = 0xfffff000 + 12 // SKF_AD_OFF + SKF_AD_NLATTR: the offset of attribute X from A on, or 0
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: 4},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: kind(unix.RTM_NEWADDR), Jt: 1},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: kind(unix.RTM_DELADDR), Jf: 7},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_IMM, K: unix.SizeofNlMsghdr + unix.SizeofIfAddrmsg},
		{Code: unix.BPF_LDX | unix.BPF_W | unix.BPF_IMM, K: ifaProto},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: attribute},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 0, Jt: 3},
		{Code: unix.BPF_MISC | unix.BPF_TAX},
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_IND, K: unix.SizeofRtAttr},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: sharedMark, Jt: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: ^uint32(0)},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
}
