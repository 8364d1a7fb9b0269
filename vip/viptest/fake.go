package viptest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/vip"
)

// FakeKernel is a vip.Kernel in memory. Make one with NewFakeKernel. It keeps
// addresses as Linux does: IPv4 by address and prefix length, with secondaries
// that go with their primary; IPv6 by address; lifetimes that end. Its methods
// may be called from several goroutines at once.
type FakeKernel struct {
	mu       sync.Mutex
	links    []*fakeLink
	next     int
	watchers map[*func(vip.Notice)]struct{}
	hooks    Hooks
	batches  [][]vip.Change
	sent     []Frame
	closed   bool
	sessions []*fakeSession
	ears     []*fakeEar
}

// Hooks are called by a FakeKernel, without its lock. Each may be nil.
type Hooks struct {
	// BeforeApply is called before a batch takes effect: sleep here to be frozen
	// between the check of a permit and the system call.
	BeforeApply func([]vip.Change)
	// BeforeList is called before addresses are listed: sleep here to let a permit
	// run out between its first check and the batch.
	BeforeList func()
	// Fail returns the error of one change, which is then not made.
	Fail func(vip.Change) error
	// FailDevice returns the error of a device that is about to be made.
	FailDevice func(vip.Device) error
	// BeforeSever is called before sockets are destroyed; its error is Sever's.
	BeforeSever func(ctx context.Context, addrs []netip.Addr) error
	// BeforeSend is called before frames are sent; its error is Send's.
	BeforeSend func(frames [][]byte) error
	// Late is how late the kernel removes an address whose lifetime has ended.
	Late time.Duration
}

// Frame is an Ethernet frame that was sent.
type Frame struct {
	At   time.Time
	Link string
	Data []byte
}

type fakeLink struct {
	vip.Link
	addrs []*fakeAddr
}

type fakeAddr struct {
	prefix netip.Prefix
	mark   uint8
	end    time.Time // zero: forever
	timer  *time.Timer
}

var errClosed = errors.New("kernel is closed")

// NewFakeKernel returns a kernel with the interface eth0 (02:00:00:00:00:01) that
// has the given addresses.
func NewFakeKernel(prefixes ...string) *FakeKernel {
	k := &FakeKernel{next: 1, watchers: make(map[*func(vip.Notice)]struct{})}
	k.AddLink(LinkName, prefixes...)
	return k
}

// SetHooks replaces the hooks.
func (k *FakeKernel) SetHooks(h Hooks) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.hooks = h
}

// AddLink makes an interface, with a new index, and tells the watchers.
func (k *FakeKernel) AddLink(name string, prefixes ...string) {
	k.mu.Lock()
	l := &fakeLink{Link: vip.Link{Index: k.next, Name: name, MAC: carp.MAC{2, 0, 0, 0, 0, 1}, Up: true}}
	k.next++
	k.links = append(k.links, l)
	for _, p := range prefixes {
		l.addrs = append(l.addrs, &fakeAddr{prefix: netip.MustParsePrefix(p)})
	}
	k.mu.Unlock()
	k.tell([]vip.Notice{{Kind: vip.LinkChanged, Index: l.Index, Link: name}})
}

// ChangeLink changes an interface and tells the watchers. Its index stays.
func (k *FakeKernel) ChangeLink(name string, change func(*vip.Link)) {
	k.mu.Lock()
	l := k.link(name)
	index := l.Index
	change(&l.Link)
	l.Index = index
	n := vip.Notice{Kind: vip.LinkChanged, Index: index, Link: l.Name}
	k.mu.Unlock()
	k.tell([]vip.Notice{n})
}

// DeleteLink deletes an interface with its addresses and the devices on it, and
// tells the watchers.
func (k *FakeKernel) DeleteLink(name string) {
	k.mu.Lock()
	notices := k.deleteLink(k.link(name))
	k.mu.Unlock()
	k.tell(notices)
}

func (k *FakeKernel) deleteLink(l *fakeLink) (notices []vip.Notice) {
	for _, on := range slices.Clone(k.links) {
		if on.Parent == l.Index {
			notices = append(notices, k.deleteLink(on)...)
		}
	}
	for len(l.addrs) > 0 {
		notices = append(notices, l.drop(l.addrs[0], true)...)
	}
	k.links = slices.DeleteFunc(k.links, func(x *fakeLink) bool { return x == l })
	return append(notices, vip.Notice{Kind: vip.LinkGone, Index: l.Index, Link: l.Name})
}

// AddAddr adds an address as a hand would: without mark and lifetime.
func (k *FakeKernel) AddAddr(link, prefix string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	l := k.link(link)
	l.addrs = append(l.addrs, &fakeAddr{prefix: netip.MustParsePrefix(prefix)})
}

// DelAddr removes an address as a hand would, and tells the watchers.
func (k *FakeKernel) DelAddr(link, prefix string) {
	k.mu.Lock()
	l := k.link(link)
	var notices []vip.Notice
	if a := l.find(netip.MustParsePrefix(prefix)); a != nil {
		notices = l.drop(a, l.PromoteSecondaries)
	}
	k.mu.Unlock()
	k.tell(notices)
}

