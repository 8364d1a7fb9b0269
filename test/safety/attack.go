package safety

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/test/lab"
)

// attacker is a host on the LAN that knows no key. It hears the master's adverts,
// which wait in its socket until they are asked for, and sends frames of its own.
type attacker struct {
	fd       int
	to       unix.SockaddrLinklayer
	recorded [][]byte
}

// maxRecorded bounds what an attacker keeps.
const maxRecorded = 1000

// newAttacker begins to listen on a host; it ends with the test.
func newAttacker(t lab.TB, h *lab.Host) *attacker {
	t.Helper()
	a := &attacker{}
	err := h.DoErr(func() (err error) {
		var link int
		a.fd, link, err = openPacket(records())
		a.to = unix.SockaddrLinklayer{Protocol: network(unix.ETH_P_IP), Ifindex: link, Halen: 6, Addr: [8]byte{1, 0, 0x5e, 0, 0, 18}}
		return err
	})
	if err != nil {
		t.Fatalf("safety: attack from %s: %v", h.Name, err)
	}
	t.Cleanup(func() { _ = unix.Close(a.fd) })
	return a
}

// records passes IPv4 packets of protocol 112 only: questions by ARP would fill what
// the socket keeps.
func records() []unix.SockFilter {
	return []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: 12},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.ETH_P_IP, Jf: 3},
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 23},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 112, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 128},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
}

// record takes what has come since the last call: adverts of node 0.
func (a *attacker) record() {
	buf := make([]byte, 256)
	for {
		n, _, err := unix.Recvfrom(a.fd, buf, unix.MSG_DONTWAIT)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return
		}
		if heard, ok := advertOf(buf[:n]); ok && heard.node == 0 && len(a.recorded) < maxRecorded {
			frame := append([]byte(nil), buf[:n]...)
			mac := hostMAC(attackerHost) // the switch is not what is attacked
			copy(frame[6:], mac[:])
			a.recorded = append(a.recorded, frame)
		}
	}
}

// errNothing says that an attacker has heard no advert of the master.
var errNothing = errors.New("safety: the attacker has heard no advert")

// send sends a frame.
func (a *attacker) send(frame []byte) error {
	err := unix.Sendto(a.fd, frame, 0, &a.to)
	for err == unix.EINTR || err == unix.ENOBUFS || err == unix.EAGAIN {
		runtime.Gosched()
		err = unix.Sendto(a.fd, frame, 0, &a.to)
	}
	if err != nil {
		return fmt.Errorf("safety: send as attacker: %w", err)
	}
	return nil
}

// replay sends all that was recorded again and again, in order, at a distance.
func (a *attacker) replay(r *runner, every, during time.Duration) error {
	a.record()
	if len(a.recorded) == 0 {
		return errNothing
	}
	for i := range int(during / every) {
		if err := errors.Join(a.send(a.recorded[i%len(a.recorded)]), r.pass(every)); err != nil {
			return err
		}
	}
	return nil
}

// rewrite sends the latest advert of the master again and again, as one that no node
// could beat.
func (a *attacker) rewrite(r *runner, every, during time.Duration) error {
	for i := range int(during / every) {
		a.record()
		if len(a.recorded) == 0 {
			return errNothing
		}
		if err := errors.Join(a.send(rewritten(a.recorded[len(a.recorded)-1], i)), r.pass(every)); err != nil {
			return err
		}
	}
	return nil
}

// Where things stand in frames without IP options.
const (
	ipAt      = 14
	sourceAt  = ipAt + 12
	advertAt  = ipAt + 20
	skewAt    = advertAt + 2 // VRRP: the priority
	baseAt    = advertAt + 5 // VRRP: the low byte of the interval
	sumAt     = advertAt + 6
	ownSource = 2 // of two frames, one has the attacker's own source
)

