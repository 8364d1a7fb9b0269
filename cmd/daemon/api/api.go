// Package api is the vocabulary of the control socket: the JSON that carpd
// answers and carpctl prints. It holds types only and imports the standard
// library alone, so that a client needs nothing else of the project.
//
// The socket speaks HTTP/1.1:
//
//	GET  /v1/status                     Status
//	GET  /v1/events?since=SEQ&follow=1  one Event a line; with follow it does not end
//	GET  /v1/explain?name=NAME          Explanation
//	POST /v1/handover  NameRequest      Result, when somebody has taken over or nobody did
//	POST /v1/resume    NameRequest      Result
//	POST /v1/demote    DemoteRequest    Result
//	POST /v1/state     StateRequest     Result
//	POST /v1/seal/reset NameRequest     Result
//	POST /v1/reload    ReloadRequest    ReloadResult
//	GET  /v1/snapshots?name=NAME        Snapshots
//	POST /v1/snapshots/diff DiffRequest Diff
//	POST /v1/restore   RestoreRequest   RestoreResult
//
// A refusal is status 409 (or 404 for an unknown name, 400 for a bad request)
// with an Error as its body.
package api

import "time"

// Status answers /v1/status.
type Status struct {
	Node        string        `json:"node"`
	Version     string        `json:"version"`
	RealTime    bool          `json:"real_time,omitempty"` // adverts go before all other work of the machine
	Instances   []Instance    `json:"instances"`
	Groups      []Group       `json:"groups,omitempty"` // those whose instances move together
	Replication []Replication `json:"replication"`
	Demotions   []Demotion    `json:"demotions,omitempty"`
	Alarms      []Alarm       `json:"alarms,omitempty"`
	Log         *LogStatus    `json:"log,omitempty"`
	Config      *ConfigStatus `json:"config,omitempty"`
	Guardian    *Guardian     `json:"guardian,omitempty"`
}

// Instance is one virtual router: a vhid on an interface, or a vrid of VRRP in one
// address family.
type Instance struct {
	Name             string    `json:"name"`
	Protocol         string    `json:"protocol"`
	VHID             uint8     `json:"vhid"`
	Interface        string    `json:"interface"`
	State            string    `json:"state"` // INIT, BACKUP, MASTER or RELEASING
	Since            time.Time `json:"since"`
	Reason           string    `json:"reason"`
	Epoch            uint64    `json:"epoch"`
	AdvBase          uint8     `json:"advbase"`
	AdvSkew          uint8     `json:"advskew"`
	EffectiveAdvSkew uint8     `json:"effective_advskew"`
	// VRRP has these instead of the three above, which are 0 there.
	Priority          uint8             `json:"priority,omitempty"`
	EffectivePriority uint8             `json:"effective_priority,omitempty"`
	IntervalMS        int64             `json:"interval_ms,omitempty"`
	Demotion          int               `json:"demotion"`
	Demotions         []Demotion        `json:"demotions,omitempty"`
	Preempt           bool              `json:"preempt"`
	Master            *Master           `json:"master,omitempty"` // the other master last heard; absent if none is known
	Addresses         []Address         `json:"addresses"`
	Hooks             []Hook            `json:"hooks"`
	Health            string            `json:"health,omitempty"` // ok, degraded or unfit; absent: nothing is watched
	Drops             map[string]uint64 `json:"drops"`            // by the names of the manual, zero counters left out
	Counters          Counters          `json:"counters"`
	PermitMS          int64             `json:"permit_ms,omitempty"` // how long the permit to have addresses still lasts; absent: there is none
	Lease             *Lease            `json:"lease,omitempty"`
	Seal              *Seal             `json:"seal,omitempty"`    // CARP
	Members           []Member          `json:"members,omitempty"` // of a sealed group: the others
	Fence             *Fence            `json:"fence,omitempty"`
	Rolling           *time.Time        `json:"rolling_until,omitempty"` // both digests are in use until then
	Paths             []Path            `json:"paths,omitempty"`         // the client side first; absent if there is no other
	Track             []Track           `json:"track,omitempty"`
	Alarms            []Alarm           `json:"alarms,omitempty"`
}

// Path is one way of an instance's adverts.
type Path struct {
	Interface   string   `json:"interface"`
	Peers       []string `json:"peers"` // unicast; empty for multicast
	Up          bool     `json:"up"`
	Silent      bool     `json:"silent"`                  // a master is heard over another path, and not over this one
	LastHeardMS *int64   `json:"last_heard_ms,omitempty"` // the last advert over it; absent if there was none
	Sent        uint64   `json:"sent"`                    // frames
	Failed      uint64   `json:"failed"`                  // frames that could not be sent
}