// Batches returns what was applied, a slice a call, and forgets it.
func (k *FakeKernel) Batches() [][]vip.Change {
	k.mu.Lock()
	defer k.mu.Unlock()
	b := k.batches
	k.batches = nil
	return b
}

// Sent returns the frames that were sent and forgets them.
func (k *FakeKernel) Sent() []Frame {
	k.mu.Lock()
	defer k.mu.Unlock()
	f := k.sent
	k.sent = nil
	return f
}

// Has reports whether any interface has the address.
func (k *FakeKernel) Has(addr string) bool {
	want := netip.MustParseAddr(addr)
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.has(want)
}

// Answers reports whether any interface that is up has the address.
func (k *FakeKernel) Answers(addr string) bool {
	want := netip.MustParseAddr(addr)
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.ContainsFunc(k.links, func(l *fakeLink) bool {
		return l.Up && slices.ContainsFunc(l.addrs, func(a *fakeAddr) bool { return a.prefix.Addr() == want })
	})
}

// String returns all interfaces in the words of `ip addr`.
func (k *FakeKernel) String() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	var b strings.Builder
	for _, l := range k.links {
		name, up := l.Name, ",UP"
		if p := k.byIndex(l.Parent); p != nil {
			name += "@" + p.Name
		}
		if !l.Up {
			up = ""
		}
		fmt.Fprintf(&b, "%d: %s: <BROADCAST,MULTICAST%s>\n    link/ether %x:%x:%x:%x:%x:%x\n", l.Index, name, up,
			l.MAC[0:1], l.MAC[1:2], l.MAC[2:3], l.MAC[3:4], l.MAC[4:5], l.MAC[5:6])
		for _, a := range l.addrs {
			family, valid, preferred := "inet", "forever", "forever"
			if !a.end.IsZero() {
				valid = fmt.Sprintf("%dsec", int(time.Until(a.end)/time.Second))
				preferred = valid
			}
			flags := ""
			if a.prefix.Addr().Is6() {
				family = "inet6"
				if a.mark != 0 {
					flags, preferred = " deprecated nodad", "0sec"
				}
			} else if l.primary(a) != a {
				flags = " secondary"
			}
			if a.mark != 0 {
				flags += fmt.Sprintf(" proto %d", a.mark)
			}
			fmt.Fprintf(&b, "    %s %v scope global%s\n       valid_lft %s preferred_lft %s\n", family, a.prefix, flags, valid, preferred)
		}
	}
	return b.String()
}

// Link implements vip.Kernel.
func (k *FakeKernel) Link(name string) (vip.Link, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if l := k.link(name); l != nil {
		return l.Link, nil
	}
	return vip.Link{}, &vip.OpError{Op: "look up interface", Link: name, Err: vip.ErrNoLink}
}

// Links implements vip.Kernel.
func (k *FakeKernel) Links() ([]vip.Link, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []vip.Link
	for _, l := range k.links {
		out = append(out, l.Link)
	}
	return out, nil
}

// Addrs implements vip.Kernel.
func (k *FakeKernel) Addrs(index int) ([]vip.Addr, error) {
	k.mu.Lock()
	hook := k.hooks.BeforeList
	k.mu.Unlock()
	if hook != nil {
		hook()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []vip.Addr
	l := k.byIndex(index)
	if l == nil {
		return nil, nil
	}
	for _, a := range l.addrs {
		e := vip.Addr{Prefix: a.prefix, Mark: a.mark, Valid: vip.Forever, Preferred: vip.Forever}
		if !a.end.IsZero() {
			e.Valid = max(0, time.Until(a.end).Truncate(time.Second))
			e.Preferred = e.Valid
		}
		if a.mark != 0 && a.prefix.Addr().Is6() {
			e.Preferred = 0
		}
		out = append(out, e)
	}
	slices.SortStableFunc(out, func(a, b vip.Addr) int { return a.Prefix.Addr().BitLen() - b.Prefix.Addr().BitLen() })
	return out, nil
}

// Apply implements vip.Kernel.
func (k *FakeKernel) Apply(changes []vip.Change) error {
	k.mu.Lock()
	hooks := k.hooks
	k.mu.Unlock()
	if hooks.BeforeApply != nil {
		hooks.BeforeApply(changes)
	}
	var first *vip.OpError
	var notices []vip.Notice
	k.mu.Lock()
	if k.closed {
		k.mu.Unlock()
		return &vip.OpError{Op: "add", Err: errClosed}
	}
	k.batches = append(k.batches, slices.Clone(changes))
	for _, c := range changes {
		n, err := k.change(c, hooks)
		notices = append(notices, n...)
		if err == nil {
			continue
		}
		if first != nil {
			first.More++
			continue
		}
		first = &vip.OpError{Op: "add", Addr: c.Prefix, Link: c.Link, Err: err}
		switch c.Op {
		case vip.Remove:
			first.Op = "remove"
		case vip.SetUp:
			first.Op = "set up"
		case vip.SetDown:
			first.Op = "set down"
		}
	}
	k.mu.Unlock()
	k.tell(notices)
	if first == nil {
		return nil
	}
	return first
}

func (k *FakeKernel) change(c vip.Change, hooks Hooks) ([]vip.Notice, error) {
	if hooks.Fail != nil {
		if err := hooks.Fail(c); err != nil {
			return nil, err
		}
	}
	l := k.byIndex(c.Index)
	switch {
	case l == nil && (c.Op == vip.Remove || c.Op == vip.SetDown):
		return nil, nil
	case l == nil:
		return nil, vip.ErrNoLink
	case c.Op == vip.SetUp || c.Op == vip.SetDown:
		return l.set(c.Op == vip.SetUp), nil
	}
	a := l.find(c.Prefix)
	if c.Op == vip.Remove {
		if a == nil || a.prefix != c.Prefix {
			return nil, nil
		}
		return l.drop(a, l.PromoteSecondaries), nil
	}
	if a == nil {
		a = &fakeAddr{prefix: c.Prefix}
		l.addrs = append(l.addrs, a)
	}
	if a.timer != nil {
		a.timer.Stop()
	}
	a.mark, a.end, a.timer = vip.Mark, time.Time{}, nil
	if c.Valid != vip.Forever {
		end := time.Now().Add(c.Valid)
		a.end = end
		a.timer = time.AfterFunc(c.Valid+hooks.Late, func() { k.expire(l, a, end) })
	}
	return nil, nil
}

func (k *FakeKernel) expire(l *fakeLink, a *fakeAddr, end time.Time) {
	k.mu.Lock()
	var notices []vip.Notice
	if a.end.Equal(end) && slices.Contains(l.addrs, a) {
		notices = l.drop(a, l.PromoteSecondaries)
	}
	k.mu.Unlock()
	k.tell(notices)
}

// Watch implements vip.Kernel.
func (k *FakeKernel) Watch(f func(vip.Notice)) (stop func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.watchers[&f] = struct{}{}
	return func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		delete(k.watchers, &f)
	}
}

