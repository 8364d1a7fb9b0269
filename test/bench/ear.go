package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/test/lab"
)

// kind says what a sound is.
type kind uint8

const (
	advert       kind = iota + 1 // of VRRP or CARP, over IPv4
	announcement                 // gratuitous ARP
	answer                       // ARP reply to somebody
)

// sound is a frame that the observer heard. It has no pointers: a million of them
// cost the garbage collector nothing.
type sound struct {
	at     int64   // the kernel's stamp, nanoseconds since 1970
	from   [4]byte // IPv4 source, or the address that an ARP speaks of
	mac    [6]byte // of the sender; in ARP what it says itself
	kind   kind
	id     uint8 // vhid or vrid
	weight uint8 // priority or advskew
}

// maxSounds bounds what an ear keeps.
const maxSounds = 1_000_000

// The ring bounds what waits to be read: at 25 500 adverts a second about two
// seconds. A block is handed over when it is full or blockAge ms old, so that the
// ear wakes seldom.
const (
	ringBlock  = 256 << 10
	ringBlocks = 32
	blockAge   = 10
	snapLength = 64
)

// ear hears adverts and ARP on a host's interface by a ring shared with the kernel:
// the stamps are the kernel's, and whoever reads late loses no accuracy.
type ear struct {
	fd      int
	ring    []byte
	next    int
	ended   sync.WaitGroup
	stopped atomic.Bool

	mu     sync.Mutex
	last   [nodes][256]int64 // stamp of the last advert by node and id
	keep   bool
	sounds []sound
	meter  *meter
	lost   uint64
}

// listen opens an ear on eth0 of a host; it hears until the test ends.
func listen(t lab.TB, h *lab.Host) *ear {
	t.Helper()
	e := &ear{}
	if err := h.DoErr(e.open); err != nil {
		t.Fatalf("bench: listen on %s: %v", h.Name, err)
	}
	e.ended.Go(e.hear)
	t.Cleanup(func() {
		e.stopped.Store(true)
		e.ended.Wait()
		_ = unix.Munmap(e.ring)
		_ = unix.Close(e.fd)
	})
	return e
}

// hears passes IPv4 packets of protocol 112 and ARP, cut to what is looked at.
func hears() []unix.SockFilter {
	return []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: 12},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.ETH_P_ARP, Jt: 3},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.ETH_P_IP, Jf: 3},
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 23},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 112, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: snapLength},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
}

func (e *ear) open() error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open packet socket: %w", err)
	}
	program := hears()
	filter := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	req := unix.TpacketReq3{
		Block_size: ringBlock, Block_nr: ringBlocks, Frame_size: 2048, Frame_nr: ringBlock * ringBlocks / 2048, Retire_blk_tov: blockAge,
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V3),
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1), // stamps frames before they wait for a soft interrupt
		unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &filter),
		unix.SetsockoptTpacketReq3(fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &req),
	)
	if err == nil {
		e.ring, err = unix.Mmap(fd, 0, ringBlock*ringBlocks, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	}
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8})
	}
	if err != nil {
		_ = unix.Close(fd)
		return fmt.Errorf("set up the ring of a packet socket: %w", err)
	}
	e.fd = fd
	return nil
}

// hear reads block after block.
func (e *ear) hear() {
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	fds := []unix.PollFd{{Fd: int32(e.fd), Events: unix.POLLIN}}
	for !e.stopped.Load() {
		block := e.ring[e.next*ringBlock:][:ringBlock]
		status := (*uint32)(unsafe.Pointer(&block[8])) // tpacket_hdr_v1.block_status
		if atomic.LoadUint32(status)&unix.TP_STATUS_USER == 0 {
			_, _ = unix.Poll(fds, 100) // interrupted or not, we look again
			continue
		}
		e.mu.Lock()
		e.read(block)
		e.mu.Unlock()
		atomic.StoreUint32(status, unix.TP_STATUS_KERNEL)
		e.next = (e.next + 1) % ringBlocks
	}
}

// read takes all frames of a block (struct tpacket_block_desc, tpacket3_hdr).
func (e *ear) read(block []byte) {
	native := binary.NativeEndian
	count, at := native.Uint32(block[12:]), native.Uint32(block[16:])
	for range count {
		h := block[at:]
		data := h[native.Uint16(h[24:]):][:native.Uint32(h[12:])]
		if s, ok := parse(data); ok {
			s.at = int64(native.Uint32(h[4:]))*1e9 + int64(native.Uint32(h[8:]))
			e.take(s)
		}
		at += native.Uint32(h)
	}
}

// take notes one sound.
func (e *ear) take(s sound) {
	if s.kind == advert {
		n, ok := nodeOf(s.from)
		if !ok {
			return
		}
		e.last[n][s.id] = s.at
		if e.meter != nil {
			e.meter.take(n, s)
		}
	}
	switch {
	case !e.keep:
	case len(e.sounds) < maxSounds:
		e.sounds = append(e.sounds, s)
	default:
		e.lost++
	}
}

// parse reads a frame, from the Ethernet header on.
func parse(frame []byte) (s sound, ok bool) {
	const header = 14
	if len(frame) < header+28 {
		return s, false
	}
	body := frame[header:]
	switch binary.BigEndian.Uint16(frame[12:]) {
	case unix.ETH_P_ARP:
		s.mac, s.from = [6]byte(body[8:]), [4]byte(body[14:])
		switch {
		case [4]byte(body[24:]) == s.from:
			s.kind = announcement
		case body[7] == 2:
			s.kind = answer
		default:
			return s, false
		}
		return s, true
	case unix.ETH_P_IP:
		s.kind, s.mac, s.from = advert, [6]byte(frame[6:]), [4]byte(body[12:])
		pdu := int(body[0]&15) * 4
		if body[9] != 112 || len(body) < pdu+8 {
			return s, false
		}
		s.id, s.weight = body[pdu+1], body[pdu+2]
		return s, true
	}
	return s, false
}

// record begins to keep sounds, none of which are left from before.
func (e *ear) record() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.keep, e.sounds, e.last = true, e.sounds[:0], [nodes][256]int64{}
}

// forget ends record and forgets who was heard.
func (e *ear) forget() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.keep, e.sounds, e.last = false, nil, [nodes][256]int64{}
}

// heard returns a copy of what was kept.
func (e *ear) heard() []sound {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]sound(nil), e.sounds...)
}

// lastAdvert returns the stamp of a node's last advert of an instance, 0 if it
// sent none.
func (e *ear) lastAdvert(node int, id uint8) int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.last[node][id]
}

// all reports whether a node has advertised the first n ids after a stamp.
func (e *ear) all(node, n int, after int64) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	for id := 1; id <= n; id++ {
		if e.last[node][id] <= after {
			return false
		}
	}
	return true
}

// any reports whether a node has advertised anything after a stamp.
func (e *ear) any(node int, after int64) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, at := range e.last[node] {
		if at > after {
			return true
		}
	}
	return false
}

// measure gives all adverts from now on to a meter, or to none.
func (e *ear) measure(m *meter) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.meter = m
}

// overruns returns what was lost since the last call: frames that the kernel had no
// room for, and sounds that were too many.
func (e *ear) overruns() uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	lost := e.lost
	e.lost = 0
	if st, err := unix.GetsockoptTpacketStatsV3(e.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
		lost += uint64(st.Drops)
	}
	return lost
}
