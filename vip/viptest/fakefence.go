package viptest

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/carpd/carpd/vip"
)

// FakeFence is a vip.Fence in memory. It measures lives by time.Now, so that it works in
// a synctest bubble. It is safe for concurrent use.
type FakeFence struct {
	mu    sync.Mutex
	hooks FenceHooks
	marks map[uint32]map[fencedAddr]bool
	point map[uint32]uint32
	ends  map[uint32]time.Time
	gone  bool
	done  bool
	calls int
	lost  chan struct{}
}

type fencedAddr struct {
	addr netip.Addr
	link string // of link-local addresses
}

func (a fencedAddr) String() string {
	if a.link == "" {
		return a.addr.String()
	}
	return a.addr.String() + "%" + a.link
}

// FenceHooks are called by a FakeFence, without its lock.
type FenceHooks struct {
	// Before is called at the beginning of each Stage, Set, Protect and Restore, with
	// its name; an error is returned instead of doing it. After is called at the end.
	Before func(call string) error
	After  func(call string)
}

// NewFakeFence returns a fence without marks.
func NewFakeFence() *FakeFence {
	f := &FakeFence{lost: make(chan struct{}, 1)}
	f.empty()
	return f
}

func (f *FakeFence) empty() {
	f.marks, f.point, f.ends = map[uint32]map[fencedAddr]bool{}, map[uint32]uint32{}, map[uint32]time.Time{}
}

// SetHooks replaces the hooks.
func (f *FakeFence) SetHooks(h FenceHooks) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hooks = h
}

// Flush destroys the fence, as somebody else may; told says that it is noticed.
func (f *FakeFence) Flush(told bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gone = true
	if told {
		select {
		case f.lost <- struct{}{}:
		default:
		}
	}
}

// Passes reports whether packets of an address pass on a link: it is not protected, or
// the tag of its mark lives.
func (f *FakeFence) Passes(addr, link string) bool {
	return !time.Now().Before(f.since(addr, link)) || time.Now().Before(f.Ends(addr, link))
}

// since is the zero time for what is not protected, else the end of time.
func (f *FakeFence) since(addr, link string) time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.find(addr, link); ok {
		return time.Unix(1<<40, 0)
	}
	return time.Time{}
}

// Ends returns when the tag dies that the mark of an address is set to; the zero time if
// it is set to none, or the address is not protected.
func (f *FakeFence) Ends(addr, link string) time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	mark, ok := f.find(addr, link)
	if !ok {
		return time.Time{}
	}
	return f.ends[f.point[mark]]
}

func (f *FakeFence) find(addr, link string) (uint32, bool) {
	if f.gone || f.done {
		return 0, false
	}
	for _, k := range keysOf(netip.MustParseAddr(addr), []string{link}) {
		for mark, has := range f.marks {
			if has[k] {
				return mark, true
			}
		}
	}
	return 0, false
}

// Calls returns how many Stage and Set there were.
func (f *FakeFence) Calls() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls
}

// String prints the marks with their addresses and whether they are open.
func (f *FakeFence) String() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var b strings.Builder
	for _, mark := range slices.Sorted(maps.Keys(f.marks)) {
		state := "closed"
		if left := time.Until(f.ends[f.point[mark]]); left > 0 {
			state = "open for " + left.String()
		}
		fmt.Fprintf(&b, "mark %d %s: %v\n", mark, state, slices.Collect(maps.Keys(f.marks[mark])))
	}
	return b.String()
}

func keysOf(a netip.Addr, links []string) []fencedAddr {
	if !a.Is6() || !a.IsLinkLocalUnicast() {
		return []fencedAddr{{addr: a}}
	}
	out := make([]fencedAddr, len(links))
	for i, l := range links {
		out[i] = fencedAddr{a, l}
	}
	return out
}

// do runs f between the hooks, unless the fence is closed.
func (f *FakeFence) do(call string, act func() error) error {
	f.mu.Lock()
	h := f.hooks
	f.mu.Unlock()
	if h.Before != nil {
		if err := h.Before(call); err != nil {
			return err
		}
	}
	f.mu.Lock()
	err := error(nil)
	switch {
	case f.done:
		err = &vip.OpError{Op: "change the fence", Err: vip.ErrNoFence}
	case f.gone && call != "Restore":
		err = &vip.OpError{Op: "change the fence", Err: vip.ErrFenceLost}
	default:
		err = act()
	}
	f.mu.Unlock()
	if h.After != nil {
		h.After(call)
	}
	return err
}

// Protect implements vip.Fence.
func (f *FakeFence) Protect(mark uint32, links []string, addrs []netip.Addr) error {
	return f.do("Protect", func() error {
		is := map[fencedAddr]bool{}
		for _, a := range addrs {
			for _, k := range keysOf(a, links) {
				is[k] = true
			}
		}
		for other, has := range f.marks {
			for k := range is {
				if other != mark && has[k] {
					return &vip.OpError{Op: "fence", Err: vip.ErrFenced}
				}
			}
		}
		f.marks[mark] = is
		return nil
	})
}

// Forget implements vip.Fence.
func (f *FakeFence) Forget(mark uint32) error {
	return f.do("Forget", func() error {
		delete(f.marks, mark)
		delete(f.point, mark)
		return nil
	})
}

// Stage implements vip.Fence.
func (f *FakeFence) Stage(stages []vip.Stage) error {
	return f.do("Stage", func() error {
		f.calls++
		for _, s := range stages {
			if end := f.ends[s.Tag]; end.After(time.Now()) {
				continue // to add what is there does nothing
			}
			f.ends[s.Tag] = time.Now().Add(max(s.Life.Truncate(time.Millisecond), time.Millisecond))
		}
		return nil
	})
}

// Set implements vip.Fence.
func (f *FakeFence) Set(points []vip.Point) error {
	return f.do("Set", func() error {
		f.calls++
		for _, p := range points {
			if _, known := f.marks[p.Mark]; !known {
				return &vip.OpError{Op: "change the fence", Err: vip.ErrFenceLost}
			}
		}
		for _, p := range points {
			f.point[p.Mark] = p.Tag
		}
		return nil
	})
}

// Restore implements vip.Fence.
func (f *FakeFence) Restore() error {
	return f.do("Restore", func() error {
		f.gone = false
		clear(f.point)
		clear(f.ends)
		return nil
	})
}

// Lost implements vip.Fence.
func (f *FakeFence) Lost() <-chan struct{} { return f.lost }

// Guarded implements vip.Fence: it is not, see Flush.
func (f *FakeFence) Guarded() bool { return false }

// RemoveStale implements vip.Fence: there is never one.
func (f *FakeFence) RemoveStale() ([]string, error) { return nil, nil }

// Close implements vip.Fence.
func (f *FakeFence) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.done = true
	f.empty()
	return nil
}
