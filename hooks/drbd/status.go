package drbd

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Words of DRBD.
const (
	primary    = "Primary"
	secondary  = "Secondary"
	upToDate   = "UpToDate"
	connected  = "Connected"
	standAlone = "StandAlone"
)

// Status is one resource in what `drbdsetup status --json` writes. Fields come and go with
// versions of DRBD: what is not there is zero, but for quorum, which is not lost then.
type Status struct {
	Name        string       `json:"name"`
	Role        string       `json:"role"`      // Primary, Secondary, Unknown
	Suspended   bool         `json:"suspended"` // writes stand still
	Devices     []Device     `json:"devices"`
	Connections []Connection `json:"connections"`
}

// Device is one volume on this node.
type Device struct {
	Volume int    `json:"volume"`
	Disk   string `json:"disk-state"` // UpToDate, Inconsistent, Outdated, Diskless ...
	Quorum *bool  `json:"quorum"`
}

// Connection is that to one other node.
type Connection struct {
	Name    string       `json:"name"`
	State   string       `json:"connection-state"` // Connected, Connecting, StandAlone ...
	Role    string       `json:"peer-role"`
	Devices []PeerDevice `json:"peer_devices"`
}

// PeerDevice is a volume on another node.
type PeerDevice struct {
	Volume    int    `json:"volume"`
	Disk      string `json:"peer-disk-state"`
	OutOfSync int64  `json:"out-of-sync"` // KiB
}

// ParseStatus reads the answer, and returns the resource of this name.
func ParseStatus(text []byte, name string) (Status, error) {
	var all []Status
	if err := json.Unmarshal(text, &all); err != nil {
		return Status{}, fmt.Errorf("drbd: parse status: %w", err)
	}
	for _, s := range all {
		if s.Name != name {
			continue
		}
		if s.Role == "" || len(s.Devices) == 0 {
			return s, fmt.Errorf("drbd: resource %s has no role or no device: is it up? drbdadm up %s", name, name)
		}
		return s, nil
	}
	return Status{}, fmt.Errorf("drbd: resource %s is not there: drbdadm up %s", name, name)
}

// primaryElsewhere returns the node that says that it is Primary, "" if none does.
func (s *Status) primaryElsewhere() string {
	for _, c := range s.Connections {
		if c.Role == primary {
			return c.Name
		}
	}
	return ""
}

// unfit returns why the copies of this node must not be used.
func (s *Status) unfit() error {
	for _, d := range s.Devices {
		if d.Disk != upToDate {
			return fmt.Errorf("volume %d is %s, not %s", d.Volume, d.Disk, upToDate)
		}
	}
	return s.alone()
}

// alone returns why a node may have data that others do not have, nor will get.
func (s *Status) alone() error {
	for _, c := range s.Connections {
		if c.State == standAlone {
			return fmt.Errorf("the connection to %s is %s: after a split brain an operator has to say whose data are thrown away", c.Name, c.State)
		}
	}
	return nil
}

// quorum returns an error if a volume has lost it.
func (s *Status) quorum() error {
	for _, d := range s.Devices {
		if d.Quorum != nil && !*d.Quorum {
			return fmt.Errorf("volume %d has no quorum", d.Volume)
		}
	}
	return nil
}

// drained returns why no other node has all that was written here.
func (s *Status) drained() error {
	if len(s.Connections) == 0 {
		return errors.New("there is no other node")
	}
	var lacks []string
	for _, c := range s.Connections {
		why := c.lacks()
		if why == "" {
			return nil
		}
		lacks = append(lacks, why)
	}
	return errors.New(strings.Join(lacks, "; "))
}

// lacks says why another node does not have all data, "" if it does.
func (c *Connection) lacks() string {
	if c.State != connected {
		return fmt.Sprintf("%s is %s", c.Name, c.State)
	}
	i := slices.IndexFunc(c.Devices, func(d PeerDevice) bool { return d.Disk != upToDate || d.OutOfSync > 0 })
	if i >= 0 {
		d := c.Devices[i]
		return fmt.Sprintf("volume %d of %s is %s, %d KiB out of sync", d.Volume, c.Name, d.Disk, d.OutOfSync)
	}
	if len(c.Devices) == 0 {
		return c.Name + " has no device"
	}
	return ""
}
