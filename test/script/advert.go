package script

import (
	"fmt"
	"net/netip"

	"github.com/carpd/carpd/carp"
)

// stranger is the machine that injects: not a member of the group.
const stranger = "stranger"

// Advert is a packet to be injected. Its zero value is an authentic advert of
// advbase 0 and advskew 0 without counter; parseInject begins with better values.
type Advert struct {
	carp.Advert
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
	a := &Advert{
		Advert: carp.NewAdvert(vhid, 1, 0), Pass: defaultPass, TTL: 255, Left: -1, Times: 1,
	}
	a.Counter = 1
	if len(p.file.Nodes) > 0 {
		a.Pass, a.Addresses = p.file.Nodes[0].Pass, p.file.Nodes[0].Addresses
		a.V6 = carp.FamilyOf(a.Addresses[0]) == carp.IPv6
	}
	for len(args) > 0 {
		if args[0] == "bowout" {
			a.AdvBase, a.AdvSkew = 255, 255
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
		a.BadChecksum, err = oneOf(key, value, "bad")
	default:
		return fmt.Errorf("unknown field %q: there are base, skew, pass, from, to, vhid, ttl, addr, counter, demote, version, family, cut, pad, checksum, bowout, times", key)
	}
	if err != nil {
		return fmt.Errorf("%s %w", key, err)
	}
	return nil
}

// payload returns the bytes behind the IP header of the nth copy, which has a
// counter of its own.
func (a *Advert) payload(nth int) []byte {
	adv := a.Advert
	adv.Counter += uint64(nth)
	adv.Digest = carp.NewDigest(adv.VHID, []byte(a.Pass), a.Addresses, carp.DigestOptions{}).Sum(adv.Counter)
	b := adv.Append(nil)
	if a.BadChecksum {
		b[6] ^= 0x55
	}
	b = append(b, make([]byte, a.Pad)...)
	if a.Left >= 0 {
		b = b[:a.Left]
	}
	return b
}

// packet returns the nth copy, given where it comes from and goes to; to is the
// zero value for the group.
func (a *Advert) packet(nth int, src carp.Local, to carp.Local) carp.Packet {
	p := carp.Packet{Src: src.IPv4, Dst: carp.Group(carp.IPv4), SrcMAC: src.MAC, TTL: a.TTL, Payload: a.payload(nth), Broadcast: true}
	if a.V6 {
		p.Src, p.Dst = src.IPv6, carp.Group(carp.IPv6)
	}
	if a.To != "" {
		p.Broadcast = false
		if p.Dst = to.IPv4; a.V6 {
			p.Dst = to.IPv6
		}
	}
	return p
}
