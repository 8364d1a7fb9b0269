package lab

import (
	"encoding/binary"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// cable is the socket at the switch's end: a packet socket on a veth, or a tap.
// Reading and writing never block.
type cable struct {
	fd      int
	tap     bool
	dead    bool // is no longer read: the interface is gone
	dropped uint64
}

// openVeth opens the switch's end of a veth. It is called in its namespace.
func openVeth(index int) (*cable, error) {
	fd, err := openPacket(index)
	if err != nil {
		return nil, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("lab: ask for VLAN tags: %w", err)
	}
	return &cable{fd: fd}, nil
}

// openTun makes a tap interface and opens it. It is called in the namespace that
// gets the interface, which lives as long as it is open.
func openTun(name string) (*cable, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("lab: open /dev/net/tun (a user namespace may not, leave out Tap there): %w", err)
	}
	req, err := unix.NewIfreq(name)
	if err == nil {
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("lab: make tap %s: %w", name, err)
	}
	return &cable{fd: fd, tap: true}, nil
}

// setCarrier pulls or plugs the other end of a tap.
func (c *cable) setCarrier(on bool) error {
	value := 0
	if on {
		value = 1
	}
	if err := unix.IoctlSetPointerInt(c.fd, unix.TUNSETCARRIER, value); err != nil {
		return fmt.Errorf("lab: set carrier of a tap: %w", err)
	}
	return nil
}

// send tries again after ENETDOWN: a socket keeps that error from when the port
// was down, and reports it once more to whoever comes first.
func (c *cable) send(data []byte) error {
	_, err := unix.Write(c.fd, data)
	if err == unix.ENETDOWN || err == unix.EINTR {
		_, err = unix.Write(c.fd, data)
	}
	return err
}

// read reads one frame into buf. A VLAN tag, which the kernel keeps beside the
// frame, is put back.
func (c *cable) read(buf, oob []byte) (Frame, error) {
	if c.tap {
		n, err := unix.Read(c.fd, buf)
		return Frame{Time: time.Now().Round(0), Data: buf[:max(n, 0)]}, err
	}
	const tag = 4 // room for it, in front
	n, noob, _, _, err := unix.Recvmsg(c.fd, buf[tag:], oob, 0)
	if err != nil {
		return Frame{}, err
	}
	at, vlan, tagged := control(oob[:noob])
	if !tagged || n < 12 {
		return Frame{Time: at, Data: buf[tag : tag+n]}, nil
	}
	copy(buf, buf[tag:tag+12])
	copy(buf[12:], vlan[:])
	return Frame{Time: at, Data: buf[:tag+n]}, nil
}

// control reads time stamp and VLAN tag of a message.
func control(oob []byte) (at time.Time, vlan [4]byte, tagged bool) {
	for len(oob) > 0 {
		h, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			break
		}
		oob = rest
		switch {
		case h.Level == unix.SOL_SOCKET && h.Type == unix.SO_TIMESTAMPNS && len(data) >= 16:
			at = time.Unix(int64(binary.NativeEndian.Uint64(data)), int64(binary.NativeEndian.Uint64(data[8:])))
		case h.Level == unix.SOL_PACKET && h.Type == unix.PACKET_AUXDATA && len(data) >= 20:
			// struct tpacket_auxdata: status at 0, vlan_tci at 16, vlan_tpid at 18.
			if tagged = binary.NativeEndian.Uint32(data)&unix.TP_STATUS_VLAN_VALID != 0; tagged {
				binary.BigEndian.PutUint16(vlan[:], binary.NativeEndian.Uint16(data[18:]))
				binary.BigEndian.PutUint16(vlan[2:], binary.NativeEndian.Uint16(data[16:]))
			}
		}
	}
	if at.IsZero() {
		at = time.Now().Round(0)
	}
	return at, vlan, tagged
}

// overruns counts what the kernel dropped since the cable was made; asking resets
// the kernel's own counter.
func (c *cable) overruns() uint64 {
	if c.tap {
		return 0
	}
	if st, err := unix.GetsockoptTpacketStats(c.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
		c.dropped += uint64(st.Drops)
	}
	return c.dropped
}

func (c *cable) close() { _ = unix.Close(c.fd) }
