package daemon

import (
	"context"
	"fmt"
	"strings"

	"github.com/carpd/carpd/cmd/daemon/api"
	"github.com/carpd/carpd/replicator/modules"
)

// clusterOf returns the sync of a replication; an empty name means the only one.
func (d *Daemon) clusterOf(name string) (*cluster, error) {
	d.mu.Lock()
	all := d.replicas
	d.mu.Unlock()
	var found []*cluster
	var names []string
	for _, r := range all {
		if r.cluster != nil {
			names = append(names, r.plan.Name)
			if name == "" || r.plan.Name == name {
				found = append(found, r.cluster)
			}
		}
	}
	switch {
	case len(names) == 0:
		return nil, refusal{"no modules are kept equal here", "see sync in carpd.yaml(5)"}
	case len(found) == 1:
		return found[0], nil
	case name == "":
		return nil, refusal{fmt.Sprintf("there are %d of them: which one?", len(names)), "name one of " + strings.Join(names, ", ")}
	}
	return nil, refusal{fmt.Sprintf("no replication %q keeps modules equal", name), "there are " + strings.Join(names, ", ")}
}

// show answers /v1/cluster.
func (c *cluster) show(ctx context.Context) api.Cluster {
	s, counts, trouble := c.status(ctx)
	out := api.Cluster{
		Name: c.plan.Name, NodeID: c.nodeID, Holder: s.Holder.Node, Holding: s.Holding, Ready: s.Ready, Error: trouble, Unsaved: s.Unsaved,
		Modules: []api.ClusterModule{}, Nodes: []api.ClusterNode{}, Events: []api.ClusterEvent{},
		Traffic: api.ClusterTraffic{SentBytes: counts.Sent, ReceivedBytes: counts.Received, Dropped: counts.Dropped},
	}
	for _, m := range s.Modules {
		out.Modules = append(out.Modules, api.ClusterModule{
			Name: m.Name, Standing: string(m.Standing), Stamp: stampOf(m.Stamp), Holds: m.Holds.String(), Wanted: stampOf(m.Wanted), Seen: m.Seen, Reason: m.Reason,
		})
	}
	address := map[uint8]string{}
	for _, o := range c.plan.Sync.Nodes {
		address[o.NodeID] = o.Address
	}
	for _, p := range s.Peers {
		n := api.ClusterNode{NodeID: p.Node, Address: address[p.Node], Neighbour: p.Neighbour, Heard: when(p.Heard), Failures: p.Failures, Modules: []api.ClusterNodeModule{}}
		for _, e := range p.Modules {
			n.Modules = append(n.Modules, api.ClusterNodeModule{Name: e.Module, Stamp: stampOf(e.Stamp), Holds: e.Holds.String()})
		}
		out.Nodes = append(out.Nodes, n)
	}
	for _, e := range s.Events {
		out.Events = append(out.Events, api.ClusterEvent{Time: e.Time, Kind: string(e.Kind), Module: e.Module, NodeID: e.Node, Stamp: stampOf(e.Stamp), Lost: stampOf(e.Lost), Text: e.Text})
	}
	return out
}

func stampOf(s modules.Stamp) api.ClusterStamp {
	if s.IsZero() {
		return api.ClusterStamp{}
	}
	return api.ClusterStamp{Version: s.Version, Epoch: s.Epoch, Term: uint64(s.Term), NodeID: s.Node, Checksum: s.Sum.String()}
}

// has refuses a module that is none.
func (c *cluster) has(name string) error {
	_, all, err := backendOf(c.plan)
	if err != nil {
		return err
	}
	var names []string
	for _, m := range all {
		if m.Name == name {
			return nil
		}
		names = append(names, m.Name)
	}
	return refusal{fmt.Sprintf("no module %q is kept equal", name), "there are " + strings.Join(names, ", ")}
}

// steer runs what an operator asks of a module.
func (d *Daemon) steer(ctx context.Context, r api.ClusterRequest, seed bool) (any, error) {
	c, err := d.clusterOf(r.Name)
	if err != nil {
		return nil, err
	}
	if err := c.has(r.Module); err != nil {
		return nil, err
	}
	c.mu.Lock()
	n, trouble := c.node, c.trouble
	c.mu.Unlock()
	if n == nil {
		return nil, refusal{"it does not run: " + trouble, ""}
	}
	if !seed {
		return api.Result{Text: fmt.Sprintf("%s: tables of %s may be emptied, once", c.plan.Name, r.Module)}, n.Allow(ctx, r.Module)
	}
	if err := n.Seed(ctx, r.Module); err != nil {
		return nil, refusal{err.Error(), ""}
	}
	return api.Result{Text: fmt.Sprintf("%s: %s of this node is that of the cluster", c.plan.Name, r.Module)}, nil
}
