package link

import (
	"errors"
	"fmt"
	"strings"
)

// ErrDown is what Send returns, wrapped, while the interface is down or absent.
var ErrDown = errors.New("the interface is down or absent")

// ErrClosed is what a closed interface or port returns, wrapped.
var ErrClosed = errors.New("closed")

// OpError is a failure of this package: what was tried, on which object, why,
// and what an operator can do about it. errors.Is(err, os.ErrPermission) holds
// if a capability is missing.
type OpError struct {
	Op     string // open, attach, send
	Object string // the interface, or "vhid 9 on eth0", or "vrid 9 of VRRP over IPv4 on eth0"
	Err    error
	Hint   string // may be empty
}

func (e *OpError) Error() string {
	s := "link: " + e.Op + " " + e.Object + ": " + e.Err.Error()
	if e.Hint != "" {
		s += " (" + e.Hint + ")"
	}
	return s
}

func (e *OpError) Unwrap() error { return e.Err }

// BusyError says that an id is in use on an interface already, by a virtual
// router of the same Kind. Two speakers of one on one node would each take the
// other's adverts for a peer's.
type BusyError struct {
	Interface string
	VHID      uint8
	Kind      Kind
	PID       int    // of the holder, which may be this process; 0 if it cannot be seen from here
	UID       uint32 // the holder's user, as far as it is known
	// Foreign says that the holder is not root's nor our user's and cannot move
	// addresses, so is no daemon: every user can keep the name that stands for the
	// claim.
	Foreign bool
}

func (e *BusyError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "link: attach %s: already in use by ", object(e.Kind, e.VHID, e.Interface))
	if e.Foreign {
		fmt.Fprintf(&b, "process %d of user id %d, which is no carpd of ours and only keeps its name (look at it: ps -fp %d, and end it)", e.PID, e.UID, e.PID)
	} else if e.PID == 0 {
		b.WriteString("a process that cannot be seen from here (look in the other containers that share this network)")
	} else {
		fmt.Fprintf(&b, "process %d (stop it, or use another %s; see: ps -fp %d)", e.PID, e.Kind.word(), e.PID)
	}
	return b.String()
}

// object names an id on an interface in messages.
func object(k Kind, id uint8, name string) string { return k.label(id) + " on " + name }

// needRaw is the hint when CAP_NET_RAW is missing.
const needRaw = "CAP_NET_RAW is missing: run as root, or set AmbientCapabilities=CAP_NET_RAW in the systemd unit, or setcap cap_net_raw+ep on the binary"
