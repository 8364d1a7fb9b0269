package vip

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"time"

	"github.com/carpd/carpd/carp"
)

// Mark is the value of IFA_PROTO (attribute 11, one byte, Linux 5.18) that our
// addresses carry: 112, the number of CARP's IP protocol. `ip addr` prints it as
// "proto 112". Kernels before 5.18 ignore it; there Cleanup finds nothing, and
// the lease is what removes a dead daemon's addresses.
const Mark = 112 // package carp/link knows it too, and wakes for no address that has it

// Forever is the lifetime of an address without a lease.
const Forever time.Duration = math.MaxInt64

// Kernel is what a Set needs of the operating system. Its methods may be called
// from several goroutines at once. Open returns the real one, package viptest a
// fake; viptest.Conformance says what both promise.
type Kernel interface {
	// Link returns the interface with this name, or an error that wraps ErrNoLink.
	Link(name string) (Link, error)
	// Links returns all interfaces.
	Links() ([]Link, error)
	// Addrs returns the addresses of the interface with this index, IPv4 first;
	// none if there is no such interface.
	Addrs(index int) ([]Addr, error)
	// Apply makes the changes in order, in as few calls as possible. All of them
	// are tried; the error is an *OpError of the first that failed. To remove what
	// is not there is no error.
	Apply(changes []Change) error
	// EnsureDevice sees to it that d is there, ours and set up as it must be, and
	// returns it. One that it makes is down and without addresses; one of ours that
	// differs is made anew. An interface of somebody else that has the name, or a
	// macvlan that has the MAC on the same interface, is left alone: ErrForeignDevice.
	// What it changes of the parent is remembered until RemoveDevice, whatever becomes
	// of the device and of this process (Link.Altered). On an error
	// nothing is left half made.
	EnsureDevice(d Device) (Link, error)
	// RemoveDevice deletes a device of ours, as Link or EnsureDevice returned it, with
	// its addresses; with the last one on its parent go the changes of the parent. It
	// is no error if the device is gone: then only the parent is seen to, which Parent
	// alone names if Index is 0. Calls at the same time share what they cost.
	RemoveDevice(l Link) error
	// Sever destroys the TCP sockets and connected UDP sockets whose local address is one
	// of addrs, listeners excepted, and returns how many; the other ends are told at once
	// if the addresses are still there. An address that another interface than the one
	// with this index has is left alone (0: any interface). It ends early with ctx's error,
	// having done what it could; ErrNoSever if the kernel cannot do it.
	Sever(ctx context.Context, index int, addrs []netip.Addr) (int, error)
	// Watch calls f for each notice until stop is called; f must not block. After
	// stop has returned f is not called any more. stop must not be called by f.
	Watch(f func(Notice)) (stop func())
	// WatchNeighbours calls f for each claim that comes in on the interface with this
	// index, whosever it is, until stop is called; f must not block. What the host itself
	// sends is none. At most ClaimRate a second are read, of all interfaces together; the
	// rest is counted as Skipped. After stop has returned f is not called any more. stop
	// must not be called by f.
	WatchNeighbours(index int, f func(Claim)) (stop func(), err error)
	// Send sends whole Ethernet frames on the interface with this index, in order
	// and paced. Last thing before each frame it asks live, if not nil; it returns
	// early with ErrLapsed when that says no, and with ctx's error when ctx ends.
	Send(ctx context.Context, index int, frames [][]byte, live func() bool) error
	// Close releases the kernel's resources; calling it twice is harmless.
	Close() error
}

// Link is an interface as it was when it was looked up.
type Link struct {
	Index int
	Name  string
	MAC   carp.MAC // zero: not Ethernet; nothing is announced there
	// PromoteSecondaries is whether the kernel keeps the other addresses of a
	// subnet when the first one goes (sysctl promote_secondaries, IPv4 only).
	PromoteSecondaries bool
	Up                 bool // as set by the administrator, whatever the carrier says
	// Parent is the index of the interface on which carpd made this one; 0: it is
	// none of ours.
	Parent int
	// Quiet is whether this interface keeps silent about addresses of others: it does
	// not answer ARP for them (sysctl arp_ignore) nor names them in its own requests
	// (arp_announce).
	Quiet bool
	// Altered is whether EnsureDevice made this interface quiet, and it is yet to be
	// restored. Linux before 5.5 does not keep it; there a device alone says so.
	Altered bool
}

