package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"
)

// maxFrames and maxFrameBytes bound what a capture keeps in memory.
const (
	maxFrames     = 200_000
	maxFrameBytes = 64 << 20
)

// Frame is one Ethernet frame as it came out of a host.
type Frame struct {
	Time time.Time // when the kernel got it: wall clock, no monotonic reading
	Host string    // who sent it
	Data []byte    // from the Ethernet header on; not to be changed
}

// Packet decodes the frame with gopacket. CARP and VRRPv2 look alike to it.
func (f Frame) Packet() gopacket.Packet {
	return gopacket.NewPacket(f.Data, layers.LayerTypeEthernet, gopacket.Default)
}

// GratuitousARP returns a condition: the frame is a gratuitous ARP, request or
// reply, for an IPv4 address.
func GratuitousARP(addr netip.Addr) func(Frame) bool {
	return func(f Frame) bool {
		const ethernet, arp = 14, 28
		if len(f.Data) < ethernet+arp || binary.BigEndian.Uint16(f.Data[12:]) != unix.ETH_P_ARP {
			return false
		}
		sender := netip.AddrFrom4([4]byte(f.Data[ethernet+14:]))
		target := netip.AddrFrom4([4]byte(f.Data[ethernet+24:]))
		return sender == addr && target == addr
	}
}

// Capture records what the hosts of a LAN send, each frame once, at the port
// where it enters the switch: also frames that the switch does not forward.
//
// On a Switched LAN it also records what the switch did to frames: Write puts them
// on interfaces of their own, "a dropped" and "a corrupted" beside "a", with a
// comment that says on the way to whom, why, and which frame of the link it was.
type Capture struct {
	lan  *LAN
	file *os.File // nil if the switch feeds it

	mu      sync.Mutex
	frames  []Frame
	harms   []harm
	bytes   int
	dropped map[string]uint64 // not kept for want of room, by interface
	more    chan struct{}     // closed and replaced when a frame is added
	names   map[int]string
}

// harm is a frame that did not arrive, or as it arrived.
type harm struct {
	Frame
	kind string // of its interface
	text string
}

// Capture begins to record. It ends with the test; if that failed and
// CARPD_PCAP names a directory, the record is written there as TEST.pcapng.
func (l *LAN) Capture() *Capture {
	l.t.Helper()
	c := &Capture{lan: l, more: make(chan struct{}), names: map[int]string{}, dropped: map[string]uint64{}}
	if l.sw != nil {
		l.sw.do(func(f *fabric, _ time.Duration) { f.watched = append(f.watched, c) })
		l.t.Cleanup(func() {
			l.sw.do(func(f *fabric, _ time.Duration) {
				f.watched = slices.DeleteFunc(f.watched, func(o *Capture) bool { return o == c })
			})
			c.keep(l.t)
		})
		return c
	}
	err := l.ns.do(func() error {
		fd, err := openPacket(0)
		if err == nil {
			c.file = os.NewFile(uintptr(fd), "tap")
		}
		return err
	})
	if err != nil {
		l.t.Fatal(err)
	}
	stopped := make(chan struct{})
	go c.record(stopped)
	l.t.Cleanup(func() {
		_ = c.file.Close()
		<-stopped
		c.keep(l.t)
	})
	return c
}

// allProtocols is ETH_P_ALL in network order.
const allProtocols = unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8

// openPacket opens a packet socket for whatever comes into the namespace, or into
// one interface of it; 0 means all.
func openPacket(index int) (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("lab: open packet socket: %w", err)
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20) // not in a user namespace
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: allProtocols, Ifindex: index}),
	)
	if err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("lab: set up packet socket: %w", err)
	}
	return fd, nil
}

