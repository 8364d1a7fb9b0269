package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/cmd/daemon/api"
	"github.com/carpd/carpd/cmd/daemon/config"
	"github.com/carpd/carpd/hooks/secret"
	"github.com/carpd/carpd/replicator"
	"github.com/carpd/carpd/replicator/dir"
)

// replica is one entry of replication at work: a replicator.Master while this node serves
// as master, a replicator.Standby else. Serve and rest switch it; one goroutine does what
// they say.
type replica struct {
	plan    config.Replication
	nodeID  uint8
	node    string
	scratch string // a directory for the snapshot that is being taken
	log     *slog.Logger
	book    *book
	cluster *cluster // nil: no modules are kept equal
	stop    context.CancelFunc
	done    sync.WaitGroup

	comparing chan struct{} // capacity 1: held by a comparison, and by a restore

	mu      sync.Mutex
	wanted  carp.Epoch    // of the mastership; 0: standby
	changed chan struct{} // closed and replaced when wanted or running change
	running carp.Epoch    // of the Master that is not at rest yet; 0: none
	store   *dir.Store    // nil: not open yet
	master  *replicator.Master
	standby *replicator.Standby
	trouble string    // why it does not run at all
	since   time.Time // when trouble began
	apart   time.Time // since when it is not in the role of the node; of watch
	past    totals    // of the masterships and standbys that are over
}

const (
	// replicaRest is how long resources wait for a snapshot that is under way before they are
	// demoted. One that takes longer finds the database gone and fails.
	replicaRest  = time.Second
	replicaAgain = 5 * time.Second // before what could not be begun is tried again
)

func (d *Daemon) newReplica(p config.Replication, id uint8) *replica {
	log := d.log.With("replication", p.Name)
	return &replica{
		cluster: d.newCluster(p, id, log),
		plan:    p, nodeID: id, node: d.node, scratch: d.stateFile("taking", p.Name),
		log: log, book: d.book, changed: make(chan struct{}), comparing: make(chan struct{}, 1),
	}
}

// start runs it until end.
func (r *replica) start() {
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	r.done.Go(func() { r.run(ctx) })
	if r.cluster != nil {
		r.cluster.start()
	}
}

// end waits until it is at rest.
func (r *replica) end() {
	r.stop()
	if r.cluster != nil {
		r.cluster.end()
	}
	r.done.Wait()
}

