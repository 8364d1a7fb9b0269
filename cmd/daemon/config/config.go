package config

import (
	"fmt"
	"net/netip"
	"time"
)

// The limits of a file.
const (
	MaxFile      = 1 << 20 // bytes
	MaxInstances = 4096
	MaxAddresses = 1024 // of one instance
	MaxPeers     = 32   // of one instance
	MaxGroups    = 64
	MaxHooks     = 64  // of one instance, and of the file
	MaxProblems  = 200 // of each severity, that are listed
)

// The defaults.
const (
	DefaultPath         = "/etc/carpd/carpd.yaml"
	DefaultStateDir     = "/var/lib/carpd"
	DefaultControl      = "/run/carpd/carpd.sock"
	DefaultAdvBase      = 1 // seconds
	DefaultPreemptGrace = 100 * time.Millisecond
	DefaultRoll         = 10 * time.Minute
	DefaultHookTimeout  = 20 * time.Second
)

// File is a configuration without faults.
type File struct {
	Path      string     // as given to Load or Parse
	Node      string     // this node's name; the host name unless given
	NodeID    uint8      // 1 to 255; 0 if not given
	StateDir  string     // absolute
	Control   string     // absolute path of the control socket
	Preempt   bool       // what instances that do not say otherwise have in Preempt
	Groups    []string   // declared groups, in the order of the file
	Instances []Instance // in the order of the file, at least one
	Hooks     []Hook     // of every instance, before its own: see HooksOf
	Warnings  Problems   // in the order of the file
}

// HooksOf returns the hooks of an instance in their order: those of the file,
// then its own.
func (f *File) HooksOf(i Instance) []Hook {
	return append(append(make([]Hook, 0, len(f.Hooks)+len(i.Hooks)), f.Hooks...), i.Hooks...)
}

// Instance is one virtual router as configured, defaults filled in.
type Instance struct {
	Name      string // unique; VHID@IF unless given
	Protocol  string // "carp"
	VHID      uint8  // 1 to 255, unique on the interface
	Interface string // never empty: found by the first address unless given
	SourceMAC string // "virtual" or "interface"

	Passphrase []byte // 1 to 20 bytes; nil for none

	AdvBase uint8 // seconds, 0 to 255; 0 only with AdvSkew above 0
	AdvSkew uint8 // 1/256 seconds, 0 to 254; more than 240 is sent as 240

	Preempt      bool
	PreemptDelay time.Duration // 0 for none
	PreemptGrace time.Duration
	StartupDelay time.Duration // 0 for none

	Addresses []netip.Prefix // unmasked: the address and its subnet; at least one
	Peers     []netip.Addr   // unicast; empty for multicast

	MAC      string // "interface"
	Lease    LeaseSetting
	Replay   string // "off"
	Compat   string // "none" or "bsd"
	Families string // "shared" or "each"
	Roll     time.Duration
	Groups   []string
	Hooks    []Hook // its own; see File.HooksOf

	Line, Column int // where it begins in the file
}

// Label names the instance for an operator by what it is and not by its name:
// "vhid 9 on eth0".
func (i Instance) Label() string { return fmt.Sprintf("vhid %d on %s", i.VHID, i.Interface) }

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
	On        string        // a hooks.Phase
	Timeout   time.Duration // more than 0
	IfItFails string        // retreat, continue, demote or alarm: those that the phase allows

	Line, Column int // where it begins in the file

	with *node // nil if not given
	src  *source
}
