package replicator

import "time"

// MasterStatus is what is known of a Master at one moment. Times are by this node's
// clock; a zero time is "not yet".
type MasterStatus struct {
	Since   time.Time `json:"since"`   // when it began
	Newest  Manifest  `json:"newest"`  // of the own store; zero Version: none
	Taken   uint64    `json:"taken"`   // snapshots that were published in the own store
	Same    uint64    `json:"same"`    // looks that found nothing new
	Refused uint64    `json:"refused"` // snapshots that were not sound
	Failed  uint64    `json:"failed"`  // tries to take or publish that failed, those refused among them

	LastSuccess time.Time `json:"last_success"` // when the database was last seen to be in the own store, changed or not
	// Pending is when the oldest change was seen that is in no snapshot yet, or since
	// when that cannot be told: now less this is how old the newest snapshot may be.
	// Zero: it is all that there is.
	Pending time.Time `json:"pending"`
	// Fault is why the last snapshot was not sound, and Refusing since when none was.
	Fault     Fault     `json:"fault"`
	Refusing  time.Time `json:"refusing"`
	LastError string    `json:"last_error,omitempty"` // of taking or publishing; "" after a success
	ErrorAt   time.Time `json:"error_at"`             // of the last error, also after a success

	// Notes are those of the last snapshot's verdict: what is unusual about it.
	Notes []string `json:"notes,omitempty"`
	// WatchError says why changes cannot be seen; "": they can. The database is then
	// looked at each second.
	WatchError string `json:"watch_error,omitempty"`

	// Lost is the greatest version of another mastership that a peer had and this node
	// had not when it began: changes that are in it may be missing in what serves now. It
	// stays to the end of the mastership; the snapshot stays in the peer's store until it
	// is pruned there. For an alarm.
	Lost Version `json:"lost"`

	// Superseded says that the own store holds the snapshot of a greater mastership:
	// nothing is taken any more in this one. For an alarm.
	Superseded Version `json:"superseded"`

	Store StoreStatus  `json:"store"`
	Peers []PeerStatus `json:"peers"` // in the order of MasterConfig.Peers
}

// PeerState says how a peer is.
type PeerState string

// The states of a peer.
const (
	PeerUnknown PeerState = "unknown" // it was not asked yet
	PeerCurrent PeerState = "current" // it has the newest snapshot
	PeerBehind  PeerState = "behind"  // a newer one is on its way
	PeerFailing PeerState = "failing" // the last try failed; it is tried again
	PeerOlder   PeerState = "older"   // it has a greater version: nothing is shipped to it in this mastership. For an alarm
)

// PeerStatus is what a Master knows of one peer.
type PeerStatus struct {
	Name  string    `json:"name"`
	State PeerState `json:"state"`
	There Version   `json:"there"` // the newest there, as far as it is known
	Lost  Version   `json:"lost"`  // as of the Master, of this peer
	// Behind is since when a snapshot of this mastership is missing there: now less
	// this is the lag. Zero: none is.
	Behind      time.Time     `json:"behind"`
	LastSuccess time.Time     `json:"last_success"` // when it was last known to have the newest
	LastError   string        `json:"last_error,omitempty"`
	ErrorAt     time.Time     `json:"error_at"` // of the last error, also after a success
	Failures    int           `json:"failures"` // one after the other
	Shipped     uint64        `json:"shipped"`
	Bytes       int64         `json:"bytes"` // onto the wire in this mastership
	LastBytes   int64         `json:"last_bytes"`
	LastTook    time.Duration `json:"last_took_ns"` // of the last shipping that succeeded
}

// Lag returns for how long a peer has been without a snapshot that it should have.
func (p PeerStatus) Lag(now time.Time) time.Duration { return since(p.Behind, now) }

// Age returns for how long a change may have been in no snapshot.
func (s MasterStatus) Age(now time.Time) time.Duration { return since(s.Pending, now) }

func since(t, now time.Time) time.Duration {
	if t.IsZero() {
		return 0
	}
	return max(now.Sub(t), 0)
}

// StoreStatus is what was last seen of a node's own store.
type StoreStatus struct {
	Snapshots      int         `json:"snapshots"`
	Bytes          int64       `json:"bytes"` // of all snapshots
	Quarantined    int         `json:"quarantined"`
	LastQuarantine Quarantined `json:"last_quarantine"` // the newest version that is there
	Pruned         uint64      `json:"pruned"`          // by this loop
	LastPrune      time.Time   `json:"last_prune"`
	PruneError     string      `json:"prune_error,omitempty"` // of the last time; "": it went well
}

// StandbyStatus is what is known of a Standby at one moment.
type StandbyStatus struct {
	Since     time.Time   `json:"since"`
	Newest    Manifest    `json:"newest"`               // the newest that was verified here and found sound; zero Version: none
	Arrived   time.Time   `json:"arrived"`              // when that one was first seen here
	Verified  uint64      `json:"verified"`             // found sound by this loop
	Refused   uint64      `json:"refused"`              // sent to quarantine by this loop
	Waiting   int         `json:"waiting"`              // not verified yet
	LastError string      `json:"last_error,omitempty"` // of reading or verifying; "" after a success
	ErrorAt   time.Time   `json:"error_at"`             // of the last error, also after a success
	Store     StoreStatus `json:"store"`

	// WatchError says why arriving snapshots cannot be seen; "": they can. The store is
	// then looked at each StandbyConfig.Poll.
	WatchError string `json:"watch_error,omitempty"`
}
