package lab

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// cable is the socket at the switch's end: a packet socket on a veth, or a tap.
// Reading and writing never block.
type cable struct {
	fd      int
	ring    []byte // shared with the kernel; nil for a tap
	next    int    // slot of the ring
	tap     bool
	dead    bool // is no longer read: the interface is gone
	dropped uint64
}

// The ring bounds the frames that wait to be read. A socket's own buffer would,
// in a user namespace, hold fewer than 200, which is less than hosts send in a
// burst. A slot has room for a header and a frame of 1500 bytes of payload.
const (
	slotBytes = 2048
	slots     = 2048
	ringBlock = 64 << 10
)

// openVeth opens the switch's end of a veth. It is called in its namespace.
func openVeth(index int) (*cable, error) {
	fd, err := openPacket(index)
	if err != nil {
		return nil, err
	}
	c := &cable{fd: fd}
	req := unix.TpacketReq{Block_size: ringBlock, Block_nr: slotBytes * slots / ringBlock, Frame_size: slotBytes, Frame_nr: slots}
	err = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V2)
	if err == nil {
		err = unix.SetsockoptTpacketReq(fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &req)
	}
	if err == nil {
		c.ring, err = unix.Mmap(fd, 0, slotBytes*slots, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("lab: set up the ring of a packet socket: %w", err)
	}
	return c, nil
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

// read reads one frame into buf; EAGAIN says that none waits. A VLAN tag, which the
// kernel keeps beside the frame, is put back.
func (c *cable) read(buf []byte) (Frame, error) {
	if c.tap {
		n, err := unix.Read(c.fd, buf)
		return Frame{Time: time.Now().Round(0), Data: buf[:max(n, 0)]}, err
	}
	for {
		slot := c.ring[c.next*slotBytes:][:slotBytes]
		h := (*unix.Tpacket2Hdr)(unsafe.Pointer(&slot[0]))
		status := atomic.LoadUint32(&h.Status)
		if status&unix.TP_STATUS_USER == 0 {
			return Frame{}, unix.EAGAIN
		}
		n := copy(buf, slot[h.Mac:][:h.Snaplen])
		whole := h.Snaplen == h.Len
		at := time.Unix(int64(h.Sec), int64(h.Nsec))
		tci, tpid := h.Vlan_tci, h.Vlan_tpid
		atomic.StoreUint32(&h.Status, unix.TP_STATUS_KERNEL) // the slot is the kernel's again
		c.next = (c.next + 1) % slots
		if !whole {
			c.dropped++ // longer than a slot
			continue
		}
		if status&unix.TP_STATUS_VLAN_VALID != 0 && n >= 12 {
			copy(buf[16:], buf[12:n])
			binary.BigEndian.PutUint16(buf[12:], tpid)
			binary.BigEndian.PutUint16(buf[14:], tci)
			n += 4
		}
		return Frame{Time: at, Data: buf[:n]}, nil
	}
}

// clear takes off the error that a socket keeps from when its interface went down,
// which would wake the switch for ever.
func (c *cable) clear() { _, _ = unix.GetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_ERROR) }

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

func (c *cable) close() {
	if c.ring != nil {
		_ = unix.Munmap(c.ring)
		c.ring = nil
	}
	_ = unix.Close(c.fd)
}
