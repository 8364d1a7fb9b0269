package receive

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// run is some pages in a row.
type run struct {
	pages int64
	base  int64 // the page of base that the first one is the same as; sent: it is not in base
}

// sent is the base of pages that are sent.
const sent = -1

// plan says of each page of a snapshot, from some page on, where it comes from.
type plan []run

// maxPlan bounds what a plan takes, in bytes: an entry has 20 at most, and a database
// of 1 GiB with the smallest pages as many entries as pages at worst.
const maxPlan = 48 << 20

// add appends a page. It is the same as that page of base, or sent.
func (p plan) add(base int64) plan {
	if n := len(p); n > 0 {
		last := &p[n-1]
		if base == sent && last.base == sent || base != sent && last.base != sent && last.base+last.pages == base {
			last.pages++
			return p
		}
	}
	return append(p, run{1, base})
}

// sent returns how many pages are sent.
func (p plan) sent() int64 {
	n := int64(0)
	for _, r := range p {
		if r.base == sent {
			n += r.pages
		}
	}
	return n
}

// encode returns the plan as bytes: for each run its length, doubled, plus one if it is
// in base; for those, how far its page is from where the last such run ended.
func (p plan) encode() []byte {
	var b []byte
	next := int64(0)
	for _, r := range p {
		if r.base == sent {
			b = binary.AppendUvarint(b, uint64(r.pages)<<1)
			continue
		}
		b = binary.AppendUvarint(b, uint64(r.pages)<<1|1)
		b = binary.AppendVarint(b, r.base-next)
		next = r.base + r.pages
	}
	return b
}

var errPlan = errors.New("receive: a plan that makes no sense")

// decodePlan reads a plan for so many pages that uses a base of so many. It trusts
// nothing.
func decodePlan(b []byte, pages, basePages int64) (plan, error) {
	var p plan
	next := int64(0)
	for len(b) > 0 {
		head, n := binary.Uvarint(b)
		count := int64(head >> 1)
		if n <= 0 || count <= 0 || count > pages {
			return nil, fmt.Errorf("%w: a run of %d pages, and %d are left", errPlan, count, pages)
		}
		b, pages = b[n:], pages-count
		if head&1 == 0 {
			p = append(p, run{count, sent})
			continue
		}
		away, n := binary.Varint(b)
		from := next + away
		if n <= 0 || from < 0 || from > basePages || count > basePages-from {
			return nil, fmt.Errorf("%w: pages %d to %d of a base of %d", errPlan, from, from+count, basePages)
		}
		b, next = b[n:], from+count
		p = append(p, run{count, from})
	}
	if pages != 0 {
		return nil, fmt.Errorf("%w: it lacks %d pages", errPlan, pages)
	}
	return p, nil
}

// unused returns the pages of base that a plan does not use, the first max of them:
// most of what is sent looks like those. Both sides compress by them.
func (p plan) unused(basePages, most int64) []int64 {
	used := make([]bool, basePages)
	for _, r := range p {
		if r.base != sent {
			for i := range r.pages {
				used[r.base+i] = true
			}
		}
	}
	var all []int64
	for i, u := range used {
		if !u && int64(len(all)) < most {
			all = append(all, int64(i))
		}
	}
	return all
}