func (c *Capture) record(stopped chan<- struct{}) {
	defer close(stopped)
	conn, err := c.file.SyscallConn()
	if err != nil {
		return
	}
	buf, oob := make([]byte, 1<<16), make([]byte, 256)
	for {
		var n, noob int
		var from unix.Sockaddr
		var got error
		err := conn.Read(func(fd uintptr) bool {
			n, noob, _, from, got = unix.Recvmsg(int(fd), buf, oob, 0)
			return got != unix.EAGAIN
		})
		if err != nil {
			return // closed
		}
		link, ok := from.(*unix.SockaddrLinklayer)
		if got != nil || !ok {
			continue // a port went down
		}
		if host := c.host(link.Ifindex); host != "" {
			c.add(Frame{Time: stamp(oob[:noob]), Host: host, Data: append([]byte(nil), buf[:n]...)})
		}
	}
}

// host names the sender at a port; "" if it is the switch itself.
func (c *Capture) host(index int) string {
	if name, ok := c.names[index]; ok {
		return name
	}
	link, err := c.lan.ns.nl.LinkByIndex(index)
	if err != nil {
		return ""
	}
	name, _ := strings.CutPrefix(link.Attrs().Name, "lab-")
	if link.Type() == "bridge" {
		name = ""
	}
	c.names[index] = name
	return name
}

// stamp reads the kernel's time stamp of a message.
func stamp(oob []byte) time.Time {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err == nil {
		for _, m := range messages {
			if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SO_TIMESTAMPNS && len(m.Data) >= 16 {
				sec := binary.NativeEndian.Uint64(m.Data)
				return time.Unix(int64(sec), int64(binary.NativeEndian.Uint64(m.Data[8:])))
			}
		}
	}
	return time.Now().Round(0)
}

func (c *Capture) add(f Frame) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.room(f.Host, f.Data) {
		return
	}
	c.frames = append(c.frames, f)
	close(c.more)
	c.more = make(chan struct{})
}

// addHarm records what the switch did to a frame; the data is not copied.
func (c *Capture) addHarm(h harm) {
	h.Host += " " + h.kind
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.room(h.Host, h.Data) {
		c.harms = append(c.harms, h)
	}
}

// room reports whether a frame can be kept, and counts it as dropped if not.
func (c *Capture) room(host string, data []byte) bool {
	if len(c.frames)+len(c.harms) >= maxFrames || c.bytes+len(data) > maxFrameBytes {
		c.dropped[host]++
		return false
	}
	c.bytes += len(data)
	return true
}

// Packets returns the frames so far, in the order of arrival. It ends the test
// if the capture was full (200 000 frames or 64 MiB), since the answer would be
// wrong.
func (c *Capture) Packets() []Frame {
	c.lan.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.dropped) > 0 {
		c.lan.t.Fatalf("lab: capture is full: frames were not kept: %v", c.dropped)
	}
	return append([]Frame(nil), c.frames...)
}

// Len returns the number of frames so far: a mark for WaitAfter.
func (c *Capture) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.frames)
}

// WaitFor returns the first frame since the capture began that fulfils cond,
// waiting for it up to timeout.
func (c *Capture) WaitFor(timeout time.Duration, cond func(Frame) bool) (Frame, bool) {
	return c.WaitAfter(0, timeout, cond)
}

// WaitAfter is WaitFor without the first frames, as counted by Len.
func (c *Capture) WaitAfter(mark int, timeout time.Duration, cond func(Frame) bool) (Frame, bool) {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	for {
		c.mu.Lock()
		fresh, more := c.frames[min(mark, len(c.frames)):], c.more
		c.mu.Unlock()
		for _, f := range fresh {
			if cond(f) {
				return f, true
			}
		}
		mark += len(fresh)
		select {
		case <-more:
		case <-timer.C:
			return Frame{}, false
		}
	}
}

// keep writes the capture of a failed test.
func (c *Capture) keep(t TB) {
	dir := os.Getenv("CARPD_PCAP")
	if dir == "" || !t.Failed() {
		return
	}
	safe := strings.NewReplacer("/", "_", " ", "_").Replace(t.Name())
	path := filepath.Join(dir, safe+".pcapng")
	if err := c.Write(path); err != nil {
		t.Log(err)
		return
	}
	t.Logf("capture of %d frames: tcpdump -T carp -r %s", c.Len(), path)
}
