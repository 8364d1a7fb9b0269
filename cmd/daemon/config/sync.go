package config

import (
	"slices"
	"time"
)

// The limits of sync.
const (
	MaxSyncNodes   = 254 // others
	MaxSyncModules = 64
)

// The defaults of sync.
const (
	DefaultSyncInterval = time.Second
	DefaultSyncDiffs    = 3
	DefaultSyncFanout   = 3
)

// What becomes of a change at a node that does not hold the address.
const (
	ChangesRefuse  = "refuse"
	ChangesForward = "forward"
)

// Sync is modules of a database that are kept equal on many nodes: the master of the
// instance is the source of changes.
type Sync struct {
	Listen    string // ADDRESS:PORT
	KeyFile   string // absolute: private key of this node
	Nodes     []SyncNode
	Modules   []SyncModule  // none: of ProxySQL the usual ones
	NodeLocal []string      // patterns of ProxySQL's variables that are of each node
	Interval  time.Duration // between polls
	Diffs     int           // so many equal observations before a pull
	Fanout    int           // neighbours that are polled
	Changes   string        // ChangesRefuse or ChangesForward

	at pos
}

// SyncNode is another node.
type SyncNode struct {
	NodeID  uint8
	Address string // HOST:PORT
	Key     string // its public key, as ssh-keygen writes it
}

// SyncModule is tables that change together. Of ProxySQL the name says which.
type SyncModule struct {
	Name   string
	Tables []string
}

// placeless returns the same without where it stands in the file.
func (s *Sync) placeless() *Sync {
	if s == nil {
		return nil
	}
	same := *s
	same.at = pos{}
	return &same
}

func (r *reader) sync(n *node) *Sync {
	s := &Sync{Interval: DefaultSyncInterval, Diffs: DefaultSyncDiffs, Fanout: DefaultSyncFanout, Changes: ChangesRefuse, at: n.at}
	at := r.fields(n, syncKeys, setters{
		"listen":            func(n *node) { r.hostPort(n, &s.Listen) },
		"key_file":          func(n *node) { r.absolute(n, &s.KeyFile) },
		"nodes":             func(n *node) { r.syncNodes(n, s) },
		"modules":           func(n *node) { s.Modules = r.syncModules(n) },
		"node_local":        func(n *node) { s.NodeLocal = r.tableNames(n) },
		"interval":          func(n *node) { r.duration(n, 200*time.Millisecond, time.Minute, &s.Interval) },
		"diffs_before_sync": func(n *node) { r.whole(n, 0, 1000, &s.Diffs) },
		"fanout":            func(n *node) { r.whole(n, 1, 16, &s.Fanout) },
		"changes":           func(n *node) { r.choice(n, &s.Changes, []string{ChangesRefuse, ChangesForward}, nil) },
	})
	if n.kind != mapping {
		return s
	}
	for _, need := range []struct{ key, hint string }{
		{"listen", "write the address and port where the other nodes reach this one: listen: 192.0.2.1:6020"},
		{"key_file", "make one without a passphrase: ssh-keygen -t ed25519 -N '' -f FILE"},
		{"nodes", "list the other nodes: - {node_id: 2, address: HOST:PORT, identity: ssh-ed25519 ...}"},
	} {
		if _, given := at[need.key]; !given {
			r.fault(n.at, need.hint, "sync: %s is missing", need.key)
		}
	}
	return s
}

func (r *reader) syncNodes(n *node, s *Sync) {
	for _, item := range r.list(n, "nodes", MaxSyncNodes) {
		one := SyncNode{}
		at := r.fields(item, syncNodeKeys, setters{
			"node_id":  func(n *node) { r.number(n, 1, 255, &one.NodeID) },
			"address":  func(n *node) { r.hostPort(n, &one.Address) },
			"identity": func(n *node) { one.Key, _ = r.str(n, "a public key") },
		})
		for _, key := range []string{"node_id", "address", "identity"} {
			if _, given := at[key]; !given && item.kind == mapping {
				r.fault(item.at, "", "sync: a node without %s", key)
			}
		}
		if slices.ContainsFunc(s.Nodes, func(o SyncNode) bool { return o.NodeID == one.NodeID && one.NodeID != 0 }) {
			r.fault(item.at, "give each node its own node_id", "sync: node_id %d is there twice", one.NodeID)
		}
		s.Nodes = append(s.Nodes, one)
	}
}

// syncModules reads a list of names, or a mapping from names to tables.
func (r *reader) syncModules(n *node) (all []SyncModule) {
	if n.kind != mapping {
		for _, item := range r.list(n, "modules", MaxSyncModules) {
			m := SyncModule{}
			r.word(item, 64, &m.Name)
			all = append(all, m)
		}
		return all
	}
	if len(n.entries) > MaxSyncModules {
		r.fault(n.at, "", "modules: %d of them, at most %d", len(n.entries), MaxSyncModules)
		return nil
	}
	for _, e := range n.entries {
		all = append(all, SyncModule{Name: e.key, Tables: r.tableNames(e.value)})
	}
	return all
}

// syncFits checks what depends on the rest of the entry and the file.
func (r *reader) syncFits(p Replication, id uint8) {
	s := p.Sync
	if s == nil {
		return
	}
	proxysql := p.Source.Kind == SourceProxySQL
	if slices.ContainsFunc(s.Nodes, func(n SyncNode) bool { return n.NodeID == id && id != 0 }) {
		r.fault(s.at, "list the other nodes only", "sync: node_id %d is that of this node", id)
	}
	if proxysql && p.Source.Admin == nil {
		r.fault(s.at, "add admin to its source", "sync: ProxySQL's modules are read and written through its admin interface, and there is none")
	}
	if !proxysql && len(s.Modules) == 0 {
		r.fault(s.at, "write modules: {NAME: [TABLE, ...]}", "sync: modules is missing")
	}
	if !proxysql && len(s.NodeLocal) > 0 {
		r.fault(s.at, "leave tables of a node out of modules", "sync: node_local is for ProxySQL's variables")
	}
	for _, m := range s.Modules {
		if proxysql != (len(m.Tables) == 0) {
			what, hint := "has no tables", "write modules: {NAME: [TABLE, ...]}"
			if proxysql {
				what, hint = "names tables", "write modules: [mysql_users, mysql_servers]: ProxySQL says which tables belong together"
			}
			r.fault(s.at, hint, "sync: module %s %s", m.Name, what)
		}
	}
}
