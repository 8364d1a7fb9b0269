package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/cmd/daemon/config"
	"github.com/carpd/carpd/hooks/secret"
	"github.com/carpd/carpd/replicator/modules"
	"github.com/carpd/carpd/replicator/modules/admin"
	"github.com/carpd/carpd/replicator/modules/mesh"
	"github.com/carpd/carpd/replicator/modules/node"
	"github.com/carpd/carpd/replicator/sqlite"
)

// clusterAgain is how long passes before what could not be begun is tried again.
const clusterAgain = 5 * time.Second

// cluster is the sync of one replication at work. One goroutine drives it; serve switches
// the role.
type cluster struct {
	plan     config.Replication
	nodeID   uint8
	stateDir string // with its state and what is kept aside
	log      *slog.Logger
	book     *book
	stop     context.CancelFunc
	done     sync.WaitGroup

	mu      sync.Mutex
	wanted  carp.Epoch    // of the mastership; 0: another node's
	changed chan struct{} // closed and replaced when wanted changes
	node    *node.Node    // nil: it does not run
	lines   *mesh.Mesh
	trouble string // why not
	since   time.Time
}

// newCluster returns nil for an entry without sync.
func (d *Daemon) newCluster(p config.Replication, id uint8, log *slog.Logger) *cluster {
	if p.Sync == nil {
		return nil
	}
	return &cluster{plan: p, nodeID: id, stateDir: d.stateFile("modules", p.Name), log: log, book: d.book, changed: make(chan struct{})}
}

func (c *cluster) start() {
	ctx, stop := context.WithCancel(context.Background())
	c.stop = stop
	c.done.Go(func() { c.run(ctx) })
	c.done.Go(func() { c.watch(ctx) })
}

func (c *cluster) end() {
	c.stop()
	c.done.Wait()
}

// serve makes this node the source of changes in this mastership; 0 ends that. It does not
// wait.
func (c *cluster) serve(epoch carp.Epoch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.wanted != epoch {
		c.wanted = epoch
		close(c.changed)
		c.changed = make(chan struct{})
	}
}

func (c *cluster) want() (carp.Epoch, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.wanted, c.changed
}

// run runs the node until ctx ends, and again when it could not begin.
func (c *cluster) run(ctx context.Context) {
	for ctx.Err() == nil {
		err := c.work(ctx)
		c.mu.Lock()
		c.node, c.lines = nil, nil
		if err != nil {
			if c.trouble == "" {
				c.since = time.Now()
				c.log.Warn("modules are not kept equal; trying again", "error", err)
			}
			c.trouble = err.Error()
		}
		c.mu.Unlock()
		again := time.NewTimer(clusterAgain)
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
		}
	}
}

func (c *cluster) work(ctx context.Context) error {
	n, lines, err := c.open(ctx)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.node, c.lines, c.trouble, c.since = n, lines, "", time.Time{}
	c.mu.Unlock()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 2)
	go func() { ended <- lines.Run(ctx) }()
	go func() { ended <- n.Run(ctx) }()
	var follower sync.WaitGroup
	follower.Go(func() { c.follow(ctx, n) })
	err = <-ended
	stop()
	follower.Wait()
	return errors.Join(err, <-ended)
}