// serve has it take and ship snapshots in this mastership; 0 ends that. It does not wait.
func (r *replica) serve(epoch carp.Epoch) {
	if r.cluster != nil {
		r.cluster.serve(epoch)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.wanted != epoch {
		r.wanted = epoch
		r.tellLocked()
	}
}

func (r *replica) tellLocked() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// atRest returns when no mastership is at work any more, or ctx ends.
func (r *replica) atRest(ctx context.Context) {
	for {
		r.mu.Lock()
		running, changed := r.running, r.changed
		r.mu.Unlock()
		if running == 0 {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// want returns what is wanted, and a channel that is closed when that may have changed.
func (r *replica) want() (carp.Epoch, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.wanted, r.changed
}

// while returns a context that ends when something else is wanted; stop ends it, too.
func (r *replica) while(ctx context.Context, epoch carp.Epoch) (one context.Context, stop func()) {
	one, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer cancel()
		for one.Err() == nil {
			wanted, changed := r.want()
			if wanted != epoch {
				return
			}
			select {
			case <-changed:
			case <-one.Done():
			}
		}
	}()
	return one, func() { cancel(); <-ended }
}

// run does what is wanted until ctx ends.
func (r *replica) run(ctx context.Context) {
	for ctx.Err() == nil {
		epoch, _ := r.want()
		one, stop := r.while(ctx, epoch)
		err := r.work(one, epoch)
		r.over()
		if err != nil && one.Err() == nil {
			r.fail(err)
			again := time.NewTimer(replicaAgain)
			select {
			case <-again.C:
			case <-one.Done():
				again.Stop()
			}
		}
		stop()
	}
}

// work is one mastership, or the time between two.
func (r *replica) work(ctx context.Context, epoch carp.Epoch) error {
	store, err := dir.Open(ctx, r.plan.Store)
	if err != nil {
		return err
	}
	if epoch == 0 {
		arrivals := store.Arrivals()
		s, err := r.newStandby(store, arrivals)
		if err != nil {
			return err
		}
		r.begin(store, nil, s, 0)
		return errors.Join(s.Run(ctx), arrivals.Close())
	}
	source, err := openSource(r.plan)
	if err != nil {
		return err
	}
	m, err := r.newMaster(store, source, epoch)
	if err == nil {
		r.begin(store, m, nil, epoch)
		err = m.Run(ctx)
	}
	return errors.Join(err, source.Close())
}

func (r *replica) newMaster(store *dir.Store, source replicator.Source, epoch carp.Epoch) (*replicator.Master, error) {
	peers, err := openPeers(r.plan)
	if err != nil {
		return nil, err
	}
	return replicator.NewMaster(replicator.MasterConfig{
		Source: source, Store: store, Peers: peers, Scratch: r.scratch,
		Epoch: epoch, Node: r.nodeID, Name: r.node, Keep: keepOf(r.plan), Settle: r.plan.Settle, Latest: r.plan.Latest, Log: r.log,
	})
}

func (r *replica) newStandby(store *dir.Store, arrivals *dir.Arrivals) (*replicator.Standby, error) {
	return replicator.NewStandby(replicator.StandbyConfig{
		Store: store, Keep: keepOf(r.plan), Log: r.log, Arrived: arrivals.Wait,
		Verify: func(ctx context.Context, m replicator.Manifest, before map[string]int64) replicator.Verdict {
			return verifySnapshot(ctx, r.plan, store.Path(m.Version), m.SHA256, before)
		},
	})
}

// begin notes what runs now.
func (r *replica) begin(store *dir.Store, m *replicator.Master, s *replicator.Standby, epoch carp.Epoch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.store, r.master, r.standby, r.running = store, m, s, epoch
	r.trouble, r.since = "", time.Time{}
	r.tellLocked()
	if m != nil {
		r.book.clear(r.plan.Instance, "changes-left-"+r.plan.Name)
	}
}

// over notes that what ran is at rest.
func (r *replica) over() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.master != nil {
		s := r.master.Status()
		r.past.addMaster(s)
		out := api.Replication{Peers: make([]api.ReplicationPeer, len(s.Peers))}
		masterReplication(&out, s, time.Now())
		if text := left(out); text != "" {
			r.book.raise(r.plan.Instance, "changes-left-"+r.plan.Name, fmt.Sprintf(
				"replication %s: the role left this node too early: %s. Who has it now may lack them: carpctl snapshots diff current newest.", r.plan.Name, text))
		}
	}
	if r.standby != nil {
		r.past.addStandby(r.standby.Status())
	}
	r.master, r.standby, r.running = nil, nil, 0
	r.tellLocked()
}

func (r *replica) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.trouble == "" {
		r.since = time.Now()
		r.log.Warn("replication does not run; trying again", "error", err)
	}
	r.trouble = err.Error()
}

// replicated returns the entries that follow an instance.
func (d *Daemon) replicated(name string) []*replica {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(d.replicas), func(r *replica) bool { return r.plan.Instance != name })
}

// serve switches what follows the instance: on when its addresses are, off first when it
// leaves. It does not wait.
func (i *instance) serve(epoch carp.Epoch) {
	i.serving.Lock()
	defer i.serving.Unlock()
	i.serveLocked(epoch)
}

func (i *instance) serveLocked(epoch carp.Epoch) {
	i.serving.epoch = epoch
	for _, r := range i.d.replicated(i.name) {
		r.serve(epoch)
	}
}

