package carp

import (
	"fmt"
	"net/netip"
)

// State is the protocol state of an engine.
//
//	        link up                 takeover
//	INIT ------------> BACKUP ------------------> MASTER
//	 ^                  ^   ^                     |    |
//	 |                  |   +----- yielding ------+    |
//	 |        released  |                              | leaving
//	 +------------- RELEASING <------------------------+
//
// A link that goes down leads from everywhere to INIT.
type State uint8

// The states. RELEASING is ours: the node leaves as master for good, its
// addresses and resources are being let go, and adverts go on so that no other
// node takes over before they are gone.
const (
	Init State = iota
	Backup
	Master
	Releasing
)

var stateNames = [...]string{"INIT", "BACKUP", "MASTER", "RELEASING"}

func (s State) String() string { return name(stateNames[:], int(s), "State") }

// ParseState returns the state with the given name, in upper or lower case.
func ParseState(s string) (State, error) {
	for i, n := range stateNames {
		if equalFold(n, s) {
			return State(i), nil
		}
	}
	return Init, fmt.Errorf("carp: unknown state %q: use INIT, BACKUP or MASTER", s)
}

// Reason says why a transition happened. Its names are part of the interface:
// logs, metrics, events, status and the manual use the same words.
type Reason uint8

// The reasons.
const (
	ReasonNone           Reason = iota
	ReasonLinkUp                // the interface can carry adverts: INIT to BACKUP
	ReasonLinkDown              // the interface cannot carry adverts any more
	ReasonTimedOut              // no advert for the master-down time
	ReasonBetterMaster          // a better master was heard: a shorter interval, in VRRP a higher priority
	ReasonTieLost               // an equal master was heard that wins the tie: the lower address, in VRRP the higher
	ReasonPreempting            // preempt is on and the master is worse than this node
	ReasonWillTimeOut           // the master's interval is longer than the master-down time
	ReasonBowOut                // the master said that it leaves
	ReasonOperator              // asked for by state
	ReasonHandover              // asked for by handover
	ReasonNobodyTookOver        // handed over, and nobody took the role within two intervals
	ReasonStopping              // this node stops
	ReasonReleased              // addresses and resources are let go
	ReasonReleaseFailed         // they could not be let go: no bow-out was sent
	ReasonContested             // still master, though another master was heard
	ReasonStalled               // nothing was sent for so long that another node may be master
	ReasonFailed                // the address or a resource could not be taken
	ReasonDenied                // the guard refused
	ReasonOwner                 // VRRP: priority 255, so that nothing is waited for
	ReasonIncompatible          // VRRP: a better master was heard whose settings differ from ours
	ReasonClientSide            // the probe of the client side fails: nobody is served from here
	ReasonRequested             // a better node of a sealed group asked for the role
	ReasonUnheard               // a backup of a sealed group says that it does not hear this master
	ReasonGroup                 // another instance of the group, which moves with this one, leaves the role
	ReasonUnfit                 // this node is not fit to serve, and another member of its sealed group is
)

var reasonNames = [...]string{
	"none", "link-up", "link-down", "master-timed-out", "better-master", "tie-lost", "preempting",
	"master-will-time-out", "bow-out", "operator", "handover", "nobody-took-over", "stopping",
	"released", "release-failed", "contested", "stalled", "failed", "denied", "address-owner", "incompatible-master",
	"client-side-down", "requested", "unheard", "group", "unfit",
}

var reasonTexts = [...]string{
	"",
	"the interface is up",
	"the interface is down",
	"no advert from the master for the master-down time",
	"a better master was heard",
	"an equal master was heard that wins the tie",
	"preempting a worse master",
	"the master's interval is longer than the master-down time here",
	"the master said that it leaves",
	"asked for by an operator",
	"handed over",
	"handed over, but nobody took the role",
	"this node stops",
	"addresses and resources are let go",
	"addresses or resources could not be let go, so no bow-out was sent",
	"another master was heard and lost",
	"this node stood still for so long that another may be master",
	"the addresses or a resource could not be taken",
	"the guard refused",
	"this node owns the addresses",
	"a better master was heard whose settings differ from ours",
	"the probe of the client side fails",
	"a better node asked for the role",
	"a backup does not hear this master, and would take the role beside it",
	"another instance of its group leaves the role",
	"this node is unfit, and another member is not",
}

func (r Reason) String() string { return name(reasonNames[:], int(r), "Reason") }

// Text returns the reason as a clause for an operator.
func (r Reason) Text() string { return name(reasonTexts[:], int(r), "Reason") }

// Drop says why a packet was refused. Its names are part of the interface:
// counters, logs, status and the manual use the same words.
type Drop uint8

