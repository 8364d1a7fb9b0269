package conform

import (
	"fmt"
	"slices"

	"github.com/carpd/carpd/test/decode"
)

// adverts evaluates every advert that the speaker sent during the run.
func (t *vrrpTester) adverts() {
	all := t.log.since(0, t.ours)
	if len(all) == 0 {
		return
	}
	each := func(id string, of []*sighting, say func(*sighting) string) {
		outcome := distinct(of, say)
		t.row(id, outcome, "%s in %d adverts", outcome, len(of))
	}
	each("A-VERSION", all, func(s *sighting) string { return fmt.Sprintf("%d, type %d", s.vrrp.version, s.vrrp.kind) })
	each("A-LIST", all, func(s *sighting) string { return t.list(s.vrrp) })
	if t.six() {
		each("A-LINKLOCAL", all, func(s *sighting) string {
			if len(s.vrrp.addrs) > 0 && s.vrrp.addrs[0].IsLinkLocalUnicast() {
				return "link-local"
			}
			return "another"
		})
	}
	each("A-INTERVAL", all, func(s *sighting) string {
		if s.vrrp.interval == t.cfg.Interval {
			return "as configured"
		}
		return s.vrrp.interval.String()
	})
	if t.cfg.Version == 3 {
		each("A-RESERVED", all, func(s *sighting) string { return fmt.Sprint(s.vrrp.reserved) })
	} else {
		each("A-AUTH", all, t.authentication)
	}
	each("A-CHECKSUM", all, t.checksum)
	each("A-LENGTH", all, func(s *sighting) string {
		if s.vrrp.trailing > 0 {
			return fmt.Sprintf("%d bytes more", s.vrrp.trailing)
		}
		return "exact"
	})
	each("A-TTL", all, func(s *sighting) string { return fmt.Sprint(s.ttl) })
	each("A-DST", all, func(s *sighting) string { return fmt.Sprintf("%v at %v", s.dst, s.to) })
	each("A-TOS", all, func(s *sighting) string { return fmt.Sprintf("0x%02x", s.tos) })
	macs := distinct(all, func(s *sighting) string { return s.from.String() })
	t.row("A-SRCMAC", distinct(all, func(s *sighting) string { return t.owner(s.from) }), "%s in %d adverts", macs, len(all))
	t.row("A-SRC", t.source(), "%v", t.speaker)
	if !t.six() {
		each("A-DF", all, func(s *sighting) string {
			if s.df {
				return "set"
			}
			return "clear"
		})
	}
}

// list compares an advert's addresses with those configured.
func (t *vrrpTester) list(v *vrrpSeen) string {
	if slices.Equal(v.addrs, t.cfg.Addresses) {
		return "as configured"
	}
	for _, a := range t.cfg.Addresses {
		if len(v.addrs) != len(t.cfg.Addresses) || !slices.Contains(v.addrs, a) {
			return fmt.Sprint(v.addrs)
		}
	}
	return "in another order"
}

// checksum says of what form an advert's is.
func (t *vrrpTester) checksum(s *sighting) string {
	switch {
	case s.vrrp.sum == decode.SumWrong:
		return "wrong"
	case t.cfg.Version == 2 || t.six():
		return "right"
	case s.vrrp.sum == decode.SumPseudo:
		return "with pseudo-header"
	}
	return "without pseudo-header"
}

// authentication compares type and data with what is configured.
func (t *vrrpTester) authentication(s *sighting) string {
	want := t.advert(t.peer, 1)
	if s.vrrp.authType == want.authType && s.vrrp.auth == want.auth {
		return "as configured"
	}
	return fmt.Sprintf("type %d, data %x", s.vrrp.authType, s.vrrp.auth)
}

func (t *vrrpTester) source() string {
	switch {
	case slices.Contains(t.cfg.Addresses, t.speaker):
		return "a shared address"
	case t.six() && !t.speaker.IsLinkLocalUnicast():
		return "not link-local"
	case t.six():
		return "link-local"
	}
	return "an own address"
}
