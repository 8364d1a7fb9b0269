package carp

import (
	"crypto/subtle"
	"encoding/binary"
	"net/netip"
)

// MessageType is the low nibble of a CARP packet's first byte. No other
// implementation looks at it; the digest tells the types apart, since it covers
// the type: whoever takes every packet for an advert (type 1) finds the HMAC of a
// companion message wrong, and drops it.
type MessageType uint8

// The types. Those above TypeAdvert are companion messages: carpd's own, for the
// members of one group among themselves.
const (
	TypeAdvert      MessageType = 1
	TypeClockProbe  MessageType = 2 // who lives? Without body
	TypeClockAnswer MessageType = 3 // a master's answer to a probe; the body is the probe's counter
	TypePeerState   MessageType = 4 // role, epoch, fitness and resources of a member
	TypeHandover    MessageType = 5 // request, progress and answer of a handover
)

// numTypes is one more than the highest type that is known.
const numTypes = 6

var typeNames = [...]string{"0", "advert", "clock-probe", "clock-answer", "peer-state", "handover"}

func (t MessageType) String() string { return name(typeNames[:], int(t), "MessageType") }

// companion reports whether t is a type of companion message that is known here.
func (t MessageType) companion() bool { return t > TypeAdvert && t < numTypes }

const (
	// MaxBody is how many bytes may follow the header of a companion message. An
	// advert has none.
	MaxBody = 64
	// MaxMessage is the longest payload of IP protocol 112 that CARP has: a header
	// and the longest body. A filter must let payloads of HeaderLen to MaxMessage
	// bytes through to CARP; what is longer is no CARP of anybody.
	MaxMessage = HeaderLen + MaxBody
)

// Message is a companion message: a CARP header whose type is above TypeAdvert,
// and a body. The header means what it means in an advert, so that advbase,
// advskew and counter say the same as an advert sent at this moment would. The
// checksum covers the header as it does there. The digest covers the type, and
// the body behind the counter. The zero value is not valid; NewMessage makes one.
type Message struct {
	Advert
	Body []byte // at most MaxBody bytes; after Decode part of what was decoded
}

// NewMessage returns a message with everything set but counter, digest and
// checksum. The body is not copied.
func NewMessage(t MessageType, vhid, advbase, advskew uint8, body []byte) Message {
	m := Message{Advert: NewAdvert(vhid, advbase, advskew), Body: body}
	m.Type = uint8(t)
	return m
}

// Append encodes m behind dst, with the checksum it computes. If the body is
// longer than MaxBody nothing is appended.
func (m *Message) Append(dst []byte) []byte {
	if len(m.Body) > MaxBody {
		return dst
	}
	return append(m.Advert.Append(dst), m.Body...)
}

// Decode reads a message that takes all of b, and checks what can be checked
// without knowing the group: length, checksum, version and that the type is not
// that of an advert, in this order. A type that is not known here is none of its
// business. Body points into b. It does not allocate.
func (m *Message) Decode(b []byte) Drop {
	*m = Message{}
	if len(b) > MaxMessage {
		return DropLength
	}
	var a Advert
	if d := a.Decode(b, netip.Addr{}, netip.Addr{}); d != Accepted {
		return d
	}
	if MessageType(a.Type) <= TypeAdvert {
		return DropType
	}
	m.Advert, m.Body = a, b[HeaderLen:len(b):len(b)]
	return Accepted
}

// SumMessage returns the digest of a message with the given counter and body. The
// digest was made for the message's type (DigestOptions.Type).
func (d *Digest) SumMessage(counter uint64, body []byte) [20]byte {
	binary.BigEndian.PutUint64(d.counter[:], counter)
	return d.sum(body)
}

// VerifyMessage reports whether m carries this digest. It compares in constant
// time.
func (d *Digest) VerifyMessage(m *Message) bool {
	want := d.SumMessage(m.Counter, m.Body)
	return subtle.ConstantTimeCompare(want[:], m.Digest[:]) == 1
}

// waitsFor reports whether messages of a type are looked at.
func (e *Engine) waitsFor(t MessageType) bool {
	return e.sealedGroup() && t.companion()
}
