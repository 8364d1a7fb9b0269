package conform

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/carpd/carpd/test/decode"
)

// maxSightings bounds what is remembered; the rest is counted.
const maxSightings = 50_000

// kind is what a sighting is of.
type kind uint8

const (
	advert    kind = iota // an authentic advert of the group
	forged                // an advert of the vhid with another HMAC
	announced             // a gratuitous ARP for a shared address
	answered              // an ARP reply, or a neighbour advertisement, to the tester
	neighbour             // a neighbour advertisement for a shared address
)

// sighting is one packet that concerns the group.
type sighting struct {
	kind     kind
	at       time.Time
	frame    []byte
	from, to net.HardwareAddr
	src, dst netip.Addr // of the IP packet
	ttl, tos uint8
	id       uint16
	df       bool

	carp *decode.CARP // advert, forged; of CARP
	vrrp *vrrpSeen    // advert; of VRRP
	arp  *layers.ARP  // announced, answered
	addr netip.Addr   // announced, answered, neighbour: whose
	na   *layers.ICMPv6NeighborAdvertisement
}

// record remembers what was heard, in the order of arrival. It is safe for
// concurrent use.
type record struct {
	key    []byte
	addrs  []netip.Addr
	vhid   uint8
	tester net.HardwareAddr
	vrrp   bool // VRRP is spoken here, and not CARP

	mu   sync.Mutex
	all  []*sighting
	lost int
	more chan struct{} // closed and replaced with each addition
}

// add decodes a frame and remembers it if it concerns the group.
func (r *record) add(at time.Time, frame []byte) {
	s := r.read(frame)
	if s == nil {
		return
	}
	s.at, s.frame = at, frame
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.all) >= maxSightings {
		r.lost++
		return
	}
	r.all = append(r.all, s)
	close(r.more)
	r.more = make(chan struct{})
}

func (r *record) read(frame []byte) *sighting {
	p := r.decode(frame)
	eth, ok := p.LinkLayer().(*layers.Ethernet)
	if !ok {
		return nil
	}
	s := &sighting{from: eth.SrcMAC, to: eth.DstMAC}
	if arp, ok := p.Layer(layers.LayerTypeARP).(*layers.ARP); ok {
		return r.readARP(s, arp)
	}
	switch ip := p.NetworkLayer().(type) {
	case *layers.IPv4:
		s.src, _ = netip.AddrFromSlice(ip.SrcIP)
		s.dst, _ = netip.AddrFromSlice(ip.DstIP)
		s.ttl, s.tos, s.id, s.df = ip.TTL, ip.TOS, ip.Id, ip.Flags&layers.IPv4DontFragment != 0
	case *layers.IPv6:
		s.src, _ = netip.AddrFromSlice(ip.SrcIP)
		s.dst, _ = netip.AddrFromSlice(ip.DstIP)
		s.ttl, s.tos = ip.HopLimit, ip.TrafficClass
	}
	if r.vrrp {
		if v := readVRRP(p); v != nil && v.vrid == r.vhid {
			s.vrrp = v // with a wrong checksum too: row A-CHECKSUM says so
			return s
		}
	} else if c, ok := p.Layer(decode.LayerTypeCARP).(*decode.CARP); ok && c.VHID == r.vhid {
		s.carp = c
		if c.Digest != c.Sign(r.key, r.addrs) {
			s.kind = forged
		}
		return s
	}
	if na, ok := p.Layer(layers.LayerTypeICMPv6NeighborAdvertisement).(*layers.ICMPv6NeighborAdvertisement); ok {
		s.kind, s.na = neighbour, na
		if s.addr, _ = netip.AddrFromSlice(na.TargetAddress); slices.Equal(s.to, r.tester) {
			s.kind = answered
			return s
		}
		if slices.Contains(r.addrs, s.addr) {
			return s
		}
	}
	return nil
}

// decode reads a frame as what is spoken here.
func (r *record) decode(frame []byte) gopacket.Packet {
	if !r.vrrp {
		return decode.Packet(frame, decode.CARPv2)
	}
	p := decode.Packet(frame, decode.VRRPV3)
	if p.Layer(decode.LayerTypeVRRPv3) == nil {
		if q := decode.Packet(frame, decode.VRRPV2); q.Layer(decode.LayerTypeVRRPv2) != nil {
			return q
		}
	}
	return p
}

func (r *record) readARP(s *sighting, arp *layers.ARP) *sighting {
	sender, ok1 := netip.AddrFromSlice(arp.SourceProtAddress)
	target, ok2 := netip.AddrFromSlice(arp.DstProtAddress)
	if !ok1 || !ok2 || len(arp.SourceHwAddress) != 6 || len(arp.DstHwAddress) != 6 {
		return nil
	}
	s.arp, s.addr = arp, sender
	switch {
	case sender == target && slices.Contains(r.addrs, sender):
		s.kind = announced
	case arp.Operation == layers.ARPReply && slices.Equal(s.to, r.tester):
		s.kind = answered
	default:
		return nil
	}
	return s
}

// len is a mark: what comes later is after it.
func (r *record) len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.all)
}

// since returns what was heard after a mark and is wanted.
func (r *record) since(mark int, want func(*sighting) bool) (found []*sighting) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.all[min(mark, len(r.all)):] {
		if want(s) {
			found = append(found, s)
		}
	}
	return found
}

// await returns the first wanted one after a mark, or nil at the time or when
// ctx ends.
func (r *record) await(ctx context.Context, mark int, until time.Time, want func(*sighting) bool) *sighting {
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	for {
		r.mu.Lock()
		fresh, more := r.all[min(mark, len(r.all)):], r.more
		r.mu.Unlock()
		for _, s := range fresh {
			if want(s) {
				return s
			}
		}
		mark += len(fresh)
		select {
		case <-more:
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}
