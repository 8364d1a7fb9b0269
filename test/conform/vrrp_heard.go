package conform

import (
	"net/netip"
	"slices"
	"time"

	"github.com/google/gopacket"

	"github.com/carpd/carpd/test/decode"
)

// vrrpSeen is an advert of either version of VRRP as it was heard.
type vrrpSeen struct {
	version, kind, vrid, priority, count uint8
	reserved                             uint8 // version 3: the nibble before the interval
	authType                             uint8 // version 2
	auth                                 [8]byte
	interval                             time.Duration
	sum                                  decode.Sum
	addrs                                []netip.Addr
	length, trailing                     int // bytes of the advert, and of what follows it within the packet
}

// readVRRP returns the packet's advert, nil if it has none.
func readVRRP(p gopacket.Packet) *vrrpSeen {
	if v, ok := p.Layer(decode.LayerTypeVRRPv3).(*decode.VRRPv3); ok {
		return &vrrpSeen{
			version: v.Version, kind: v.Type, vrid: v.VRID, priority: v.Priority, count: v.Count, reserved: v.Reserved,
			interval: v.MaxInterval(), sum: v.Sum(), addrs: slices.Clone(v.Addresses), length: len(v.Contents), trailing: len(v.Payload),
		}
	}
	if v, ok := p.Layer(decode.LayerTypeVRRPv2).(*decode.VRRPv2); ok {
		return &vrrpSeen{
			version: v.Version, kind: v.Type, vrid: v.VRID, priority: v.Priority, count: v.Count, authType: v.AuthType, auth: v.Auth,
			interval: time.Duration(v.Interval) * time.Second, sum: v.Sum(), addrs: slices.Clone(v.Addresses),
			length: len(v.Contents), trailing: len(v.Payload),
		}
	}
	return nil
}