// Track is one probe of an instance's client side.
type Track struct {
	Gateway      string `json:"gateway"`
	State        string `json:"state"`                    // unknown, good or failed
	LastAnswerMS *int64 `json:"last_answer_ms,omitempty"` // absent if there was none
	RTTMicros    int64  `json:"rtt_us,omitempty"`         // of the last answer
	Rounds       uint64 `json:"rounds"`
	Missed       uint64 `json:"missed"`
	Trouble      string `json:"trouble,omitempty"` // why nothing could be asked
}

// Master is another node's role as heard on the wire.
type Master struct {
	Address     string `json:"address"`
	AdvBase     uint8  `json:"advbase"`
	AdvSkew     uint8  `json:"advskew"`
	Priority    uint8  `json:"priority,omitempty"`    // VRRP
	IntervalMS  int64  `json:"interval_ms,omitempty"` // VRRP
	Checksum    string `json:"checksum,omitempty"`    // VRRP 3 over IPv4: the form that it sends
	Refused     string `json:"refused,omitempty"`     // VRRP: the drop, if it is alive but its settings differ
	LastHeardMS int64  `json:"last_heard_ms"`
}

// Address is one of an instance's addresses.
type Address struct {
	Prefix  string `json:"prefix"`
	Present bool   `json:"present"`
}

// Group is instances that move together.
type Group struct {
	Name    string   `json:"name"`
	Members []string `json:"members"`           // names of instances
	State   string   `json:"state"`             // down, waiting, promote, up, demote
	Missing string   `json:"missing,omitempty"` // waiting: for whom
	Hooks   []Hook   `json:"hooks"`
}

// Hook is one configured hook, resource or monitor, and its last run.
type Hook struct {
	Name  string `json:"name"`
	Kind  string `json:"kind"`
	Phase string `json:"phase"` // or resource, or monitor
	State string `json:"state"` // idle, running, ok, failed
	Error string `json:"error,omitempty"`

	// Since the daemon started: calls of a hook, promotions and demotions of a resource.
	Runs     uint64 `json:"runs,omitempty"`
	Failures uint64 `json:"failures,omitempty"`
	LastMS   int64  `json:"last_ms,omitempty"` // how long the last one took

	// Of a resource or monitor that was looked at.
	Health string     `json:"health,omitempty"` // ok, degraded, unfit
	Text   string     `json:"text,omitempty"`   // what was seen
	Blind  string     `json:"blind,omitempty"`  // why it could not be looked at
	Seen   *time.Time `json:"seen,omitempty"`

	// Of a resource.
	Role   string     `json:"role,omitempty"`        // as it is: promoted, demoted, unknown
	Wished string     `json:"wished,omitempty"`      // as it should be
	Apart  *time.Time `json:"apart_since,omitempty"` // since when they differ
	Epoch  uint64     `json:"epoch,omitempty"`       // the highest that it was promoted with here
	Step   string     `json:"step,omitempty"`        // of its plan, begun last
}

// Counters are totals since the instance started.
type Counters struct {
	Received    uint64 `json:"received"`
	Sent        uint64 `json:"sent"`
	SendErrors  uint64 `json:"send_errors"`
	Transitions uint64 `json:"transitions"`
	Restored    uint64 `json:"addresses_restored"`
	Lapses      uint64 `json:"permit_lapses"` // addresses taken off because the permit ran out
}

// Lease is the kernel lifetime of an instance's addresses.
type Lease struct {
	ValidMS  int64  `json:"valid_ms"`
	RenewMS  int64  `json:"renew_ms"`
	Promised bool   `json:"promised"` // gone before the fastest backup takes over
	Note     string `json:"note"`
	// GoneMS is by when after its last advert the addresses of a dead node are gone (0:
	// not promised), MasterDownMS when the fastest backup takes over, and SlackMS how late
	// the daemon may be before it loses its own addresses.
	GoneMS       int64 `json:"gone_ms,omitempty"`
	MasterDownMS int64 `json:"master_down_ms,omitempty"`
	SlackMS      int64 `json:"slack_ms,omitempty"`
}

// Seal is what an instance of CARP knows of clocks and recordings.
type Seal struct {
	Replay   string     `json:"replay"`              // sealed, window or off
	NodeID   uint8      `json:"node_id,omitempty"`   // of this node
	WindowMS int64      `json:"window_ms,omitempty"` // sealed: how old an advert may be
	Clock    time.Time  `json:"clock"`               // the group clock; it need not be right
	AheadMS  int64      `json:"ahead_ms"`            // of this node's wall clock
	Reserved *time.Time `json:"reserved_until,omitempty"`
	Nodes    []SealNode `json:"nodes"` // sealed: the members that were heard
	// Constant are sources whose counter never changes.
	Constant []string `json:"constant,omitempty"`
	Probes   uint64   `json:"probes"`  // clock probes sent
	Answers  uint64   `json:"answers"` // and answered
}

