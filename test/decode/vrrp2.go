package decode

import (
	"fmt"
	"net/netip"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

const vrrpAuthLen = 8

// VRRPv2 is an advert of VRRP version 2 (RFC 3768 section 5.1, with the
// authentication of RFC 2338 section 5.3.6). It is a gopacket.DecodingLayer.
// Fields are in wire units and, but for version and length, not checked.
type VRRPv2 struct {
	layers.BaseLayer // Payload: what follows the authentication data

	Version   uint8 // 2
	Type      uint8 // 1
	VRID      uint8
	Priority  uint8
	Count     uint8 // of addresses
	AuthType  uint8 // 0 none, 1 text password, 2 authentication header
	Interval  uint8 // seconds
	Checksum  uint16
	Addresses []netip.Addr // IPv4
	Auth      [8]byte      // there even without authentication
}

// LayerType returns LayerTypeVRRPv2.
func (v *VRRPv2) LayerType() gopacket.LayerType { return LayerTypeVRRPv2 }

// CanDecode returns LayerTypeVRRPv2.
func (v *VRRPv2) CanDecode() gopacket.LayerClass { return LayerTypeVRRPv2 }

// NextLayerType says that nothing follows.
func (v *VRRPv2) NextLayerType() gopacket.LayerType { return gopacket.LayerTypeZero }

// DecodeFromBytes reads an advert. It is an error if the version is not 2 or if
// addresses and authentication data do not fit.
func (v *VRRPv2) DecodeFromBytes(data []byte, df gopacket.DecodeFeedback) error {
	if len(data) < vrrpLen+vrrpAuthLen {
		df.SetTruncated()
		return fmt.Errorf("decode: VRRPv2: %d bytes, an advert has at least %d", len(data), vrrpLen+vrrpAuthLen)
	}
	if version := data[0] >> 4; version != 2 {
		return fmt.Errorf("decode: VRRPv2: the version is %d", version)
	}
	auth := vrrpLen + int(data[3])*4
	end := auth + vrrpAuthLen
	if end > len(data) {
		df.SetTruncated()
		return fmt.Errorf("decode: VRRPv2: %d addresses and authentication data in %d bytes", data[3], len(data)-vrrpLen)
	}
	v.BaseLayer = layers.BaseLayer{Contents: data[:end:end], Payload: data[end:]}
	v.Version, v.Type = data[0]>>4, data[0]&15
	v.VRID, v.Priority, v.Count, v.AuthType, v.Interval = data[1], data[2], data[3], data[4], data[5]
	v.Checksum = uint16(data[6])<<8 | uint16(data[7])
	v.Addresses = v.Addresses[:0]
	for at := vrrpLen; at < auth; at += 4 {
		v.Addresses = append(v.Addresses, netip.AddrFrom4([4]byte(data[at:at+4])))
	}
	copy(v.Auth[:], data[auth:end])
	return nil
}

// Sum says whether the checksum of a decoded advert is right: it covers the
// advert with its authentication data, and no pseudo-header.
func (v *VRRPv2) Sum() Sum {
	if internet(v.Contents) == 0 {
		return SumPlain
	}
	return SumWrong
}

// SerializeTo prepends the advert. With FixLengths, Count is made that of
// Addresses; with ComputeChecksums, Checksum is made.
func (v *VRRPv2) SerializeTo(b gopacket.SerializeBuffer, opts gopacket.SerializeOptions) error {
	if opts.FixLengths {
		v.Count = uint8(len(v.Addresses))
	}
	out, err := b.PrependBytes(vrrpLen + 4*len(v.Addresses) + vrrpAuthLen)
	if err != nil {
		return err
	}
	copy(out, []byte{v.Version<<4 | v.Type&15, v.VRID, v.Priority, v.Count, v.AuthType, v.Interval, 0, 0})
	at := vrrpLen
	for _, a := range v.Addresses {
		at += copy(out[at:at+4], a.AsSlice())
	}
	copy(out[at:], v.Auth[:])
	if opts.ComputeChecksums {
		v.Checksum = internet(out)
	}
	out[6], out[7] = byte(v.Checksum>>8), byte(v.Checksum)
	return nil
}
