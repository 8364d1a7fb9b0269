package carp

import (
	"crypto/sha1"
	"crypto/subtle"
	"encoding"
	"encoding/binary"
	"hash"
	"net/netip"
	"slices"
)

// Digest computes the HMAC-SHA1 of a group's adverts. Everything but the counter
// is fixed by the configuration, so both pads and the address list are hashed
// once and each advert costs two short continuations and no allocation. It is
// not safe for concurrent use.
type Digest struct {
	h            hash.Hash
	inner, outer []byte // saved states: after ipad and the fixed part, after opad
	counter      [8]byte
	out          [20]byte
}

// DigestOptions are the variants of the hashed message.
type DigestOptions struct {
	// SkipLinkLocal leaves IPv6 link-local addresses out, as OpenBSD sends
	// (HMAC_NOV6LL) and accepts beside the other form.
	SkipLinkLocal bool
	// LinkAddress is the MAC of OpenBSD's carp interface where it was set by hand
	// (carp_hmac_prepare_ctx); nil hashes none.
	LinkAddress *MAC
	// Type is the type of message that the digest is for; 0 is TypeAdvert.
	Type MessageType
}

// NewDigest prepares the digest of a group. The message is version 2, the type,
// vhid, the IPv4 addresses ascending, the IPv6 addresses ascending with the
// scope of link-local ones zeroed, each address once, then the counter (FreeBSD
// carp_hmac_prepare), and the body of a companion message. A passphrase is the key as it is, filled up with zeroes.
func NewDigest(vhid uint8, passphrase []byte, addrs []netip.Addr, opt DigestOptions) *Digest {
	d := &Digest{h: sha1.New()}
	var key [sha1.BlockSize]byte
	copy(key[:], passphrase)
	message := []byte{2, byte(max(opt.Type, TypeAdvert))}
	if opt.LinkAddress != nil {
		message = append(message, opt.LinkAddress[:]...)
	}
	message = append(message, vhid)
	message = appendSorted(message, addrs, opt)

	for i := range key {
		key[i] ^= 0x36
	}
	d.inner = d.saved(key[:], message)
	for i := range key {
		key[i] ^= 0x36 ^ 0x5c
	}
	d.outer = d.saved(key[:], nil)
	return d
}

// appendSorted relies on netip.Addr.Compare, which puts IPv4 before IPv6 and
// orders each family by its bytes.
func appendSorted(dst []byte, addrs []netip.Addr, opt DigestOptions) []byte {
	sorted := slices.Clone(addrs)
	for i, a := range sorted {
		sorted[i] = a.Unmap().WithZone("")
	}
	slices.SortFunc(sorted, netip.Addr.Compare)
	for _, a := range slices.Compact(sorted) {
		switch {
		case a.Is4():
			b := a.As4()
			dst = append(dst, b[:]...)
		case opt.SkipLinkLocal && a.IsLinkLocalUnicast():
		default:
			b := a.As16()
			if a.IsLinkLocalUnicast() {
				b[2], b[3] = 0, 0 // the BSDs keep the scope there
			}
			dst = append(dst, b[:]...)
		}
	}
	return dst
}

func (d *Digest) saved(pad, rest []byte) []byte {
	d.h.Reset()
	d.h.Write(pad)
	d.h.Write(rest)
	state, err := d.h.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		panic("carp: save SHA-1 state: " + err.Error()) // cannot happen: crypto/sha1 never fails here
	}
	return state
}

func (d *Digest) restore(state []byte) {
	if err := d.h.(encoding.BinaryUnmarshaler).UnmarshalBinary(state); err != nil {
		panic("carp: restore SHA-1 state: " + err.Error()) // cannot happen: saved by the same type
	}
}

// Sum returns the digest of an advert with the given counter.
func (d *Digest) Sum(counter uint64) [20]byte {
	binary.BigEndian.PutUint64(d.counter[:], counter)
	return d.sum(nil)
}

// sum goes on from the counter that was put into place.
func (d *Digest) sum(body []byte) [20]byte {
	d.restore(d.inner)
	d.h.Write(d.counter[:])
	d.h.Write(body)
	d.h.Sum(d.out[:0])
	d.restore(d.outer)
	d.h.Write(d.out[:])
	d.h.Sum(d.out[:0])
	return d.out
}

// Verify reports whether a carries this digest. It compares in constant time.
func (d *Digest) Verify(a *Advert) bool {
	want := d.Sum(a.Counter)
	return subtle.ConstantTimeCompare(want[:], a.Digest[:]) == 1
}

// secret is one passphrase and address list: the digest that is sent, and the
// second form that OpenBSD sends where a shared address is link-local.
type secret struct {
	send  *Digest
	other *Digest // nil if there is none
	until Instant // an earlier configuration is in use until then; 0: the present one
	// companions are the digests of companion messages, by type. There is none with
	// CompatBSD: such a node takes every packet for an advert.
	companions [numTypes]*Digest
}

func newSecret(c *Config) secret {
	s := secret{send: NewDigest(c.VHID, c.Passphrase, c.Addresses, DigestOptions{})}
	if c.Compat == CompatNone && slices.ContainsFunc(c.Addresses, netip.Addr.IsLinkLocalUnicast) {
		s.other = NewDigest(c.VHID, c.Passphrase, c.Addresses, DigestOptions{SkipLinkLocal: true})
	}
	for t := TypeAdvert + 1; t < numTypes && c.Protocol == CARP && c.Compat == CompatNone; t++ {
		s.companions[t] = NewDigest(c.VHID, c.Passphrase, c.Addresses, DigestOptions{Type: t})
	}
	return s
}

func (s *secret) verify(a *Advert) bool {
	return s.send.Verify(a) || s.other != nil && s.other.Verify(a)
}

func (s *secret) verifyMessage(t MessageType, m *Message) bool {
	d := s.companions[t]
	return d != nil && d.VerifyMessage(m)
}