// rewritten is the nth copy of an advert with its timing rewritten and its checksums
// put right, which needs no key: CARP with advbase 0 and advskew 0 or 1, VRRP with
// priority 255. Every other two have another source address than the master's.
func rewritten(advert []byte, n int) []byte {
	f := append([]byte(nil), advert...)
	if n/ownSource%2 == 1 {
		copy(f[sourceAt:], attackerAddr())
		put16(f, ipAt+10, 0)
		put16(f, ipAt+10, sum(f[ipAt:advertAt]))
	}
	if f[advertAt]>>4 == 3 {
		f[skewAt] = 255
	} else {
		f[skewAt], f[baseAt] = byte(n%2), 0
	}
	mend(f)
	return f
}

func attackerAddr() []byte { return []byte{10, 9, 0, 202} }

// mend puts the checksum of an advert right, which VRRP version 3 makes over the
// addresses too.
func mend(f []byte) {
	pdu := f[advertAt : ipAt+int(binary.BigEndian.Uint16(f[ipAt+2:]))]
	put16(f, sumAt, 0)
	if f[advertAt]>>4 == 3 {
		pseudo := append(append([]byte(nil), f[sourceAt:advertAt]...), 0, 112, byte(len(pdu)>>8), byte(len(pdu)))
		put16(f, sumAt, sum(append(pseudo, pdu...)))
		return
	}
	put16(f, sumAt, sum(pdu))
}

func put16(b []byte, at int, v uint16) { binary.BigEndian.PutUint16(b[at:], v) }

// sum is the checksum of RFC 1071.
func sum(b []byte) uint16 {
	var s uint32
	for ; len(b) >= 2; b = b[2:] {
		s += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return ^uint16(s)
}

// kinds is how many kinds of junk there are. It is odd, so that each is sent from
// either source.
const kinds = 5

// junk makes frames that every daemon must refuse, of the master's last advert: a bad
// checksum, a right checksum with bad authentication (VRRP has none: a bad length),
// one cut short, one that was forwarded (TTL 254), and noise. Every other one has
// another source: a kernel keeps its own from its daemons.
func junk(advert []byte, random *rand.Rand) (all [][]byte) {
	for i := range kinds * 12 {
		f := append([]byte(nil), advert...)
		if i%2 == 1 {
			copy(f[sourceAt:], attackerAddr())
		}
		switch i % kinds {
		case 0:
			mend(f)
			f[sumAt] ^= byte(1 + random.IntN(255))
		case 1:
			if f[advertAt]>>4 == 3 {
				f[advertAt+3]++ // one address more than there is
			} else {
				f[len(f)-1] ^= byte(1 + random.IntN(255))
			}
			mend(f)
		case 2:
			f = f[:advertAt+6]
			put16(f, ipAt+2, 26)
		case 3:
			mend(f)
			f[ipAt+8] = 254
		case 4:
			for at := advertAt; at < len(f); at++ {
				f[at] = byte(random.Uint32())
			}
		}
		put16(f, ipAt+10, 0)
		put16(f, ipAt+10, sum(f[ipAt:advertAt]))
		all = append(all, f)
	}
	return all
}

// flood sends junk: so many packets a second, fewer if the kernel takes no more. It
// returns how many were sent.
func (a *attacker) flood(r *runner, perSecond int, during time.Duration) (sent int, err error) {
	a.record()
	if len(a.recorded) == 0 {
		return 0, errNothing
	}
	frames := junk(a.recorded[len(a.recorded)-1], rand.New(rand.NewPCG(1, 2)))
	most := int(during.Seconds() * float64(perSecond))
	began := stamp()
	for sent < most {
		passed := stamp() - began
		if passed > int64(during) {
			break
		}
		due := min(most, int(float64(passed)/1e9*float64(perSecond))+1)
		for ; sent < due && stamp()-began <= int64(during); sent++ {
			if err := a.send(frames[sent%len(frames)]); err != nil {
				return sent, err
			}
		}
		if err := r.ctx.Err(); err != nil {
			return sent, fmt.Errorf("safety: %w", err)
		}
		sleepUntil(stamp() + int64(min(time.Millisecond, time.Second/time.Duration(perSecond))))
	}
	return sent, nil
}
