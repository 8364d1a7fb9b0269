package decode

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// carpLen is the length of a CARP header; there are no options.
const carpLen = 36

// CARP is a CARP advert (struct carp_header of the BSDs, ip_carp.h). It is a
// gopacket.DecodingLayer and a gopacket.SerializableLayer. The zero value is an
// advert of version 0; all fields are in wire units and none is checked.
type CARP struct {
	layers.BaseLayer            // Payload: what follows the 36 bytes
	Src, Dst         netip.Addr // of the IP packet, for the pseudo-header; may be zero

	Version  uint8 // 2 in all adverts; four bits
	Type     uint8 // 1; four bits
	VHID     uint8
	AdvSkew  uint8 // 1/256 s
	AuthLen  uint8 // 7: counter and digest in 32-bit words
	Pad      uint8 // 0, but OpenBSD's demotion count
	AdvBase  uint8 // seconds
	Checksum uint16
	Counter  uint64
	Digest   [20]byte
}

// Sum says how the checksum of an advert was made.
type Sum uint8

// The ways.
const (
	SumWrong  Sum = iota
	SumPlain      // over the advert alone
	SumPseudo     // over the advert and a pseudo-header
)

func (s Sum) String() string {
	switch s {
	case SumPlain:
		return "right"
	case SumPseudo:
		return "right with pseudo-header"
	}
	return "wrong"
}

// LayerType returns LayerTypeCARP.
func (c *CARP) LayerType() gopacket.LayerType { return LayerTypeCARP }

// CanDecode returns LayerTypeCARP.
func (c *CARP) CanDecode() gopacket.LayerClass { return LayerTypeCARP }

// NextLayerType says that nothing follows.
func (c *CARP) NextLayerType() gopacket.LayerType { return gopacket.LayerTypeZero }

// DecodeFromBytes reads an advert; only a length below 36 bytes is an error.
func (c *CARP) DecodeFromBytes(data []byte, df gopacket.DecodeFeedback) error {
	if len(data) < carpLen {
		df.SetTruncated()
		return fmt.Errorf("decode: CARP: %d bytes, an advert has %d", len(data), carpLen)
	}
	c.BaseLayer = layers.BaseLayer{Contents: data[:carpLen:carpLen], Payload: data[carpLen:]}
	c.Version, c.Type = data[0]>>4, data[0]&15
	c.VHID, c.AdvSkew, c.AuthLen, c.Pad, c.AdvBase = data[1], data[2], data[3], data[4], data[5]
	c.Checksum = uint16(data[6])<<8 | uint16(data[7])
	c.Counter = uint64(binary.BigEndian.Uint32(data[8:]))<<32 | uint64(binary.BigEndian.Uint32(data[12:]))
	copy(c.Digest[:], data[16:])
	return nil
}

// SerializeTo prepends the advert. With ComputeChecksums the checksum is made
// (the plain one) and stored in the layer.
func (c *CARP) SerializeTo(b gopacket.SerializeBuffer, opts gopacket.SerializeOptions) error {
	out, err := b.PrependBytes(carpLen)
	if err != nil {
		return err
	}
	copy(out, []byte{c.Version<<4 | c.Type&15, c.VHID, c.AdvSkew, c.AuthLen, c.Pad, c.AdvBase, 0, 0})
	binary.BigEndian.PutUint64(out[8:], c.Counter)
	copy(out[16:], c.Digest[:])
	if opts.ComputeChecksums {
		c.Checksum = internet(out)
	}
	binary.BigEndian.PutUint16(out[6:], c.Checksum)
	return nil
}

// Sum says how the checksum of a decoded advert was made. Where both ways fit
// it is SumPlain, which all but NetBSD over IPv6 use.
func (c *CARP) Sum() Sum {
	switch {
	case internet(c.Contents) == 0:
		return SumPlain
	case c.Src.Is6() && c.Dst.Is6() && internet(pseudo(c.Src, c.Dst, carpLen), c.Contents) == 0:
		return SumPseudo
	}
	return SumWrong
}

// Sign returns the digest that an advert of this VHID and Counter must carry:
// HMAC-SHA1 over version 2, type 1, the vhid, the IPv4 and then the IPv6
// addresses in ascending order, each once, and the counter (carp_hmac_prepare of
// the BSDs). The scope within link-local addresses counts as zero.
func (c *CARP) Sign(key []byte, addrs []netip.Addr) (digest [20]byte) {
	var v4, v6 [][]byte
	for _, a := range addrs {
		if a = a.Unmap(); a.Is4() {
			v4 = append(v4, a.AsSlice())
			continue
		}
		b := a.AsSlice()
		if a.IsLinkLocalUnicast() {
			b[2], b[3] = 0, 0
		}
		v6 = append(v6, b)
	}
	mac := hmac.New(sha1.New, key)
	mac.Write([]byte{2, 1, c.VHID})
	for _, family := range [][][]byte{v4, v6} {
		slices.SortFunc(family, bytes.Compare)
		for _, b := range slices.CompactFunc(family, bytes.Equal) {
			mac.Write(b)
		}
	}
	_ = binary.Write(mac, binary.BigEndian, c.Counter) // a hash takes everything
	mac.Sum(digest[:0])
	return digest
}
