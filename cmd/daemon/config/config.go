package config

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/carpd/carpd/carp"
)

// The limits of a file.
const (
	MaxFile      = 1 << 20 // bytes
	MaxInstances = 4096
	MaxAddresses = 10_000 // of one instance, those not in the advert included; those in it at most carp.MaxAddresses
	MaxPeers     = 32     // of one instance
	MaxGroups    = 64
	MaxHooks     = 64  // of one instance, and of the file
	MaxProblems  = 200 // of each severity, that are listed
)

// The defaults.
const (
	DefaultPath            = "/etc/carpd/carpd.yaml"
	DefaultStateDir        = "/var/lib/carpd"
	DefaultControl         = "/run/carpd/carpd.sock"
	DefaultAdvBase         = 1                      // seconds
	DefaultPreemptGrace    = 100 * time.Millisecond // of up to 500 addresses; each further one adds 0.2 ms
	DefaultAnnounceRefresh = time.Minute
	DefaultRoll            = 10 * time.Minute
	DefaultPriority        = carp.DefaultPriority
	DefaultInterval        = carp.DefaultInterval
	DefaultHookTimeout     = 20 * time.Second
)

// File is a configuration without faults.
type File struct {
	Path      string     // as given to Load or Parse
	Node      string     // this node's name; the host name unless given
	NodeID    uint8      // 1 to 255; 0 if not given
	StateDir  string     // absolute
	Control   string     // absolute path of the control socket
	Listen    string     // ADDRESS:PORT or :PORT where metrics are served; empty: nowhere
	Guardian  bool       // a process that acts for a daemon that has died or hangs
	Preempt   bool       // what instances that do not say otherwise have in Preempt
	Groups    []string   // declared groups, in the order of the file
	Together  []Together // those whose instances move as one
	Instances []Instance // in the order of the file, at least one
	Hooks     []Hook     // of every instance, before its own: see HooksOf

	Replication []Replication // in the order of the file
	Warnings    Problems      // in the order of the file
}

// HooksOf returns the hooks of an instance in their order: those of the file,
// then its own.
func (f *File) HooksOf(i Instance) []Hook {
	return append(append(make([]Hook, 0, len(f.Hooks)+len(i.Hooks)), f.Hooks...), i.Hooks...)
}

// Instance is one virtual router as configured, defaults filled in. What belongs
// to the other protocol is zero.
type Instance struct {
	Name      string // unique; VHID@IF unless given, VHID@IF.vrrp6 for VRRP over IPv6
	Protocol  string // "carp", "vrrp2" or "vrrp3"
	VHID      uint8  // 1 to 255, unique on the interface among those of its Kind
	Interface string // never empty: found by the first address unless given
	SourceMAC string // "virtual" or "interface"

	Passphrase []byte // CARP: 1 to 20 bytes, VRRP 2: 1 to 8; nil for none

	AdvBase uint8 // CARP: seconds, 0 to 255; 0 only with AdvSkew above 0
	AdvSkew uint8 // CARP: 1/256 seconds, 0 to 254; more than 240 is sent as 240

	Priority uint8         // VRRP: 1 to 254, 255 for the owner of the addresses
	Interval time.Duration // VRRP: whole seconds for version 2, steps of 10 ms for version 3
	Checksum string        // VRRP 3 over IPv4: a name of carp.Checksum

	Preempt      bool
	PreemptDelay time.Duration // 0 for none
	PreemptGrace time.Duration
	StartupDelay time.Duration // 0 for none

	Addresses []netip.Prefix // unmasked: the address and its subnet; at least one; in the advert or its digest
	Excluded  []netip.Prefix // held with Addresses, but not in the advert
	// AnnounceRefresh is how often addresses that are on are announced again; 0 for never.
	AnnounceRefresh time.Duration
	OnConflict      string       // "defend" or "alarm"
	Peers           []netip.Addr // unicast; empty for multicast
	// PeerTTL bounds what single peers send, VRRP only. Peers without bounds have
	// no entry; Max is never 0.
	PeerTTL map[netip.Addr]carp.TTLBounds

	Paths []Path    // further ways for its adverts; empty: Interface alone
	Track []Gateway // any of them must answer; empty: nobody is asked

	MAC      string // "interface" or "virtual"
	Device   string // of the virtual MAC, at most 15 bytes; empty with the interface's
	Lease    LeaseSetting
	Fence    string        // "auto", "on" or "off"
	Replay   string        // CARP: a name of carp.Replay
	Window   time.Duration // CARP: of "sealed"; 0 with the others
	Compat   string        // CARP: "none" or "bsd"
	Families string        // CARP: "shared" or "each"
	Roll     time.Duration // CARP
	Groups   []string
	Hooks    []Hook // its own; see File.HooksOf

	OnContest     string        // "regate", "yield" or "keep"
	ReleaseBudget time.Duration // 0: by addresses and hooks

	Line, Column int // where it begins in the file
}