// Tell tells the watchers, as after notices were lost.
func (k *FakeKernel) Tell(n vip.Notice) { k.tell([]vip.Notice{n}) }

func (k *FakeKernel) tell(notices []vip.Notice) {
	k.mu.Lock()
	var all []func(vip.Notice)
	for f := range k.watchers {
		all = append(all, *f)
	}
	k.mu.Unlock()
	for _, n := range notices {
		for _, f := range all {
			f(n)
		}
	}
}

// Send implements vip.Kernel. It does not pace.
func (k *FakeKernel) Send(ctx context.Context, index int, frames [][]byte, live func() bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	k.mu.Lock()
	hook := k.hooks.BeforeSend
	k.mu.Unlock()
	if hook != nil {
		if err := hook(frames); err != nil {
			return err
		}
	}
	for _, f := range frames {
		if live != nil && !live() {
			return vip.ErrLapsed
		}
		if err := k.sendOne(index, f); err != nil {
			return err
		}
	}
	return nil
}

func (k *FakeKernel) sendOne(index int, frame []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	l := k.byIndex(index)
	if l == nil {
		return &vip.OpError{Op: "announce", Err: vip.ErrNoLink}
	}
	k.sent = append(k.sent, Frame{At: time.Now(), Link: l.Name, Data: slices.Clone(frame)})
	return nil
}

// Close implements vip.Kernel.
func (k *FakeKernel) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
	return nil
}

func (k *FakeKernel) link(name string) *fakeLink {
	for _, l := range k.links {
		if l.Name == name {
			return l
		}
	}
	return nil
}

func (k *FakeKernel) byIndex(index int) *fakeLink {
	for _, l := range k.links {
		if l.Index == index {
			return l
		}
	}
	return nil
}

// find returns the address that Linux would find: of IPv6 the one with the same
// address, whatever its prefix length.
func (l *fakeLink) find(p netip.Prefix) *fakeAddr {
	for _, a := range l.addrs {
		if a.prefix == p || p.Addr().Is6() && a.prefix.Addr() == p.Addr() {
			return a
		}
	}
	return nil
}

// primary returns the first IPv4 address of a's subnet.
func (l *fakeLink) primary(a *fakeAddr) *fakeAddr {
	for _, b := range l.addrs {
		if b.prefix.Masked() == a.prefix.Masked() {
			return b
		}
	}
	return a
}

// drop removes an address and, if it was the first of an IPv4 subnet and they are
// not promoted, the others of the subnet.
func (l *fakeLink) drop(a *fakeAddr, promote bool) []vip.Notice {
	gone := []*fakeAddr{a}
	if a.prefix.Addr().Is4() && l.primary(a) == a && !promote {
		for _, b := range l.addrs {
			if b != a && b.prefix.Masked() == a.prefix.Masked() {
				gone = append(gone, b)
			}
		}
	}
	var notices []vip.Notice
	for _, g := range gone {
		if g.timer != nil {
			g.timer.Stop()
		}
		l.addrs = slices.DeleteFunc(l.addrs, func(x *fakeAddr) bool { return x == g })
		notices = append(notices, vip.Notice{Kind: vip.AddrGone, Index: l.Index, Prefix: g.prefix})
	}
	return notices
}