// follow tells the node about the role.
func (c *cluster) follow(ctx context.Context, n *node.Node) {
	held := carp.Epoch(0)
	for ctx.Err() == nil {
		epoch, changed := c.want()
		var err error
		switch {
		case epoch == held:
		case epoch == 0:
			err = n.Release(ctx)
		default:
			err = n.Hold(ctx, epoch)
		}
		if err != nil {
			return // it ends
		}
		held = epoch
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// open makes the node of an entry. Nothing is connected yet, but the port is taken.
func (c *cluster) open(ctx context.Context) (*node.Node, *mesh.Mesh, error) {
	cfg, err := meshOf(c.plan, c.nodeID)
	if err != nil {
		return nil, nil, err
	}
	backend, all, err := backendOf(c.plan)
	if err != nil {
		return nil, nil, err
	}
	if err := os.MkdirAll(c.stateDir, 0o700); err != nil {
		return nil, nil, err
	}
	if cfg.Listen, err = (&net.ListenConfig{}).Listen(ctx, "tcp", c.plan.Sync.Listen); err != nil {
		return nil, nil, fmt.Errorf("sync: %w: does another program have that port?", err)
	}
	cfg.Log = c.log
	lines, err := mesh.New(cfg)
	if err != nil {
		return nil, nil, errors.Join(err, cfg.Listen.Close())
	}
	core := modules.Config{Self: c.nodeID, Modules: all, Interval: c.plan.Sync.Interval, Fanout: c.plan.Sync.Fanout}
	if c.plan.Sync.Changes == config.ChangesForward {
		core.Policy = modules.Forward
	}
	for _, o := range c.plan.Sync.Nodes {
		core.Peers = append(core.Peers, o.NodeID)
	}
	n, err := node.New(node.Config{
		Config: core, Backend: backend, Mesh: lines, Log: c.log,
		State: &node.StateFile{Path: filepath.Join(c.stateDir, "state.json")}, Aside: &node.Aside{Dir: filepath.Join(c.stateDir, "aside")},
	})
	if err != nil {
		return nil, nil, errors.Join(err, cfg.Listen.Close())
	}
	return n, lines, nil
}

// meshOf is the mesh of an entry, without its listener.
func meshOf(p config.Replication, id uint8) (mesh.Config, error) {
	key, err := mesh.ReadKey(p.Sync.KeyFile)
	if err != nil {
		return mesh.Config{}, err
	}
	cfg := mesh.Config{Self: id, Cluster: p.Name, Key: key}
	for _, o := range p.Sync.Nodes {
		public, err := mesh.ParseKey(o.Key)
		if err != nil {
			return cfg, fmt.Errorf("sync: node %d: %w", o.NodeID, err)
		}
		cfg.Peers = append(cfg.Peers, mesh.Peer{Node: o.NodeID, Address: o.Address, Key: public})
	}
	return cfg, nil
}

// backendOf is the database of an entry and its modules.
func backendOf(p config.Replication) (node.Backend, []modules.Module, error) {
	if p.Source.Kind == config.SourceProxySQL {
		password, err := secret.Read(p.Source.Admin.PasswordFile)
		if err != nil {
			return nil, nil, err
		}
		names := admin.DefaultNames()
		if len(p.Sync.Modules) > 0 {
			names = nil
			for _, m := range p.Sync.Modules {
				names = append(names, m.Name)
			}
		}
		all, err := admin.Modules(names, p.Sync.Diffs)
		return &admin.Admin{Address: p.Source.Admin.Address, User: p.Source.Admin.User, Password: password, Names: names, Local: p.Sync.NodeLocal}, unguarded(all, p.MayBeEmpty), err
	}
	t := &sqlite.Tables{Path: p.Source.Database, Groups: map[string][]string{}}
	var all []modules.Module
	for _, m := range p.Sync.Modules {
		t.Groups[m.Name] = m.Tables
		all = append(all, modules.Module{Name: m.Name, Guarded: m.Tables, Diffs: p.Sync.Diffs})
	}
	return t, unguarded(all, p.MayBeEmpty), nil
}

// unguarded lets tables be emptied that the configuration names.
func unguarded(all []modules.Module, mayBeEmpty []string) []modules.Module {
	for i := range all {
		all[i].Guarded = slices.DeleteFunc(slices.Clone(all[i].Guarded), func(t string) bool { return slices.Contains(mayBeEmpty, t) })
	}
	return all
}

// checkSync finds what modules cannot be kept equal with. It connects to nothing.
func checkSync(p config.Replication) error {
	if p.Sync == nil {
		return nil
	}
	cfg, err := meshOf(p, 0) // that no other node has its id is seen where the file is read
	if err == nil {
		err = cfg.Validate()
	}
	if p.Source.Kind != config.SourceProxySQL || p.Source.Admin != nil {
		_, _, e := backendOf(p)
		err = errors.Join(err, e)
	}
	return err
}

// status returns what the node knows; without one, why there is none.
func (c *cluster) status(ctx context.Context) (s node.Status, counts mesh.Counts, trouble string) {
	c.mu.Lock()
	n, lines, trouble := c.node, c.lines, c.trouble
	c.mu.Unlock()
	if n == nil {
		return s, counts, cmp.Or(trouble, "it does not run yet")
	}
	s, err := n.Status(ctx)
	if err != nil {
		return s, counts, err.Error()
	}
	return s, lines.Counts(), ""
}

// clusterAlarms returns every alarm about sync, those that do not stand included.
func clusterAlarms(name string, s node.Status, trouble string) []condition {
	var all conditions
	all.when(trouble != "", "modules-"+name, "replication %s: modules are not kept equal: %s. It is tried again.", name, trouble)
	all.when(s.Unsaved, "modules-unsaved-"+name, "replication %s: the state of the modules cannot be saved: this node is silent until it can.", name)
	var refusing, unknown []string
	for _, m := range s.Modules {
		switch m.Standing {
		case modules.Refusing:
			refusing = append(refusing, m.Name+" ("+m.Reason+")")
		case modules.Unknown:
			unknown = append(unknown, m.Name+" ("+cmp.Or(m.Reason, "not read yet")+")")
		}
	}
	all.when(len(refusing) > 0, "modules-emptied-"+name, "replication %s: not taken: %v. If that is meant: carpctl cluster allow %s MODULE", name, refusing, name)
	all.when(len(unknown) > 0, "modules-unknown-"+name, "replication %s: cannot be read: %v", name, unknown)
	conflict := ""
	for _, e := range s.Events {
		if e.Kind == modules.Conflict && time.Since(e.Time) < conflictShown {
			conflict = e.Module + ": " + e.Text
		}
	}
	all.when(conflict != "", "modules-conflict-"+name, "replication %s: two states did not follow from each other; the newer one stands, the other is in the state directory: %s", name, conflict)
	return all
}

// statusTime is how long a node may be busy until that is an alarm.
const statusTime = 10 * time.Second

// conflictShown is for how long a conflict is an alarm.
const conflictShown = 15 * time.Minute

// watch raises and ends alarms, each second. It waits for the node, whose disk may be slow:
// nobody else waits with it.
func (c *cluster) watch(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			c.alarms(ctx)
		}
	}
}

func (c *cluster) alarms(ctx context.Context) {
	limited, cancel := context.WithTimeout(ctx, statusTime)
	defer cancel()
	s, _, trouble := c.status(limited)
	if c.starting() || ctx.Err() != nil {
		return
	}
	for _, a := range clusterAlarms(c.plan.Name, s, trouble) {
		c.book.set(a.text != "", c.plan.Instance, a.name, a.text)
	}
}

// starting reports whether it is too early to complain.
func (c *cluster) starting() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.trouble == "" && c.node == nil
}

func (c *cluster) forget() {
	for _, a := range clusterAlarms(c.plan.Name, node.Status{}, "") {
		c.book.clear(c.plan.Instance, a.name)
	}
}