// cease ends what follows the instance in masterships up to this one: who tells of an end
// may be late, and another one have begun.
func (i *instance) cease(epoch carp.Epoch) {
	i.serving.Lock()
	defer i.serving.Unlock()
	if i.serving.epoch <= epoch {
		i.serveLocked(0)
	}
}

// serving is the mastership in which the addresses of an instance are on; 0: they are not.
type serving struct {
	sync.Mutex // held while what follows the instance is told; nothing waits under it
	epoch      carp.Epoch
}

func (s *serving) now() carp.Epoch {
	s.Lock()
	defer s.Unlock()
	return s.epoch
}

// rested waits, not for long, until no snapshot is under way: resources let go after that.
func (i *instance) rested(ctx context.Context) {
	all := i.d.replicated(i.name)
	if len(all) == 0 || !i.holds() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, replicaRest)
	defer cancel()
	for _, r := range all {
		r.atRest(ctx)
	}
}

// shippedTime is how long a handover waits for the newest changes to be with the peers.
const shippedTime = 3 * time.Second

// shipped waits, not for long, until each peer that can be reached has the newest changes:
// what a client wrote before it asked for a handover is not left behind.
func (i *instance) shipped(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, shippedTime)
	defer cancel()
	for _, r := range i.d.replicated(i.name) {
		if err := r.flush(ctx); err != nil {
			i.d.log.Warn("the role leaves though not all changes are with the peers", "instance", i.name, "replication", r.plan.Name, "error", err)
		}
	}
}

// flush brings all changes to the peers, where this node is the master.
func (r *replica) flush(ctx context.Context) error {
	r.mu.Lock()
	m := r.master
	r.mu.Unlock()
	if m == nil {
		return nil
	}
	return m.Flush(ctx)
}

// allLack says that no peer has the newest snapshot: whoever takes the role would go on
// with an older database, and its snapshots be the newest. "" if one has it, or there are
// no peers.
func allLack(s api.Replication) string {
	has := func(p api.ReplicationPeer) bool { return p.State == string(replicator.PeerCurrent) }
	if s.Role != replicaMaster || len(s.Peers) == 0 || slices.ContainsFunc(s.Peers, has) {
		return ""
	}
	p := s.Peers[0]
	return fmt.Sprintf("no peer has the newest snapshot of replication %s: %s is %s %s", s.Name, p.Name, p.State, p.Error)
}

// replicate makes what runs like the entries of a file: those that did not change are not
// touched. It is called by one goroutine at a time.
func (d *Daemon) replicate(file *config.File) {
	d.mu.Lock()
	old := d.replicas
	d.mu.Unlock()
	var now, fresh []*replica
	for _, p := range file.Replication {
		i := slices.IndexFunc(old, func(r *replica) bool { return r.plan.Equal(p) })
		if i >= 0 {
			now = append(now, old[i])
			continue
		}
		r := d.newReplica(p, file.NodeID)
		now, fresh = append(now, r), append(fresh, r)
	}
	for _, r := range old {
		if !slices.Contains(now, r) {
			r.end() // before another one uses its store
			r.forget()
		}
	}
	d.mu.Lock()
	d.replicas = now
	d.mu.Unlock()
	for _, r := range fresh {
		r.start()
		if i, err := d.find(r.plan.Instance); err == nil {
			i.serving.Lock()
			r.serve(i.serving.epoch) // what comes later is told to it, too
			i.serving.Unlock()
		}
	}
}

// endReplicas ends all, when the instances have let go.
func (d *Daemon) endReplicas() {
	var all sync.WaitGroup
	for _, r := range d.replicas {
		all.Go(r.end)
	}
	all.Wait()
}

// checkReplication finds what nothing can be replicated with. It touches nothing.
func checkReplication(p config.Replication) error {
	var err error
	if a := p.Source.Admin; a != nil {
		_, err = secret.Read(a.PasswordFile)
	}
	return errors.Join(err, checkPeers(p), checkSync(p))
}
