package script

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/carpd/carpd/carp"
)

// stranger is the machine that injects: not a member of the group.
const stranger = "stranger"

// Advert is a packet to be injected. Its zero value is an authentic advert of
// advbase 0 and advskew 0 without counter; parseInject begins with better values.
type Advert struct {
	carp.Advert
	Protocol    carp.Protocol // VRRP: Version, VHID, Pass and Addresses count as well, and the next three
	Priority    uint8
	Interval    time.Duration
	Sum         carp.Checksum
	Pass        string
	Addresses   []netip.Addr // of the hash
	From        string       // whose address is spoofed; "": the stranger's own
	To          string       // a node, by unicast; "": the group
	V6          bool
	TTL         uint8
	Left        int // bytes of the payload that are left; negative: all
	Pad         int // bytes more
	BadChecksum bool
	Times       int
}

// maxTimes bounds how often one command injects, maxPad how long a packet gets.
const (
	maxTimes = 1000
	maxPad   = 1000
)

func parseInject(p *parser, c *Command, args []string) error {
	a := &Advert{Advert: carp.NewAdvert(vhid, 1, 0), Pass: defaultPass, TTL: 255, Left: -1, Times: 1}
	a.Counter = 1
	if len(p.file.Nodes) > 0 {
		n := &p.file.Nodes[0]
		a.Pass, a.Addresses, a.V6 = n.pass(), n.Addresses, carp.FamilyOf(n.Addresses[0]) == carp.IPv6
		a.Protocol, a.Sum = n.Protocol, n.Checksum
		c := n.config(nil)
		a.Interval = c.AdvertInterval()
	}
	if len(args) > 1 && args[0] == "protocol" {
		protocol, err := carp.ParseProtocol(args[1])
		if err != nil {
			return err
		}
		a.Protocol, args = protocol, args[2:]
	}
	if a.Protocol.VRRP() {
		a.Version, a.Priority = versionOf(a.Protocol), carp.MaxPriority
	}
	for len(args) > 0 {
		if args[0] == "bowout" {
			a.AdvBase, a.AdvSkew, a.Priority = 255, 255, 0
			args = args[1:]
			continue
		}
		if len(args) == 1 {
			return fmt.Errorf("%s: a value is missing", args[0])
		}
		if err := a.field(p, args[0], args[1]); err != nil {
			return err
		}
		args = args[2:]
	}
	c.Advert = a
	return nil
}

func (a *Advert) field(p *parser, key, value string) (err error) {
	n := 0
	byteOf := func(to *uint8) {
		if n, err = number(value, 0, 255); err == nil {
			*to = uint8(n)
		}
	}
	switch key {
	case "priority":
		byteOf(&a.Priority)
	case "interval":
		a.Interval, err = duration(value)
	case "base":
		byteOf(&a.AdvBase)
	case "skew":
		byteOf(&a.AdvSkew)
	case "vhid":
		byteOf(&a.VHID)
	case "ttl":
		byteOf(&a.TTL)
	case "demote":
		byteOf(&a.Demote)
	case "version":
		if n, err = number(value, 0, 15); err == nil {
			a.Version = uint8(n)
		}
	case "counter":
		n, err = number(value, 0, 1<<62)
		a.Counter = uint64(n)
	case "pass":
		a.Pass = value
	case "addr":
		a.Addresses, err = addresses(value)
	case "from":
		a.From, err = value, p.node(value)
	case "to":
		a.To, err = value, p.node(value)
	case "family":
		if value != "4" && value != "6" {
			err = fmt.Errorf("%q: give 4 or 6", value)
		}
		a.V6 = value == "6"
	case "cut":
		a.Left, err = number(value, 0, carp.HeaderLen)
	case "pad":
		a.Pad, err = number(value, 0, maxPad)
	case "times":
		a.Times, err = number(value, 1, maxTimes)
	case "checksum":
		err = a.checksum(value)
	default:
		return fmt.Errorf("unknown field %q: there are protocol, priority, interval, base, skew, pass, from, to, vhid, ttl, addr, counter, demote, version, family, cut, pad, checksum, bowout, times", key)
	}
	if err != nil {
		return fmt.Errorf("%s %w", key, err)
	}
	return nil
}

// checksum takes the form of a checksum, or bad.
func (a *Advert) checksum(value string) error {
	for _, form := range []carp.Checksum{carp.ChecksumPseudo, carp.ChecksumRFC9568, carp.ChecksumOldUnicast} {
		if value == form.String() {
			a.Sum = form
			return nil
		}
	}
	a.BadChecksum = value == "bad"
	if !a.BadChecksum {
		return fmt.Errorf("%q: give bad, pseudo-header, rfc9568 or old-unicast", value)
	}
	return nil
}

func versionOf(p carp.Protocol) uint8 {
	if p == carp.VRRP2 {
		return 2
	}
	return 3
}

// advert encodes the nth copy from one address to another. One of CARP has a counter
// of its own.
func (a *Advert) advert(nth int, src, dst netip.Addr) []byte {
	if !a.Protocol.VRRP() {
		adv := a.Advert
		adv.Counter += uint64(nth)
		adv.Digest = carp.NewDigest(adv.VHID, []byte(a.Pass), a.Addresses, carp.DigestOptions{}).Sum(adv.Counter)
		return adv.Append(nil)
	}
	adv := carp.NewVRRPAdvert(a.Version, a.VHID, a.Priority, a.Interval, a.Addresses)
	adv.Sum = a.Sum
	if a.Version == 2 && a.Pass != "" {
		adv.AuthType = 1 // text (RFC 2338, 5.3.6)
		copy(adv.Password[:], a.Pass)
	}
	return adv.Append(nil, src, dst)
}

// payload returns the bytes behind the IP header of the nth copy.
func (a *Advert) payload(nth int, src, dst netip.Addr) []byte {
	b := a.advert(nth, src, dst)
	if a.BadChecksum {
		b[6] ^= 0x55
	}
	b = append(b, make([]byte, a.Pad)...)
	if a.Left >= 0 {
		b = b[:min(a.Left, len(b))]
	}
	return b
}

// packet returns the nth copy, given where it comes from and goes to; to is the
// zero value for the group.
func (a *Advert) packet(nth int, src carp.Local, to carp.Local) carp.Packet {
	p := carp.Packet{Src: src.IPv4, Dst: carp.Group(carp.IPv4), SrcMAC: src.MAC, TTL: a.TTL, Broadcast: true}
	if a.V6 {
		p.Src, p.Dst = src.IPv6, carp.Group(carp.IPv6)
	}
	if a.To != "" {
		p.Broadcast = false
		if p.Dst = to.IPv4; a.V6 {
			p.Dst = to.IPv6
		}
	}
	p.Payload = a.payload(nth, p.Src, p.Dst)
	return p
}
