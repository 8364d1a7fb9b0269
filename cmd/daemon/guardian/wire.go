package guardian

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/carpd/carpd/carp/link"
)

// Bounds of a message.
const (
	maxMessage = 128 << 10
	maxText    = 4 << 10
	maxMany    = 8 << 10 // addresses, and bow-outs
)

// kind is the first byte of a message.
type kind byte

const (
	kindHello  kind = 'h' // to the guardian: text is the directory of the hooks' cgroup, or empty
	kindWard   kind = 'w' // to the guardian: about
	kindForget kind = 'f' // to the guardian: slot
	kindReady  kind = 'r' // to the daemon: the guardian guards
	kindReport kind = 't' // to the daemon: text says what was done, or why the guardian ends
)

// message is one datagram between the two.
type message struct {
	kind       kind
	text       string
	slot       int
	generation int64
	about      About
}

// About is what the guardian has to know of one instance to act for it.
type About struct {
	Name string
	// Permit is how long a permit of it is at least when it is given, and Margin what
	// lies between its end and the moment at which the fastest backup takes over.
	Permit, Margin time.Duration
	// Prefixes, in the form that they have there, may be on the interface with Index.
	Index    int
	Prefixes []netip.Prefix
	BowOuts  []link.Parcel
}

var errMessage = errors.New("guardian: read a message: it is cut short, too long or of an unknown kind")

// encode returns the message as it is sent, or an error if it is too long.
func (m *message) encode() ([]byte, error) {
	b := append(make([]byte, 0, 512), byte(m.kind))
	switch m.kind {
	case kindHello, kindReport:
		b = appendBytes(b, []byte(m.text[:min(len(m.text), maxText)]))
	case kindForget, kindWard:
		b = appendNumber(b, int64(m.slot))
		b = appendNumber(b, m.generation)
	}
	if m.kind == kindWard {
		b = m.about.append(b)
	}
	if len(b) > maxMessage {
		return nil, fmt.Errorf("guardian: write a message about %s: %d bytes are more than the %d that it may have", m.about.Name, len(b), maxMessage)
	}
	return b, nil
}

func (a *About) append(b []byte) []byte {
	b = appendBytes(b, []byte(a.Name))
	b = appendNumber(b, int64(a.Permit))
	b = appendNumber(b, int64(a.Margin))
	b = appendNumber(b, int64(a.Index))
	b = appendNumber(b, int64(len(a.Prefixes)))
	for _, p := range a.Prefixes {
		b = appendAddr(b, p.Addr())
		b = append(b, byte(p.Bits()))
	}
	b = appendNumber(b, int64(len(a.BowOuts)))
	for _, p := range a.BowOuts {
		b = appendNumber(b, int64(p.Index))
		b = appendAddr(appendAddr(b, p.Src), p.Dst)
		b = append(b, p.TOS)
		b = appendBytes(b, p.Data)
	}
	return b
}

func appendNumber(b []byte, n int64) []byte { return binary.BigEndian.AppendUint64(b, uint64(n)) }

func appendBytes(b, v []byte) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(v))), v...)
}

// appendAddr writes the zero address as no bytes.
func appendAddr(b []byte, a netip.Addr) []byte { return appendBytes(b, a.AsSlice()) }

// decode is the inverse of encode. It takes nothing that encode would not make, and
// keeps nothing of b.
func decode(b []byte) (message, error) {
	r := reader{rest: b}
	m := message{kind: kind(r.byte())}
	switch m.kind {
	case kindReady:
	case kindHello, kindReport:
		m.text = string(r.bytes())
	case kindForget, kindWard:
		m.slot, m.generation = r.upTo(maxSlots-1), r.number()
	default:
		r.bad = true
	}
	if m.kind == kindWard {
		m.about = r.about()
	}
	if r.bad || len(r.rest) > 0 || len(b) > maxMessage || len(m.text) > maxText {
		return message{}, errMessage
	}
	return m, nil
}

// reader cuts values off; bad stays once set.
type reader struct {
	rest []byte
	bad  bool
}

func (r *reader) take(n int) []byte {
	if r.bad || n < 0 || n > len(r.rest) {
		r.bad = true
		return nil
	}
	v := r.rest[:n]
	r.rest = r.rest[n:]
	return v
}

func (r *reader) byte() byte {
	if v := r.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (r *reader) number() int64 {
	if v := r.take(8); v != nil {
		return int64(binary.BigEndian.Uint64(v))
	}
	return 0
}

// upTo reads a number from 0 to most.
func (r *reader) upTo(most int) int {
	n := r.number()
	if n < 0 || n > int64(most) {
		r.bad = true
		return 0
	}
	return int(n)
}

func (r *reader) bytes() []byte {
	v := r.take(4)
	if v == nil {
		return nil
	}
	return r.take(int(binary.BigEndian.Uint32(v)))
}

func (r *reader) addr() netip.Addr {
	v := r.bytes()
	a, ok := netip.AddrFromSlice(v)
	if len(v) > 0 && !ok {
		r.bad = true
	}
	return a
}

func (r *reader) about() About {
	const maxIndex = 1<<31 - 1
	a := About{
		Name: string(r.bytes()), Permit: time.Duration(r.number()), Margin: time.Duration(r.number()), Index: r.upTo(maxIndex),
	}
	for range r.upTo(maxMany) {
		addr, bits := r.addr(), int(r.byte())
		p := netip.PrefixFrom(addr, bits)
		if r.bad = r.bad || !p.IsValid(); r.bad {
			return About{}
		}
		a.Prefixes = append(a.Prefixes, p)
	}
	for range r.upTo(maxMany) {
		p := link.Parcel{Index: r.upTo(maxIndex), Src: r.addr(), Dst: r.addr(), TOS: r.byte()}
		p.Data = append(p.Data, r.bytes()...)
		if r.bad {
			return About{}
		}
		a.BowOuts = append(a.BowOuts, p)
	}
	if a.Permit < 0 || a.Margin < 0 {
		r.bad = true
	}
	return a
}
