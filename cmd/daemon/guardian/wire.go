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
	maxMessage = 256 << 10
	maxText    = 4 << 10
	maxMany    = 16 << 10 // addresses, and bow-outs
)

// kind is the first byte of a message.
type kind byte

const (
	kindHello  kind = 'h' // to the guardian: text is the directory of the hooks' cgroup, or empty
	kindWard   kind = 'w' // to the guardian: about
	kindPlace  kind = 'p' // to the guardian: place
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
	place      place
}

// place is which addresses may be on the interface with that index, in the form that
// they have there.
type place struct {
	index    int
	prefixes []netip.Prefix
}

// About is what the guardian has to know of one instance to act for it.
type About struct {
	Name string
	// Permit is how long a permit of it is at least when it is given, and Margin what
	// lies between its end and the moment at which the fastest backup takes over.
	Permit, Margin time.Duration
	BowOuts        []link.Parcel
}

var errMessage = errors.New("guardian: read a message: it is cut short, too long or of an unknown kind")

// encode returns the message as it is sent, or an error if it is too long.
func (m *message) encode() ([]byte, error) {
	b := append(make([]byte, 0, 512), byte(m.kind))
	switch m.kind {
	case kindHello, kindReport:
		b = appendBytes(b, []byte(m.text[:min(len(m.text), maxText)]))
	case kindForget, kindWard, kindPlace:
		b = appendNumber(b, int64(m.slot))
		b = appendNumber(b, m.generation)
	}
	switch m.kind {
	case kindWard:
		b = m.about.append(b)
	case kindPlace:
		b = m.place.append(b)
	}
	if len(b) > maxMessage {
		return nil, fmt.Errorf("guardian: write a message: %d bytes are more than the %d that it may have", len(b), maxMessage)
	}
	return b, nil
}

func (a *About) append(b []byte) []byte {
	b = appendBytes(b, []byte(a.Name))
	b = appendNumber(b, int64(a.Permit))
	b = appendNumber(b, int64(a.Margin))
	b = appendNumber(b, int64(len(a.BowOuts)))
	for _, p := range a.BowOuts {
		b = appendNumber(b, int64(p.Index))
		b = appendAddr(appendAddr(b, p.Src), p.Dst)
		b = append(b, p.TOS)
		b = appendBytes(b, p.Data)
	}
	return b
}

// append writes neighbours of one family and length together: there may be ten
// thousand.
func (p *place) append(b []byte) []byte {
	b = appendNumber(b, int64(p.index))
	b = appendNumber(b, int64(len(p.prefixes)))
	for rest := p.prefixes; len(rest) > 0; {
		n := 1
		for n < len(rest) && alike(rest[n], rest[0]) {
			n++
		}
		b = append(b, byte(rest[0].Addr().BitLen()/8), byte(rest[0].Bits()))
		b = binary.BigEndian.AppendUint16(b, uint16(n))
		for _, one := range rest[:n] {
			b = append(b, one.Addr().AsSlice()...)
		}
		rest = rest[n:]
	}
	return b
}

func alike(a, b netip.Prefix) bool {
	return a.Bits() == b.Bits() && a.Addr().BitLen() == b.Addr().BitLen()
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
	case kindForget, kindWard, kindPlace:
		m.slot, m.generation = r.upTo(maxSlots-1), r.number()
	default:
		r.bad = true
	}
	switch m.kind {
	case kindWard:
		m.about = r.about()
	case kindPlace:
		m.place = r.place()
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

// maxIndex is the greatest index that an interface has.
const maxIndex = 1<<31 - 1

func (r *reader) place() place {
	p := place{index: r.upTo(maxIndex)}
	for count := r.upTo(maxMany); len(p.prefixes) < count && !r.bad; {
		size, bits, run := int(r.byte()), int(r.byte()), int(r.byte())<<8|int(r.byte())
		r.bad = r.bad || run == 0 || run > count-len(p.prefixes) || size != 4 && size != 16
		for ; run > 0 && !r.bad; run-- {
			addr, _ := netip.AddrFromSlice(r.take(size))
			one := netip.PrefixFrom(addr, bits)
			r.bad = r.bad || !one.IsValid()
			p.prefixes = append(p.prefixes, one)
		}
	}
	return p
}

func (r *reader) about() About {
	a := About{Name: string(r.bytes()), Permit: time.Duration(r.number()), Margin: time.Duration(r.number())}
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
