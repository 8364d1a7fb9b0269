package conform

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/carpd/carpd/test/decode"
)

// adverts evaluates every advert that the speaker sent during the run.
func (t *tester) adverts() {
	all := t.log.since(0, func(s *sighting) bool { return t.ours(s) || s.kind == advert && s.src.Is6() })
	v4 := slices.DeleteFunc(slices.Clone(all), func(s *sighting) bool { return s.src.Is6() })
	if len(v4) == 0 {
		return
	}
	each := func(id string, of []*sighting, say func(*sighting) string) {
		outcome := distinct(of, say)
		t.row(id, outcome, "%s in %d adverts", outcome, len(of))
	}
	each("A-VERSION", all, func(s *sighting) string { return fmt.Sprintf("%d, type %d", s.carp.Version, s.carp.Type) })
	each("A-LENGTH", all, func(s *sighting) string { return fmt.Sprint(len(s.carp.Contents) + len(s.carp.Payload)) })
	each("A-AUTHLEN", all, func(s *sighting) string { return fmt.Sprint(s.carp.AuthLen) })
	each("A-PAD", all, func(s *sighting) string { return fmt.Sprint(s.carp.Pad) })
	each("A-CHECKSUM", all, func(s *sighting) string { return s.carp.Sum().String() })
	each("A-TTL", all, func(s *sighting) string { return fmt.Sprint(s.ttl) })
	each("A-DST", v4, func(s *sighting) string { return fmt.Sprintf("%v at %v", s.dst, s.to) })
	each("A-TOS", v4, func(s *sighting) string { return fmt.Sprintf("0x%02x", s.tos) })
	each("A-DF", v4, func(s *sighting) string {
		if s.df {
			return "set"
		}
		return "clear"
	})
	t.row("A-IPID", identification(v4), "%s in %d adverts", identification(v4), len(v4))

	timings := distinct(v4, func(s *sighting) string { return fmt.Sprintf("%d/%d", s.carp.AdvBase, s.carp.AdvSkew) })
	outcome := timings
	if timings == fmt.Sprintf("1/%d", t.cfg.AdvSkew) {
		outcome = "as configured"
	}
	t.row("A-TIMING", outcome, "%s in %d adverts", timings, len(v4))

	outcome = "an own address"
	if slices.Contains(t.cfg.Addresses, t.speaker) {
		outcome = "a shared address"
	}
	t.row("A-SRC", outcome, "%v", t.speaker)
	macs := distinct(v4, func(s *sighting) string { return s.from.String() })
	t.row("A-SRCMAC", distinct(v4, func(s *sighting) string { return t.owner(s.from) }), "%s in %d adverts", macs, len(v4))

	bad := t.log.since(0, func(s *sighting) bool { return s.kind == forged })
	if len(bad) > 0 {
		t.row("A-HMAC", "wrong", "wrong in %d packets of the vhid, right in %d", len(bad), len(all))
	} else {
		t.row("A-HMAC", "right", "right in %d adverts", len(all))
	}
}

// owner says whose a MAC is.
func (t *tester) owner(mac []byte) string {
	switch {
	case bytes.Equal(mac, virtualMAC(t.cfg.VHID)):
		return "virtual"
	case t.mac != nil && bytes.Equal(mac, t.mac):
		return "own"
	}
	return fmt.Sprintf("% x", mac)
}

// distinct joins the different things that are said of sightings.
func distinct(all []*sighting, say func(*sighting) string) string {
	var values []string
	for _, s := range all {
		if v := say(s); !slices.Contains(values, v) {
			values = append(values, v)
		}
	}
	return strings.Join(values, " and ")
}

func identification(all []*sighting) string {
	same := true
	for _, s := range all {
		same = same && s.id == all[0].id
	}
	switch {
	case !same:
		return "varies"
	case all[0].id == 0:
		return "0"
	}
	return "constant"
}

// counters says how the counters of adverts, which followed each other, came
// about.
func counters(all []*sighting) string {
	constant, plusOne, clock := true, true, true
	for i, s := range all {
		clock = clock && sealed(s.carp)
		if i == 0 {
			continue
		}
		before := all[i-1]
		constant = constant && s.carp.Counter == before.carp.Counter
		plusOne = plusOne && s.carp.Counter == before.carp.Counter+1
		passed := time.Duration(s.carp.Counter>>24-before.carp.Counter>>24) * time.Millisecond
		drift := passed - s.at.Sub(before.at)
		clock = clock && drift.Abs() < 300*time.Millisecond
	}
	switch {
	case clock:
		return "group clock"
	case constant:
		return "constant"
	case plusOne:
		return "plus 1 each"
	}
	return "random"
}

// sealed reports whether the counter ends in the timing that it is sent with, as
// ours does.
func sealed(c *decode.CARP) bool {
	return uint8(c.Counter) == c.AdvSkew && uint8(c.Counter>>8) == c.AdvBase
}

// gaps returns the times between adverts, ascending.
func gaps(all []*sighting) (found []time.Duration) {
	for i := 1; i < len(all); i++ {
		found = append(found, all[i].at.Sub(all[i-1].at))
	}
	slices.Sort(found)
	return found
}

func ms(d time.Duration) string {
	return fmt.Sprintf("%d ms", d.Round(time.Millisecond).Milliseconds())
}