// The drops, in the order of the checks.
const (
	Accepted        Drop = iota
	DropFrame            // not a whole Ethernet frame with an IP packet of protocol 112, or a bad IP header checksum
	DropTTL              // TTL or hop limit is not 255 (multicast), or out of the bounds of a unicast peer
	DropDestination      // unicast to a multicast group of ours, or the reverse
	DropPeer             // from an address that is not among the unicast peers
	DropSource           // from an address that no host can have: a group, 127/8, ::1, 255.255.255.255
	DropLength           // shorter than a CARP header; VRRP: not the length of the addresses that it counts
	DropChecksum         // the checksum is wrong
	DropVersion          // not the version of CARP or VRRP that is spoken here
	DropProtocol         // CARP where VRRP is spoken here, or the reverse
	DropVHID             // another vhid
	DropFamily           // IPv6 advert and no IPv6 address here, or the reverse
	DropHash             // the HMAC is wrong: another passphrase or address list
	DropRolling          // the other form of an advert that was just accepted: its sender changes passphrase or addresses
	DropType             // an authentic companion message that nobody here waits for
	DropAddresses        // VRRP: its addresses are not those of this instance
	DropForeign          // VRRP: not one of its addresses is ours: another virtual router with the same id
	DropInterval         // VRRP: its interval is zero, not ours (version 2), or far from ours (version 3)
	DropAuth             // behind an authentication header; VRRP: another password, or another kind of authentication
	DropOwn              // our own packet came back
	DropUnsealed         // sealed: the counter is not carpd's, or carries no node id
	DropTiming           // advbase or advskew are not those that the counter was sent with: rewritten on the way
	DropRepeat           // the round that was just accepted, once more: harmless
	DropReplay           // a recording: accepted before, or older than what was
	DropOld              // sealed: older than the window
	DropAhead            // sealed: more than an hour ahead of the group clock here
	DropDuplicate        // used all the same: from another machine that has our address
	DropBowOut           // a bow-out of a master that is not followed
	DropState            // authentic, but this node is in INIT
	DropStalled          // authentic, but it woke a master that stood still; it yields first
	DropOverflow         // the inbox was full: the oldest packet made room
	numDrops
)

var dropNames = [...]string{
	"accepted", "frame", "ttl", "destination", "peer", "source", "length", "checksum", "version", "protocol", "vhid",
	"family", "hash", "rolling", "type", "addresses", "foreign-addresses", "interval", "auth", "own", "unsealed", "timing", "repeat", "replay", "old", "ahead", "duplicate-source", "bow-out", "state", "stalled", "overflow",
}

func (d Drop) String() string { return name(dropNames[:], int(d), "Drop") }

// Drops lists every drop, for metrics and manuals.
func Drops() []Drop {
	all := make([]Drop, 0, numDrops-1)
	for d := Accepted + 1; d < numDrops; d++ {
		all = append(all, d)
	}
	return all
}

// Reasons lists every reason, for metrics and manuals.
func Reasons() []Reason {
	all := make([]Reason, 0, len(reasonNames)-1)
	for r := 1; r < len(reasonNames); r++ {
		all = append(all, Reason(r))
	}
	return all
}

// Effects is what one input to an Engine asks of its caller. The zero value
// asks for nothing. Send and Change point into the engine: they are valid until
// its next call.
type Effects struct {
	Send     []Frame     // to be sent in this order, then reported by Sent or SendFailed
	Change   *Transition // the state changed, or a master was contested
	Permit   Permit      // a new permit; the zero value is none
	Ask      bool        // ask the guard about Change.Epoch, answer by Granted or Denied
	Announce bool        // still master, but say so again: gratuitous ARP and NA
	Drop     Drop        // the packet was refused
	Deadline Instant     // call Tick then, or earlier; always set from the engine's timers
}

// Transition is one change of state: the value of which log lines, metrics,
// events and transcripts are made.
type Transition struct {
	VHID     uint8
	From, To State
	Reason   Reason
	Peer     netip.Addr // the other master, if one was involved
	Epoch    Epoch      // of the mastership that begins, goes on or ends; 0 if there was none
	At       Instant
}

func (t Transition) String() string {
	s := fmt.Sprintf("%v -> %v (%s", t.From, t.To, t.Reason.Text())
	if t.Peer.IsValid() {
		s += ", " + t.Peer.String()
	}
	return s + ")"
}

// Permit says until when this node may act as master. It is given after each
// successful send, and Until is a little before the fastest backup may take over:
// a tenth of a second, or a tenth of the time if that is less. Whoever adds, renews, restores or announces an address holds a
// live permit, and leaves room for what cannot be undone at once: an address
// with a kernel lifetime must be gone by Until, not merely no longer renewed.
// The zero value permits nothing.
type Permit struct {
	Epoch Epoch
	Until Instant
}

// Live reports whether the permit still holds at now.
func (p Permit) Live(now Instant) bool { return p.Epoch != 0 && now < p.Until }

func name(names []string, i int, kind string) string {
	if i < len(names) {
		return names[i]
	}
	return fmt.Sprintf("%s(%d)", kind, i)
}

func equalFold(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if a[i]|0x20 != b[i]|0x20 {
			return false
		}
	}
	return true
}
