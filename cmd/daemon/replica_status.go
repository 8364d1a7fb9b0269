package daemon

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/cmd/daemon/api"
	"github.com/carpd/carpd/replicator"
	"github.com/carpd/carpd/vip"
)

// totals are what masterships and standbys that are over have counted.
type totals struct {
	taken, refused, failed, verified, pruned uint64
	peers                                    map[string]carried
}

// carried is what was brought to one peer.
type carried struct {
	shipped uint64
	bytes   int64
}

func (t *totals) addMaster(s replicator.MasterStatus) {
	t.taken += s.Taken
	t.refused += s.Refused
	t.failed += s.Failed
	t.pruned += s.Store.Pruned
	if t.peers == nil {
		t.peers = map[string]carried{}
	}
	for _, p := range s.Peers {
		c := t.peers[p.Name]
		t.peers[p.Name] = carried{c.shipped + p.Shipped, c.bytes + p.Bytes}
	}
}

func (t *totals) addStandby(s replicator.StandbyStatus) {
	t.verified += s.Verified
	t.refused += s.Refused
	t.pruned += s.Store.Pruned
}

// Roles of a replica in its status.
const (
	replicaMaster  = "master"
	replicaStandby = "standby"
	replicaStopped = "stopped"
)

// status is what status says of it.
func (r *replica) status(now time.Time) api.Replication {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.plan
	out := api.Replication{
		Name: p.Name, Instance: p.Instance, Kind: p.Source.Kind, Database: p.Source.Database, Store: p.Store,
		Role: replicaStopped, Since: r.since, Error: r.trouble, Peers: []api.ReplicationPeer{},
		Taken: r.past.taken, Refused: r.past.refused, Failed: r.past.failed, Verified: r.past.verified, Pruned: r.past.pruned,
	}
	for _, s := range p.Peers {
		c := r.past.peers[s.Name]
		out.Peers = append(out.Peers, api.ReplicationPeer{Name: s.Name, Address: s.Address, State: "idle", Shipped: c.shipped, Bytes: c.bytes})
	}
	switch {
	case r.master != nil:
		out.Epoch = uint64(r.running)
		masterReplication(&out, r.master.Status(), now)
	case r.standby != nil:
		standbyReplication(&out, r.standby.Status())
	}
	return out
}

func masterReplication(out *api.Replication, s replicator.MasterStatus, now time.Time) {
	out.Role, out.Since, out.LastSuccess, out.AgeMS = replicaMaster, s.Since, when(s.LastSuccess), s.Age(now).Milliseconds()
	out.Newest = snapshotOf(s.Newest)
	out.Error, out.WatchError, out.ErrorAt = s.LastError, s.WatchError, when(s.ErrorAt)
	if out.RefusingSince = when(s.Refusing); out.RefusingSince != nil {
		out.Fault = faultText(s.Fault)
	}
	if !s.Lost.IsZero() {
		out.Lost = s.Lost.String()
	}
	if !s.Superseded.IsZero() {
		out.Superseded = s.Superseded.String()
	}
	out.Taken += s.Taken
	out.Refused += s.Refused
	out.Failed += s.Failed
	storeReplication(out, s.Store)
	for i := range min(len(s.Peers), len(out.Peers)) {
		from, to := s.Peers[i], &out.Peers[i]
		to.State, to.LagMS, to.LastSuccess = string(from.State), from.Lag(now).Milliseconds(), when(from.LastSuccess)
		to.Error, to.Failures, to.LastBytes, to.LastTookMS = from.LastError, from.Failures, from.LastBytes, from.LastTook.Milliseconds()
		to.Shipped += from.Shipped
		to.Bytes += from.Bytes
		if !from.There.IsZero() {
			to.Newest = from.There.String()
		}
	}
}

