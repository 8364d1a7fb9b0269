package safety

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/test/lab"
)

// AskEvery is how often the observer asks for each address, or more often.
const AskEvery = 4 * time.Millisecond

// numbers is how many MACs the observer's questions have in turn, by which an answer
// is known to belong to one of them. (IP addresses would do too, but each would take
// an entry of the kernel's neighbour table, of which all namespaces share a thousand.)
const numbers = 240

// answerLimit is how late an answer may come. It is below numbers x AskEvery, so that
// no answer is taken for that of a later question.
const answerLimit = 900 * time.Millisecond

// maxSamples and maxAdverts bound what an observer keeps: five minutes of questions,
// and more adverts than nodes can send then.
const (
	maxSamples = 150_000
	maxAdverts = 50_000
)

// observer asks by ARP who has each of some addresses, and hears who advertises.
type observer struct {
	addrs     []netip.Addr
	questions [][]byte // one an address
	fd        int
	to        unix.SockaddrLinklayer
	stop      atomic.Bool
	ended     sync.WaitGroup

	mu      sync.Mutex
	samples [][]sample // of each address
	ring    [][numbers]int
	adverts []advert
	heard   [nodes]int64 // stamp of each node's last advert
}

// newObserver begins to ask on a host; it ends with the test. What the attacker sends
// is not heard: it is not a node's.
func newObserver(t lab.TB, h *lab.Host, addrs []netip.Addr, attacker [6]byte) *observer {
	t.Helper()
	o := &observer{addrs: addrs, samples: make([][]sample, len(addrs)), ring: make([][numbers]int, len(addrs))}
	for _, a := range addrs {
		o.questions = append(o.questions, question(askerMAC(0), observerAddr(), a))
	}
	if err := h.DoErr(func() error { return o.open(attacker) }); err != nil {
		t.Fatalf("safety: observe on %s: %v", h.Name, err)
	}
	o.ended.Go(o.run)
	t.Cleanup(func() {
		o.stop.Store(true)
		o.ended.Wait()
		_ = unix.Close(o.fd)
	})
	return o
}

// hears passes ARP and IPv4 packets of protocol 112, but for those of one MAC.
func hears(but [6]byte) []unix.SockFilter {
	return []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 6},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: binary.BigEndian.Uint32(but[:]), Jf: 2},
		{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: 10},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(binary.BigEndian.Uint16(but[4:])), Jt: 6},
		{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: 12},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.ETH_P_ARP, Jt: 3},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.ETH_P_IP, Jf: 3},
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 23},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 112, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 128},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
}

func (o *observer) open(attacker [6]byte) error {
	fd, link, err := openPacket(hears(attacker))
	if err != nil {
		return err
	}
	// Announcements of a thousand addresses come at once.
	const room = 16 << 20
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, room) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, room) // the most that is allowed
	}
	o.fd = fd
	o.to = unix.SockaddrLinklayer{Protocol: network(unix.ETH_P_ARP), Ifindex: link, Halen: 6, Addr: [8]byte{255, 255, 255, 255, 255, 255}}
	return nil
}

// openPacket opens a packet socket on eth0 of the calling thread's namespace, which
// stamps what it hears.
func openPacket(program []unix.SockFilter) (fd, link int, err error) {
	if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
		return -1, 0, fmt.Errorf("open packet socket: %w", err)
	}
	filter := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	link, err = lab.LinkIndex("eth0")
	err = errors.Join(err,
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
		unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &filter),
	)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: network(unix.ETH_P_ALL), Ifindex: link})
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, 0, fmt.Errorf("set up packet socket: %w", err)
	}
	return fd, link, nil
}

// network is a number in the order of the network.
func network(n uint16) uint16 { return n<<8 | n>>8 }

// perBeat is how many addresses are asked for at once: with several, half of them,
// so that each has its turn every other time and beats are half as long.
func (o *observer) perBeat() (n int, beat time.Duration) {
	if len(o.addrs) == 1 {
		return 1, AskEvery
	}
	return (len(o.addrs) + 1) / 2, AskEvery / 2
}

// run asks, and reads what came since.
func (o *observer) run() {
	punctual()
	buf, oob := make([]byte, 256), make([]byte, 128)
	each, beat := o.perBeat()
	next, turn := stamp(), 0
	for count := 0; !o.stop.Load(); count++ {
		for range each {
			o.ask(turn%len(o.addrs), turn/len(o.addrs)%numbers)
			turn++
		}
		next = max(next+int64(beat), stamp()-int64(beat)) // what was slept through is one gap
		sleepUntil(next)
		o.drain(buf, oob)
	}
}

// ask sends one question. Its sender address carries its number.
func (o *observer) ask(which, number int) {
	o.mu.Lock()
	full := len(o.samples[which]) >= maxSamples
	if !full {
		o.ring[which][number] = len(o.samples[which])
		o.samples[which] = append(o.samples[which], sample{at: stamp()})
	}
	o.mu.Unlock()
	if full {
		return
	}
	frame, mac := o.questions[which], askerMAC(number)
	copy(frame[6:], mac[:])
	copy(frame[askedBy:], mac[:])
	_ = unix.Sendto(o.fd, frame, unix.MSG_DONTWAIT, &o.to) // no answer will come
}

