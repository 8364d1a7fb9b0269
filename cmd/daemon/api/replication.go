package api

import "time"

// Replication is one database of which snapshots are kept here. Times that are not yet are
// absent.
type Replication struct {
	Name     string    `json:"name"`
	Instance string    `json:"instance"` // whose role it follows
	Kind     string    `json:"kind"`     // sqlite or proxysql
	Database string    `json:"database"`
	Store    string    `json:"store"`
	Role     string    `json:"role"`  // master, standby, or stopped: it cannot run, and error says why
	Since    time.Time `json:"since"` // when that began
	Epoch    uint64    `json:"epoch,omitempty"`
	Newest   *Snapshot `json:"newest,omitempty"` // the newest sound one here

	// LastSuccess is when the database was last seen to be in the newest snapshot, changed or
	// not (master), or when that snapshot was first seen here (standby).
	LastSuccess *time.Time `json:"last_success,omitempty"`
	// AgeMS is for how long a change may have been in no snapshot. Master only, 0: in none.
	AgeMS      int64      `json:"age_ms"`
	Error      string     `json:"error,omitempty"` // what went wrong last, until it goes well
	ErrorAt    *time.Time `json:"error_at,omitempty"`
	WatchError string     `json:"watch_error,omitempty"` // why changes cannot be seen; the database is looked at each second
	// RefusingSince is since when no sound snapshot could be taken, and Fault why.
	RefusingSince *time.Time `json:"refusing_since,omitempty"`
	Fault         string     `json:"fault,omitempty"`
	// Lost is the greatest version of another mastership that a peer had and this node had
	// not when it began: changes that are in it may be missing in what serves now.
	Lost string `json:"lost,omitempty"`
	// Superseded is the version of a greater mastership that is in the own store: nothing
	// is taken any more in this one.
	Superseded string `json:"superseded,omitempty"`

	Waiting        int         `json:"waiting,omitempty"` // standby: snapshots that are not verified yet
	Snapshots      int         `json:"snapshots"`
	Bytes          int64       `json:"bytes"` // of all snapshots
	Quarantined    int         `json:"quarantined"`
	LastQuarantine *Quarantine `json:"last_quarantine,omitempty"`
	PruneError     string      `json:"prune_error,omitempty"`

	// Since the daemon started, over all masterships.
	Taken    uint64 `json:"taken"`
	Refused  uint64 `json:"refused"`  // snapshots that were not sound, taken or received
	Failed   uint64 `json:"failed"`   // tries to take one that failed, those refused among them
	Verified uint64 `json:"verified"` // received, and sound
	Pruned   uint64 `json:"pruned"`

	Peers []ReplicationPeer `json:"peers"`
}

// ReplicationPeer is a node that snapshots are shipped to.
type ReplicationPeer struct {
	Name        string     `json:"name"`
	Address     string     `json:"address"`
	State       string     `json:"state"`            // idle (this node is not master), unknown, current, behind, failing, older
	Newest      string     `json:"newest,omitempty"` // version there, as far as it is known
	LagMS       int64      `json:"lag_ms"`           // for how long a snapshot of this mastership has been missing there
	LastSuccess *time.Time `json:"last_success,omitempty"`
	Error       string     `json:"error,omitempty"`
	Failures    int        `json:"failures,omitempty"` // one after the other
	LastBytes   int64      `json:"last_bytes,omitempty"`
	LastTookMS  int64      `json:"last_took_ms,omitempty"`
	Shipped     uint64     `json:"shipped"` // since the daemon started
	Bytes       int64      `json:"bytes"`   // onto the wire since then
}

// Snapshot is one that is in service.
type Snapshot struct {
	Version string           `json:"version"` // EPOCH-NODE-SEQUENCE
	Source  string           `json:"source"`  // name of the node that took it
	Time    time.Time        `json:"time"`    // when, by its clock
	Kind    string           `json:"kind"`
	Size    int64            `json:"size"`
	SHA256  string           `json:"sha256"`
	Rows    map[string]int64 `json:"rows,omitempty"` // by table
}

// Quarantine is a snapshot that is out of service.
type Quarantine struct {
	Version string `json:"version"`
	Reason  string `json:"reason"`
	Text    string `json:"text"`
}

// Snapshots answers /v1/snapshots: newest first.
type Snapshots struct {
	Name        string       `json:"name"`
	Store       string       `json:"store"`
	Snapshots   []Snapshot   `json:"snapshots"`
	Quarantined []Quarantine `json:"quarantined"`
}

// DiffRequest asks what differs between two snapshots of a replication. A version is as
// Snapshot has it, leading zeros left out or not, or newest, previous (the one before), or
// current: the database of this node as it is now.
type DiffRequest struct {
	Name   string `json:"name"` // of the replication; "" means the only one
	Before string `json:"before"`
	After  string `json:"after"`
	Limit  int    `json:"limit,omitempty"` // rows of a sort and table; 0: 20, at most 1000
}

// Diff says what differs, module by module: of ProxySQL what it loads together, else each
// table is one. Nothing: they say the same.
type Diff struct {
	Name    string   `json:"name"`
	Before  string   `json:"before"`
	After   string   `json:"after"`
	Modules []Module `json:"modules"`
}

// Module is a set of tables in which something differs.
type Module struct {
	Module string  `json:"module"`
	Tables []Table `json:"tables"`
}

// Table counts all rows that differ, and lists the first.
type Table struct {
	Table   string   `json:"table"`
	Note    string   `json:"note,omitempty"`
	Added   int64    `json:"added"`
	Removed int64    `json:"removed"`
	Changed int64    `json:"changed"` // rows with the same key
	Changes []Change `json:"changes"`
}

// Change is one row. Of one that was changed Cells are the columns that were.
type Change struct {
	What  string `json:"what"` // added, removed or changed
	Key   []Cell `json:"key,omitempty"`
	Cells []Cell `json:"cells,omitempty"`
}

// Cell is a value as a literal of SQL. Both are empty where it is a secret.
type Cell struct {
	Column string `json:"column"`
	Before string `json:"before,omitempty"`
	After  string `json:"after,omitempty"`
	Secret bool   `json:"secret,omitempty"`
}

// RestoreRequest asks to put a snapshot in the place of the database.
type RestoreRequest struct {
	Name    string `json:"name"`
	Version string `json:"version"` // as in DiffRequest, without current; "" means newest
	DryRun  bool   `json:"dry_run"`
}

// RestoreResult says what was done, or would be, and what that changes.
type RestoreResult struct {
	Text    string `json:"text"`
	Version string `json:"version"`
	Done    bool   `json:"done"`
	Diff    *Diff  `json:"diff,omitempty"` // of the present database and the snapshot; absent if there is none
}