func standbyReplication(out *api.Replication, s replicator.StandbyStatus) {
	out.Role, out.Since, out.LastSuccess = replicaStandby, s.Since, when(s.Arrived)
	out.Newest, out.Waiting = snapshotOf(s.Newest), s.Waiting
	out.Error, out.ErrorAt = s.LastError, when(s.ErrorAt)
	out.Verified += s.Verified
	out.Refused += s.Refused
	storeReplication(out, s.Store)
}

func storeReplication(out *api.Replication, s replicator.StoreStatus) {
	out.Snapshots, out.Bytes, out.Quarantined, out.PruneError = s.Snapshots, s.Bytes, s.Quarantined, s.PruneError
	out.Pruned += s.Pruned
	if s.Quarantined > 0 {
		q := quarantineOf(s.LastQuarantine)
		out.LastQuarantine = &q
	}
}

// when is a time that may not be yet.
func when(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func faultText(f replicator.Fault) string { return string(f.Reason) + ": " + f.Text }

// snapshotOf returns nil if there is none.
func snapshotOf(m replicator.Manifest) *api.Snapshot {
	if m.Version.IsZero() {
		return nil
	}
	return &api.Snapshot{Version: m.Version.String(), Source: m.Source, Time: m.Time, Kind: m.Kind, Size: m.Size, SHA256: m.SHA256, Rows: m.Rows}
}

func quarantineOf(q replicator.Quarantined) api.Quarantine {
	return api.Quarantine{Version: q.Version.String(), Reason: string(q.Fault.Reason), Text: q.Fault.Text}
}

// replicationAlarms returns every alarm about a replication, those that do not stand
// included. A thing is told when it has been so for longer than after.
func replicationAlarms(s api.Replication, after time.Duration, now time.Time) []condition {
	long := func(since *time.Time) bool { return since != nil && now.Sub(*since) > after }
	var all conditions
	all.when(s.Role == replicaStopped && s.Error != "", "replication-"+s.Name, "replication %s does not run: %s. It is tried again.", s.Name, s.Error)
	why := s.Error
	if s.Fault != "" {
		why = s.Fault
	}
	all.when(s.Role == replicaMaster && s.AgeMS > after.Milliseconds(), "snapshot-age-"+s.Name,
		"replication %s: changes of %s have been in no snapshot for %v: a takeover now would lose them. %s",
		s.Name, s.Database, (time.Duration(s.AgeMS) * time.Millisecond).Round(time.Second), why)
	newer := s.LastQuarantine != nil && (s.Newest == nil || s.LastQuarantine.Version > s.Newest.Version)
	switch {
	case s.Role == replicaStandby && newer:
		all.when(true, "snapshot-refused-"+s.Name, "replication %s: the newest snapshot that came, %s, is in quarantine: %s: %s. The one before is used.",
			s.Name, s.LastQuarantine.Version, s.LastQuarantine.Reason, s.LastQuarantine.Text)
	default:
		all.when(long(s.RefusingSince), "snapshot-refused-"+s.Name, "replication %s: no snapshot of %s was sound since %s: %s",
			s.Name, s.Database, clockOf(s.RefusingSince), s.Fault)
	}
	all.when(s.Role == replicaStandby && s.Newest == nil && s.Waiting == 0 && long(&s.Since), "no-snapshot-"+s.Name,
		"replication %s: there is no sound snapshot here: a takeover would have nothing to restore. Does a master ship to this node?", s.Name)
	all.when(s.Lost != "", "snapshot-lost-"+s.Name, "replication %s: a peer had snapshot %s, and this node had not when it took the role: changes that are only there are missing now. "+
		"carpctl snapshots diff tells which; the alarm ends with this mastership.", s.Name, s.Lost)
	late, older := lateness(s, after)
	all.when(late != "", "snapshot-lag-"+s.Name, "replication %s: the newest snapshot is not with %s.", s.Name, late)
	if s.Superseded != "" {
		older = "in the own store is " + s.Superseded + strings.TrimSuffix("; "+older, "; ")
	}
	all.when(older != "", "snapshot-older-"+s.Name, "replication %s: snapshots of a greater mastership exist: %s. Nothing goes there in this one, which never replaces "+
		"what may be newer: two nodes were master at a time, or the clock of one is behind. A handover and back begins a greater one.", s.Name, older)
	return all
}

// clockOf is the time of day of an instant that may not be.
func clockOf(t *time.Time) string {
	if t == nil {
		return "never"
	}
	return t.Format("15:04:05")
}

// lateness names the peers that lag, and those that hold something greater.
func lateness(s api.Replication, after time.Duration) (late, older string) {
	var slow, ahead []string
	for _, p := range s.Peers {
		switch {
		case p.State == string(replicator.PeerOlder):
			ahead = append(ahead, fmt.Sprintf("%s has %s", p.Name, p.Newest))
		case p.LagMS > after.Milliseconds():
			text := fmt.Sprintf("%s for %v", p.Name, (time.Duration(p.LagMS) * time.Millisecond).Round(time.Second))
			if p.Error != "" {
				text += " (" + p.Error + ")"
			}
			slow = append(slow, text)
		}
	}
	return strings.Join(slow, ", "), strings.Join(ahead, ", ")
}

// alarms raises and ends what follows from the status.
func (r *replica) alarms(now time.Time) {
	for _, a := range replicationAlarms(r.status(now), r.plan.AlarmAfter, now) {
		r.book.set(a.text != "", r.plan.Instance, a.name, a.text)
	}
}

// watchReplicas looks at all of them. It is of one goroutine.
func (d *Daemon) watchReplicas(now time.Time) {
	d.mu.Lock()
	all := d.replicas
	d.mu.Unlock()
	for _, r := range all {
		r.alarms(now)
		i, err := d.find(r.plan.Instance)
		if err != nil {
			continue // about to go
		}
		st, _ := i.speaker.Status()
		r.together(i.serving.now() != 0 || st.State == carp.Master && allPresent(i.set.Status()), now)
	}
}

func allPresent(all []vip.Status) bool {
	return !slices.ContainsFunc(all, func(a vip.Status) bool { return !a.Present })
}

// left says what a mastership that ends has kept to itself, "" if nothing: changes that are
// in no snapshot, and peers without the newest.
func left(s api.Replication) string {
	var parts []string
	if s.AgeMS > 0 {
		parts = append(parts, "changes of the last "+(time.Duration(s.AgeMS)*time.Millisecond).String()+" are in no snapshot")
	}
	var late []string
	for _, p := range s.Peers {
		if p.LagMS > 0 {
			late = append(late, p.Name)
		}
	}
	if len(late) > 0 {
		parts = append(parts, "the newest snapshot is not with "+strings.Join(late, ", "))
	}
	return strings.Join(parts, "; ")
}

// apartAfter is how long role and replication may differ: one follows the other at once.
const apartAfter = 5 * time.Second

// together raises an alarm while the node serves and does not replicate, or the reverse. One
// that cannot run at all has an alarm of its own.
func (r *replica) together(serves bool, now time.Time) {
	role := r.status(now).Role
	if role == replicaStopped || serves == (role == replicaMaster) {
		r.apart = time.Time{}
	} else if r.apart.IsZero() {
		r.apart = now
	}
	r.book.set(!r.apart.IsZero() && now.Sub(r.apart) > apartAfter, r.plan.Instance, "replication-apart-"+r.plan.Name, fmt.Sprintf(
		"replication %s is %s though the node %s: restart carpd.", r.plan.Name, role, map[bool]string{true: "serves as master", false: "does not serve"}[serves]))
}

// forget ends the alarms of an entry that is gone.
func (r *replica) forget() {
	for _, a := range replicationAlarms(api.Replication{Name: r.plan.Name}, r.plan.AlarmAfter, time.Time{}) {
		r.book.clear(r.plan.Instance, a.name)
	}
	if r.cluster != nil {
		r.cluster.forget()
	}
	for _, name := range []string{"replication-apart-", "changes-left-"} {
		r.book.clear(r.plan.Instance, name+r.plan.Name)
	}
}