// Label names the instance for an operator by what it is and not by its name:
// "vhid 9 on eth0", "vrid 9 on eth0 over IPv6".
func (i Instance) Label() string {
	if i.Kind() == CARP {
		return fmt.Sprintf("vhid %d on %s", i.VHID, i.Interface)
	}
	return fmt.Sprintf("vrid %d on %s over %v", i.VHID, i.Interface, i.Kind().family())
}

// Held lists all addresses that move with the instance, those in the advert first.
func (i Instance) Held() []netip.Prefix { return slices.Concat(i.Addresses, i.Excluded) }

// VRRP reports whether the instance speaks a version of VRRP.
func (i Instance) VRRP() bool { return i.Protocol != carp.CARP.String() }

// Kind says what the instance is one of. An interface has at most one instance of
// a kind with the same id: both versions of VRRP are the same virtual router.
func (i Instance) Kind() Kind {
	switch {
	case !i.VRRP():
		return CARP
	case len(i.Addresses) > 0 && carp.FamilyOf(i.Addresses[0].Addr()) == carp.IPv6:
		return VRRP6
	}
	return VRRP4
}

// Kind is CARP, or VRRP over one of the families.
type Kind uint8

// The kinds.
const (
	CARP  Kind = iota
	VRRP4      // also of an instance whose addresses are not known
	VRRP6
)

func (k Kind) String() string { return [...]string{"carp", "vrrp4", "vrrp6"}[k] }

func (k Kind) family() carp.Family {
	if k == VRRP6 {
		return carp.IPv6
	}
	return carp.IPv4
}

// LeaseSetting says how long the kernel keeps an address without renewal. The
// zero value leaves it to the daemon.
type LeaseSetting struct {
	Off   bool          // addresses have no end: a frozen node keeps them
	Valid time.Duration // whole seconds, 1 s to 1 h; 0: chosen from the advert interval
}

func (l LeaseSetting) String() string {
	switch {
	case l.Off:
		return "off"
	case l.Valid != 0:
		return l.Valid.String()
	}
	return "on"
}

// Hook is one entry of hooks.
type Hook struct {
	Kind      string
	Name      string        // unique among the hooks of an instance; KIND-ON unless given
	On        string        // a hooks.Phase or "monitor"; empty: a resource
	Timeout   time.Duration // more than 0; of a resource that of its promotion
	IfItFails string        // retreat, continue, demote or alarm: those that the place allows

	// Of a resource.
	Release   time.Duration // the timeout of its demotion
	IfItStays string        // what follows when it cannot be demoted: alarm, reboot or stop-watchdog

	// Of a resource or monitor. Zero: the default of hooks.Watch.
	Interval, LookTimeout, Grace time.Duration
	Rise, Fall, Weight           uint8

	Line, Column int // where it begins in the file

	with *node // nil if not given
	src  *source
}