// Device is a virtual interface of ours: a macvlan in private mode that has the
// virtual MAC, so that the virtual router moves with its MAC (RFC 9568, 7.3).
type Device struct {
	Name   string // at most 15 bytes
	Parent Link   // the interface that carries its frames
	MAC    carp.MAC
	VHID   uint8 // for the alias, which says what the interface is
}

// Addr is an address on an interface.
type Addr struct {
	Prefix    netip.Prefix // not masked: 192.0.2.1/24
	Mark      uint8        // IFA_PROTO; 0 if the kernel said nothing
	Valid     time.Duration
	Preferred time.Duration
}

// ChangeOp is the kind of a Change.
type ChangeOp uint8

// The changes.
const (
	// Put adds the address with Mark, or replaces the lifetimes of the one there.
	Put ChangeOp = iota
	// Remove takes the address off.
	Remove
	// SetUp and SetDown switch the interface itself; no Prefix belongs to them. Down,
	// it answers nothing, whatever addresses it has. To go down takes the kernel long
	// (15 ms), and all others wait: a batch of one SetDown alone is refused with ErrBusy
	// while another such one is under way.
	SetUp
	SetDown
)

// Change is one thing to be done to one address, or to an interface.
type Change struct {
	Op     ChangeOp
	Index  int    // of the interface
	Link   string // its name, for messages
	Prefix netip.Prefix
	// Valid is the lifetime in whole seconds, or Forever. The preferred lifetime
	// is the same for IPv4 and 0 for IPv6.
	Valid time.Duration
	// Host says that the prefix is an address beside others and brings no route
	// to a subnet.
	Host bool
}

// NoticeKind is the kind of a Notice.
type NoticeKind uint8

// The notices. They are hints to look again, not the truth: by the time one is
// read, the kernel may have moved on.
const (
	AddrGone    NoticeKind = iota // Index and Prefix say which
	LinkChanged                   // Index and Link: added, renamed, up, down, another MAC
	LinkGone                      // Index and Link
	Overflow                      // notices were lost: look at everything again
)

// Notice is one thing that happened in the kernel.
type Notice struct {
	Kind   NoticeKind
	Index  int
	Link   string
	Prefix netip.Prefix
}

// Causes that callers branch on.
var (
	// ErrNoLink: there is no interface with that name at present.
	ErrNoLink = errors.New("no such interface")
	// ErrLapsed: the permit ended while addresses were being taken on or announced.
	ErrLapsed = errors.New("the permit to act as master lapsed")
	// ErrSuperseded: Down, a withdrawn permit or another Up ended this call.
	ErrSuperseded = errors.New("superseded by a newer wish")
	// ErrLate: the kernel was so slow that the lease of what was put on might have
	// outlived the permit, so it was taken off again.
	ErrLate = errors.New("the kernel took longer than the permit had room for")
	// ErrForeign: the address is on the interface for good, put there by somebody else.
	ErrForeign = errors.New("the address is there already, put there by somebody else")
	// ErrForeignDevice: the virtual interface cannot be made, because another one has
	// its name or its MAC.
	ErrForeignDevice = errors.New("there is an interface already that carpd did not make for this")
	// ErrBusy: another interface is being set down at this moment.
	ErrBusy = errors.New("another interface is being set down")
	// ErrNoSever: this kernel cannot destroy sockets.
	ErrNoSever = errors.New("the kernel cannot destroy sockets")
	// ErrPresent: an address is still there after all attempts to remove it.
	ErrPresent = errors.New("the address is still there")
)

// OpError is an operation on addresses that failed.
type OpError struct {
	Op   string       // "add", "remove", "list", "look up", "announce", "open", "make", "set up", "set down", "destroy sockets", "watch neighbours"
	Addr netip.Prefix // zero if no single address is concerned
	Link string       // "" if no single interface is concerned
	Err  error
	Hint string // what an operator can do about it; may be empty
	More int    // this many further addresses failed in the same batch
}

func (e *OpError) Error() string {
	s := "vip: " + e.Op
	if e.Addr.IsValid() {
		s += " " + e.Addr.String()
	}
	if e.Link != "" {
		s += " on " + e.Link
	}
	s += ": " + e.Err.Error()
	if e.More > 0 {
		s += fmt.Sprintf(" (and %d more addresses)", e.More)
	}
	if e.Hint != "" {
		s += ": " + e.Hint
	}
	return s
}

// Unwrap returns the cause.
func (e *OpError) Unwrap() error { return e.Err }
