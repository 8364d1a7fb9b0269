package decode

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

const vrrpLen = 8

// VRRPv3 is an advert of VRRP version 3 (RFC 9568 section 5.2). It is a
// gopacket.DecodingLayer; Src and Dst must be set before DecodeFromBytes, as
// their family is that of the addresses. Fields are in wire units and, but for
// version and length, not checked.
type VRRPv3 struct {
	layers.BaseLayer            // Payload: what follows the last address
	Src, Dst         netip.Addr // of the IP packet

	Version   uint8 // 3
	Type      uint8 // 1
	VRID      uint8
	Priority  uint8
	Count     uint8  // of addresses
	Reserved  uint8  // 0; four bits
	Interval  uint16 // centiseconds; twelve bits
	Checksum  uint16
	Addresses []netip.Addr
}

// LayerType returns LayerTypeVRRPv3.
func (v *VRRPv3) LayerType() gopacket.LayerType { return LayerTypeVRRPv3 }

// CanDecode returns LayerTypeVRRPv3.
func (v *VRRPv3) CanDecode() gopacket.LayerClass { return LayerTypeVRRPv3 }

// NextLayerType says that nothing follows.
func (v *VRRPv3) NextLayerType() gopacket.LayerType { return gopacket.LayerTypeZero }

// DecodeFromBytes reads an advert. It is an error if the version is not 3, if
// the addresses do not fit, or if Src says no family.
func (v *VRRPv3) DecodeFromBytes(data []byte, df gopacket.DecodeFeedback) error {
	if !v.Src.IsValid() {
		return errors.New("decode: VRRPv3: the source address is not known, and so not the family")
	}
	if len(data) < vrrpLen {
		df.SetTruncated()
		return fmt.Errorf("decode: VRRPv3: %d bytes, an advert has at least %d", len(data), vrrpLen)
	}
	if version := data[0] >> 4; version != 3 {
		return fmt.Errorf("decode: VRRPv3: the version is %d", version)
	}
	each := 16
	if v.Src.Is4() {
		each = 4
	}
	end := vrrpLen + int(data[3])*each
	if end > len(data) {
		df.SetTruncated()
		return fmt.Errorf("decode: VRRPv3: %d addresses in %d bytes", data[3], len(data)-vrrpLen)
	}
	v.BaseLayer = layers.BaseLayer{Contents: data[:end:end], Payload: data[end:]}
	v.Version, v.Type = data[0]>>4, data[0]&15
	v.VRID, v.Priority, v.Count = data[1], data[2], data[3]
	v.Reserved, v.Interval = data[4]>>4, uint16(data[4]&15)<<8|uint16(data[5])
	v.Checksum = uint16(data[6])<<8 | uint16(data[7])
	v.Addresses = v.Addresses[:0]
	for at := vrrpLen; at < end; at += each {
		a, _ := netip.AddrFromSlice(data[at : at+each])
		v.Addresses = append(v.Addresses, a)
	}
	return nil
}

// MaxInterval is the advertised interval.
func (v *VRRPv3) MaxInterval() time.Duration {
	return time.Duration(v.Interval) * 10 * time.Millisecond
}

// Sum says how the checksum of a decoded advert was made. Over IPv6 a
// pseudo-header belongs to it; over IPv4 both ways are in use (RFC 9568 has
// none, keepalived and FRR have one).
func (v *VRRPv3) Sum() Sum {
	switch {
	case v.Src.Is4() == v.Dst.Is4() && internet(pseudo(v.Src, v.Dst, len(v.Contents)), v.Contents) == 0:
		return SumPseudo
	case v.Src.Is4() && internet(v.Contents) == 0:
		return SumPlain
	}
	return SumWrong
}

// SerializeTo prepends the advert. With FixLengths, Count is made that of
// Addresses; with ComputeChecksums, Checksum is made, with a pseudo-header if Src
// and Dst are valid and without one if they are not.
func (v *VRRPv3) SerializeTo(b gopacket.SerializeBuffer, opts gopacket.SerializeOptions) error {
	if opts.FixLengths {
		v.Count = uint8(len(v.Addresses))
	}
	list := []byte{}
	for _, a := range v.Addresses {
		list = append(list, a.AsSlice()...)
	}
	out, err := b.PrependBytes(vrrpLen + len(list))
	if err != nil {
		return err
	}
	copy(out, []byte{
		v.Version<<4 | v.Type&15, v.VRID, v.Priority, v.Count, v.Reserved<<4 | byte(v.Interval>>8)&15, byte(v.Interval), 0, 0,
	})
	copy(out[vrrpLen:], list)
	if opts.ComputeChecksums {
		var head []byte
		if v.Src.IsValid() && v.Dst.IsValid() {
			head = pseudo(v.Src, v.Dst, len(out))
		}
		v.Checksum = internet(head, out)
	}
	out[6], out[7] = byte(v.Checksum>>8), byte(v.Checksum)
	return nil
}
