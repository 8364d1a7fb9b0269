package script

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/test/lab"
)

// inject sends frames from the stranger.
func (k *onKernel) inject(a *Advert) error {
	src, to := place(len(k.f.Nodes)), carp.Local{}
	if a.From != "" {
		mac := src.MAC
		src = place(k.f.index(a.From))
		src.MAC = mac
	}
	if a.To != "" {
		to = place(k.f.index(a.To))
	}
	err := k.forger.DoErr(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		index, err := lab.LinkIndex("eth0")
		if err != nil {
			return err
		}
		for i := range a.Times {
			frame := forge(a.packet(i, src, to), to.MAC)
			if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: index, Protocol: 0}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("script: inject: %w", err)
	}
	return nil
}

// forge makes a frame of a packet: that of an ordinary advert to the group, in
// which TTL and destination are changed as asked for. to is used for unicast.
func forge(p carp.Packet, to carp.MAC) []byte {
	local := carp.Local{IPv4: p.Src, IPv6: p.Src, MAC: p.SrcMAC}
	family := carp.FamilyOf(p.Src)
	frame := carp.AppendFrame(nil, p.SrcMAC, local, carp.Frame{Dst: carp.Group(family), Payload: p.Payload}, carp.IPHeader{ID: 1, TOS: 0x10})
	const ethernet = 14
	ip := frame[ethernet:]
	if !p.Broadcast {
		copy(frame, to[:])
	}
	if family == carp.IPv6 {
		ip[7] = p.TTL
		dst := p.Dst.As16()
		copy(ip[24:], dst[:])
		return frame
	}
	ip[8] = p.TTL
	dst := p.Dst.As4()
	copy(ip[16:], dst[:])
	binary.BigEndian.PutUint16(ip[10:], 0)
	var sum uint32
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum))
	return frame
}