// askedBy is where the sender's MAC stands in a question, once more.
const askedBy = 22

// question is a broadcast ARP request.
func question(mac [6]byte, from, to netip.Addr) []byte {
	frame := append([]byte{255, 255, 255, 255, 255, 255}, mac[:]...)
	frame = append(frame, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1)
	frame = append(append(frame, mac[:]...), from.AsSlice()...)
	return append(append(frame, 0, 0, 0, 0, 0, 0), to.AsSlice()...)
}

// drain reads all that waits.
func (o *observer) drain(buf, oob []byte) {
	for {
		n, noob, _, _, err := unix.Recvmsg(o.fd, buf, oob, unix.MSG_DONTWAIT)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return
		}
		o.take(buf[:n], stampOf(oob[:noob]))
	}
}

// stampOf reads the kernel's stamp of a frame, which is the only control message that
// is asked for; now, if there is none.
func stampOf(oob []byte) int64 {
	if len(oob) < unix.CmsgLen(16) {
		return stamp()
	}
	data := oob[unix.CmsgLen(0):]
	return int64(binary.NativeEndian.Uint64(data))*1e9 + int64(binary.NativeEndian.Uint64(data[8:]))
}

// take notes an answer or an advert.
func (o *observer) take(frame []byte, at int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if a, ok := advertOf(frame); ok {
		a.at = at
		o.heard[a.node] = at
		if len(o.adverts) < maxAdverts {
			o.adverts = append(o.adverts, a)
		}
		return
	}
	addr, number, node, ok := answerOf(frame)
	if !ok {
		return
	}
	for which := range o.addrs {
		if o.addrs[which] != addr || len(o.samples[which]) == 0 {
			continue
		}
		if s := &o.samples[which][o.ring[which][number]]; at-s.at < int64(answerLimit) {
			s.by |= 1 << node
		}
	}
}

// answerOf reads an ARP reply to one of our questions.
func answerOf(frame []byte) (addr netip.Addr, number, node int, ok bool) {
	const header, arp = 14, 28
	if len(frame) < header+arp || frame[12] != 8 || frame[13] != 6 {
		return addr, 0, 0, false
	}
	body := frame[header:]
	if body[7] != 2 { // a reply
		return addr, 0, 0, false
	}
	if number, ok = numberOf([6]byte(body[18:])); !ok {
		return addr, 0, 0, false
	}
	node, ok = nodeOfMAC([6]byte(body[8:]))
	return netip.AddrFrom4([4]byte(body[14:])), number, node, ok
}

// advertOf reads an advert of CARP or VRRP. Both have the byte that says goodbye
// third: advskew 255 or priority 0.
func advertOf(frame []byte) (a advert, ok bool) {
	const header = 14
	if len(frame) < header+28 || frame[12] != 8 || frame[13] != 0 {
		return a, false
	}
	body := frame[header:]
	pdu := int(body[0]&15) * 4
	if body[9] != 112 || len(body) < pdu+8 {
		return a, false
	}
	if a.node, ok = nodeOf([4]byte(body[12:])); !ok {
		return a, false
	}
	// The low half of the first byte is the type: a CARP message that is no advert
	// (type 2 and up) says nothing of mastership. VRRP has type 1 only.
	if body[pdu]&15 != 1 {
		return a, false
	}
	version, weight := body[pdu]>>4, body[pdu+2]
	carp := version == 2 && body[pdu+3] == 7 // the length of CARP's authentication
	a.last = carp && weight == 255 || !carp && weight == 0
	return a, true
}

// settle is how long the answer to a question is waited for before the lack of one
// says something. On a busy machine answers may be later, on a quiet one not.
const settle = 100 * time.Millisecond

// lastAdvert returns the stamp of a node's last advert, 0 if it sent none.
func (o *observer) lastAdvert(node int) int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.heard[node]
}

// since reports whether each question of the last while was answered by one node
// alone, which is told, and there were some.
func (o *observer) since(at int64) (node int, alone bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	settled := stamp() - int64(settle)
	var by uint8
	count := 0
	for _, samples := range o.samples {
		for i := len(samples) - 1; i >= 0 && samples[i].at > at; i-- {
			if s := samples[i]; s.at < settled {
				if count > 0 && s.by != by || holders(s.by) != 1 {
					return 0, false
				}
				by, count = s.by, count+1
			}
		}
	}
	for node = 0; node < nodes-1 && by>>node != 1; node++ {
	}
	return node, count > 0
}

// heardSince returns what was heard since a stamp, and all samples. They are copies.
func (o *observer) heardSince(at int64) (all [][]sample, adverts []advert) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, samples := range o.samples {
		all = append(all, append([]sample(nil), samples...))
	}
	for _, a := range o.adverts {
		if a.at >= at {
			adverts = append(adverts, a)
		}
	}
	return all, adverts
}