// Member is another node of a sealed group, in its own words.
type Member struct {
	NodeID      uint8  `json:"node_id"`
	Address     string `json:"address"`
	State       string `json:"state"`
	Fitness     string `json:"fitness"` // fit, degraded or unfit
	AdvBase     uint8  `json:"advbase"`
	AdvSkew     uint8  `json:"advskew"`        // with its demotion
	Held        uint8  `json:"held,omitempty"` // resources that it holds
	Epoch       uint64 `json:"epoch"`
	LastHeardMS int64  `json:"last_heard_ms"`
	Gone        bool   `json:"gone,omitempty"`    // not heard any more
	Differs     bool   `json:"differs,omitempty"` // its advbase, families or window are not this node's
}

// SealNode is one member of a sealed group.
type SealNode struct {
	NodeID      uint8     `json:"node_id"`
	Address     string    `json:"address"`
	Clock       time.Time `json:"clock"` // the highest that was accepted
	LastHeardMS int64     `json:"last_heard_ms"`
}

// Fence is the packet filter in front of an instance's addresses, or why there is none.
type Fence struct {
	On       bool  `json:"on"`
	Open     bool  `json:"open"`     // the addresses answer at present
	Promised bool  `json:"promised"` // silent before the fastest backup takes over, and never while the master lives
	ClosedMS int64 `json:"closed_ms,omitempty"`
	// FromMS is the master-down time from which on a fence is promised.
	FromMS int64  `json:"from_ms"`
	Note   string `json:"note"`
}

// Demotion is one owner's share of a demotion.
type Demotion struct {
	Owner  string `json:"owner"`
	Target string `json:"target"` // "global", "group NAME" or an instance's name
	Amount int    `json:"amount"`
}

// Alarm stands as long as its cause does.
type Alarm struct {
	Name  string    `json:"name"` // a fixed word, e.g. bad-hash
	Text  string    `json:"text"` // what happened, where, what to do
	Since time.Time `json:"since"`
	Count uint64    `json:"count"`
}

// LogStatus says how the log sink keeps up.
type LogStatus struct {
	Dropped uint64 `json:"dropped"` // lines thrown away because the sink was slow or dead
}

// ConfigStatus says which configuration runs.
type ConfigStatus struct {
	File   string    `json:"file"`
	Loaded time.Time `json:"loaded"`
}

// Guardian is the process that acts for the daemon when it has died or hangs.
type Guardian struct {
	PID        int    `json:"pid,omitempty"` // absent while there is none
	State      string `json:"state"`         // off, starting, guarding, silent, restarting
	Restarts   uint64 `json:"restarts"`
	KillsHooks bool   `json:"kills_hooks"` // with all their children: there is a cgroup for them
}

// Event is one transition or alarm, numbered from 1 in the order it happened.
type Event struct {
	Seq      uint64    `json:"seq"`
	Time     time.Time `json:"time"`
	Instance string    `json:"instance,omitempty"`
	Kind     string    `json:"kind"` // transition, alarm, alarm-end, address, hook, reload, demotion
	From     string    `json:"from,omitempty"`
	To       string    `json:"to,omitempty"`
	Reason   string    `json:"reason,omitempty"`
	Peer     string    `json:"peer,omitempty"`
	Epoch    uint64    `json:"epoch,omitempty"`
	Text     string    `json:"text"`
}

// Explanation answers /v1/explain: who is master and why, one sentence a line.
type Explanation struct {
	Name  string   `json:"name"`
	State string   `json:"state"`
	Lines []string `json:"lines"`
}

// NameRequest names an instance; an empty name means the only one.
type NameRequest struct {
	Name string `json:"name"`
}

// DemoteRequest sets one owner's demotion of an instance, a group, or (both
// empty) the whole node. Amount 0 takes it back.
type DemoteRequest struct {
	Name   string `json:"name,omitempty"`
	Group  string `json:"group,omitempty"`
	Owner  string `json:"owner"` // default "operator"
	Amount int    `json:"amount"`
}

// StateRequest asks for BACKUP or MASTER.
type StateRequest struct {
	Name  string `json:"name"`
	State string `json:"state"`
}

// ReloadRequest asks to read the configuration file again.
type ReloadRequest struct {
	DryRun bool `json:"dry_run"`
}

// ReloadResult lists what a reload changed, or would change, one change a line.
type ReloadResult struct {
	Applied bool     `json:"applied"`
	Changes []string `json:"changes"`
}

// Result answers a command that was done.
type Result struct {
	Text string `json:"text"`
}

// Error answers a command that was refused.
type Error struct {
	Error string `json:"error"`
	Hint  string `json:"hint,omitempty"`
}
