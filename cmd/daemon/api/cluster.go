package api

import "time"

// Cluster answers /v1/cluster: what this node knows of the modules of a replication that
// are kept equal on many nodes, and of the other nodes.
type Cluster struct {
	Name    string          `json:"name"` // of the replication
	NodeID  uint8           `json:"node_id"`
	Holder  uint8           `json:"holder"`          // node id of who holds the address, as far as is known; 0: not known
	Holding bool            `json:"holding"`         // this node
	Ready   bool            `json:"ready"`           // and it has heard its neighbours: its changes count
	Error   string          `json:"error,omitempty"` // why it does not run
	Unsaved bool            `json:"unsaved,omitempty"`
	Modules []ClusterModule `json:"modules"`
	Nodes   []ClusterNode   `json:"nodes"`
	Events  []ClusterEvent  `json:"events"` // the latest, oldest first
	Traffic ClusterTraffic  `json:"traffic"`
}

// ClusterModule is a module of this node.
type ClusterModule struct {
	Name     string       `json:"name"`
	Standing string       `json:"standing"` // in-sync, fresh, unknown, changed, behind, fetching, installing, offering or refusing
	Stamp    ClusterStamp `json:"stamp"`
	Holds    string       `json:"holds"`            // checksum of what the database holds
	Wanted   ClusterStamp `json:"wanted,omitzero"`  // the newest that others have, if it is newer
	Seen     int          `json:"seen,omitempty"`   // so many observations of it
	Reason   string       `json:"reason,omitempty"` // why it is not as it should be
}

// ClusterStamp names one state of a module. Without an epoch a node has none: it is fresh.
type ClusterStamp struct {
	Version  uint64 `json:"version"`
	Epoch    uint64 `json:"epoch"` // logical clock, begun from milliseconds since 1970
	Term     uint64 `json:"term"`  // mastership of its maker
	NodeID   uint8  `json:"node_id"`
	Checksum string `json:"checksum"`
}

// ClusterNode is another node, as it said itself. Of one that this node does not poll
// only what it said by itself is known, which may be old.
type ClusterNode struct {
	NodeID    uint8               `json:"node_id"`
	Address   string              `json:"address"`
	Neighbour bool                `json:"neighbour"` // this node polls it
	Heard     *time.Time          `json:"heard,omitempty"`
	Failures  int                 `json:"failures,omitempty"` // in a row
	Modules   []ClusterNodeModule `json:"modules"`
}

// ClusterNodeModule is a module of another node.
type ClusterNodeModule struct {
	Name  string       `json:"name"`
	Stamp ClusterStamp `json:"stamp"`
	Holds string       `json:"holds"`
}

// ClusterEvent is something that happened to a module.
type ClusterEvent struct {
	Time   time.Time    `json:"time"`
	Kind   string       `json:"kind"`
	Module string       `json:"module,omitempty"`
	NodeID uint8        `json:"node_id,omitempty"`
	Stamp  ClusterStamp `json:"stamp,omitzero"`
	Lost   ClusterStamp `json:"lost,omitzero"` // of a conflict: the state that did not go into the other
	Text   string       `json:"text"`
}

// ClusterTraffic is what went to and from other nodes.
type ClusterTraffic struct {
	SentBytes     int64 `json:"sent_bytes"`
	ReceivedBytes int64 `json:"received_bytes"`
	Dropped       int64 `json:"dropped_messages"`
}

// ClusterRequest lets the guarded tables of a module be emptied once (/v1/cluster/allow), or
// makes this node's content that of the cluster (/v1/cluster/seed).
type ClusterRequest struct {
	Name   string `json:"name"` // of the replication; "" means the only one with sync
	Module string `json:"module"`
}
